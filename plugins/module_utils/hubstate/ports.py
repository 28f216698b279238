# Copyright: (c) 2026, Sendense contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The pool of NBD ports of a hub: one lease file per port, several ports at once or none.

Who wants ports takes a pool-wide lock first, so two machines never hold one half each of what both need. The lock is
only ever tried, never waited for with ports in hand.
"""

from __future__ import annotations

import errno
import fcntl
import os
import random
import socket
import time
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from typing import Any, Dict, Iterator, List, Optional

from ..errors import InvalidInputError, LeaseHeldError, PortsExhaustedError
from .locks import FileLease, holder, sweep
from .statedir import StateDir

FIRST_PORT, LAST_PORT = 10100, 10200
#: Seconds that a reader waits for the pool's lock; allocators hold it for milliseconds.
LIST_SECONDS = 5.0
#: Seconds that one try to allocate tolerates readers and other allocators.
TRY_SECONDS = 0.05


@dataclass(frozen=True)
class PortOwner:
    """For what a port is leased."""

    job: str
    machine: str
    node: str
    export: str


@dataclass
class PortLease:
    """One leased port, held by this process until it is released."""

    port: int
    owner: PortOwner
    lease: FileLease

    def release(self) -> None:
        """Give the port back. Stop its server first. Repetition changes nothing."""
        self.lease.release()


class PortPool:
    """Ports ``first`` to ``last`` (both included) on 127.0.0.1, shared by all processes that use one state directory."""

    def __init__(self, state: StateDir, first: int = FIRST_PORT, last: int = LAST_PORT) -> None:
        if not 1 <= first <= last <= 65535:
            raise InvalidInputError(f"Port range {first} to {last} is refused: both must be ports and the first not above the last.")
        self.first = first
        self.last = last
        self._folder = state.ports

    @property
    def total(self) -> int:
        """How many ports the pool has."""
        return self.last - self.first + 1

    def path(self, port: int) -> str:
        """The lease file of a port."""
        return os.path.join(self._folder, f"{int(port)}.lease")

    def allocate(self, owners: List[PortOwner], wait_s: float) -> List[PortLease]:
        """One port for each owner, all or nothing, held by the calling process.

        Waits up to ``wait_s`` seconds. PortsExhaustedError then; InvalidInputError if the pool can never have so many.
        """
        deadline = time.monotonic() + wait_s
        while True:
            leases = self.try_allocate(owners)
            if leases is not None:
                return leases
            if time.monotonic() >= deadline:
                raise self.exhausted(len(owners), wait_s)
            # A random pause, so that those who wait do not all come at the same moment.
            time.sleep(min(random.uniform(0.02, 0.1), max(0.0, deadline - time.monotonic())))

    def try_allocate(self, owners: List[PortOwner]) -> Optional[List[PortLease]]:
        """As :meth:`allocate` without waiting for ports: None if there are not enough now."""
        if not 1 <= len(owners) <= self.total:
            raise InvalidInputError(f"Cannot lease {len(owners)} ports: the pool {self.first}-{self.last} has {self.total}.")
        with self._lock(fcntl.LOCK_EX, TRY_SECONDS) as locked:
            return self._take(owners) if locked else None

    def _take(self, owners: List[PortOwner]) -> Optional[List[PortLease]]:
        taken: List[PortLease] = []
        try:
            for port in range(self.first, self.last + 1):
                if len(taken) == len(owners):
                    break
                lease = self._take_port(port, owners[len(taken)])
                if lease is not None:
                    taken.append(lease)
            if len(taken) == len(owners):
                complete, taken = taken, []
                return complete
            return None
        finally:
            for lease in taken:
                lease.release()

    def _take_port(self, port: int, owner: PortOwner) -> Optional[PortLease]:
        description = dict(asdict(owner), port=port, allocated_at=round(time.time(), 3))
        try:
            lease = FileLease.acquire(self.path(port), description, patience_s=0.0)
        except LeaseHeldError:
            return None
        if port_is_free(port):
            return PortLease(port, owner, lease)
        lease.release()
        return None

    def exhausted(self, wanted: int, wait_s: float) -> PortsExhaustedError:
        """The error of an allocation that got nothing."""
        metrics, foreign = self.metrics(), self.foreign()
        also = f", {len(foreign)} more are in use by other programs," if foreign else ""
        return PortsExhaustedError(
            f"Cannot lease {wanted} NBD ports: {metrics['allocated']} of {metrics['total']} ports {self.first}-{self.last} are leased"
            f"{also} and not enough came free within {wait_s:g} s. Run fewer machines at once, or try again later.",
            details=dict(metrics, foreign=foreign, wanted=wanted, wait_s=wait_s),
        )

    def list(self) -> List[Dict[str, Any]]:
        """All leased ports: port, job, machine, node, export, allocated_at, pid. Leftovers of the dead are not leased."""
        with self._lock(fcntl.LOCK_SH, LIST_SECONDS) as locked:
            if not locked:
                raise LeaseHeldError("The port pool's lock is held for seconds; a process that allocates ports hangs. Look for it.")
            found = []
            for port in range(self.first, self.last + 1):
                lease = holder(self.path(port))
                if lease is not None:
                    found.append(dict(lease, port=port))
            return found

    def foreign(self) -> List[int]:
        """The ports of the pool on which a program outside it listens."""
        leased = {lease["port"] for lease in self.list()}
        return [port for port in range(self.first, self.last + 1) if port not in leased and not port_is_free(port)]

    def is_allocated(self, port: int) -> bool:
        """Whether a living process holds this port."""
        return any(lease["port"] == port for lease in self.list())

    def of_job(self, job_id: str) -> List[Dict[str, Any]]:
        """The leased ports of one job."""
        return [lease for lease in self.list() if lease.get("job") == job_id]

    def metrics(self) -> Dict[str, Any]:
        """``total``, ``available``, ``allocated`` and ``utilisation`` (0..1). Ports that foreign programs use count as available."""
        allocated = len(self.list())
        return {
            "total": self.total,
            "available": self.total - allocated,
            "allocated": allocated,
            "utilisation": round(allocated / self.total, 4),
        }

    def sweep(self) -> List[str]:
        """Remove lease files of the dead; returns their names."""
        with self._lock(fcntl.LOCK_EX, LIST_SECONDS) as locked:
            return sweep(self._folder) if locked else []

    @contextmanager
    def _lock(self, mode: int, patience_s: float) -> Iterator[bool]:
        """The pool-wide lock, tried for ``patience_s`` seconds. A stopped holder must not stop the others for ever."""
        if mode == fcntl.LOCK_SH and not os.path.isdir(self._folder):
            yield True  # nothing was ever leased here
            return
        descriptor = os.open(os.path.join(self._folder, "pool.lock"), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            yield _lock_within(descriptor, mode, patience_s)
        finally:
            os.close(descriptor)


def _lock_within(descriptor: int, mode: int, patience_s: float) -> bool:
    deadline = time.monotonic() + patience_s
    while True:
        try:
            fcntl.flock(descriptor, mode | fcntl.LOCK_NB)
            return True
        except BlockingIOError:
            if time.monotonic() >= deadline:
                return False
        time.sleep(0.005)


def port_is_free(port: int) -> bool:
    """Whether a server could listen on 127.0.0.1 at this port now.

    SO_REUSEADDR as qemu-nbd sets it: connections of an earlier server that linger in TIME_WAIT do not make a port busy,
    a foreign listener does.
    """
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
            probe.listen(1)
        except OSError as error:
            if error.errno in (errno.EADDRINUSE, errno.EACCES):
                return False
            raise
    return True
