# Copyright: (c) 2026, Sendense contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Leases as flock-held files: the kernel gives them back when their owner dies, whatever it died of.

The content says who holds the lease and is only a description; the lock is the lease. A lease file is removed by its
owner while it is locked, so a file that nobody locks is a leftover of the dead and means nothing.
"""

from __future__ import annotations

import fcntl
import json
import os
import time
from typing import Any, Dict, List, Optional

from ..errors import LeaseHeldError
from .processes import is_alive, start_time

#: Seconds that an acquirer tolerates others who look whether the lease is held (they lock it for microseconds).
PATIENCE_SECONDS = 0.05
_PAUSE_SECONDS = 0.005


class FileLease:
    """One held lease. It ends with :meth:`release` or with the process."""

    def __init__(self, path: str, descriptor: int, shared: bool) -> None:
        self.path = path
        self.shared = shared
        self._descriptor: Optional[int] = descriptor

    @classmethod
    def acquire(
        cls, path: str, owner: Dict[str, Any], shared: bool = False, patience_s: float = PATIENCE_SECONDS
    ) -> "FileLease":
        """Take the lease now, or LeaseHeldError with the holder in its details. Several may share it with ``shared``."""
        deadline = time.monotonic() + patience_s
        while True:
            descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
            try:
                if _try_lock(descriptor, fcntl.LOCK_SH if shared else fcntl.LOCK_EX):
                    if _names(path, descriptor):
                        _describe(descriptor, owner, shared)
                        lease, descriptor = cls(path, descriptor, shared), -1
                        return lease
                    continue  # released, and so removed, between open and lock
                if time.monotonic() >= deadline:
                    raise _held(path, descriptor)
            finally:
                if descriptor >= 0:
                    os.close(descriptor)
            time.sleep(_PAUSE_SECONDS)

    @classmethod
    def adopt(cls, path: str, descriptor: int) -> "FileLease":
        """Take over a lease that another process acquired and left open in this one, and say that it is ours now."""
        os.set_inheritable(descriptor, False)
        holder_was = _lines(descriptor)
        _describe(descriptor, holder_was[-1] if holder_was else {}, False)
        return cls(path, descriptor, False)

    def fileno(self) -> int:
        """The locked descriptor: a child that inherits it shares the lease."""
        if self._descriptor is None:
            raise LeaseHeldError(f"Lease {self.path} was released before; take it again.")
        return self._descriptor

    def detach(self) -> None:
        """Forget the lease without ending it, after a child has inherited it."""
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None

    def release(self) -> None:
        """End the lease and remove its file, unless others still share it. Repetition changes nothing."""
        if self._descriptor is None:
            return
        descriptor, self._descriptor = self._descriptor, None
        try:
            if (not self.shared or _try_lock(descriptor, fcntl.LOCK_EX)) and _names(self.path, descriptor):
                os.unlink(self.path)
        finally:
            # Explicitly, because a child between fork and exec still shares the open file.
            fcntl.flock(descriptor, fcntl.LOCK_UN)
            os.close(descriptor)


def holder(path: str) -> Optional[Dict[str, Any]]:
    """Who holds the lease (an empty dict if that is not written yet), None if nobody does, also for leftovers."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
    except FileNotFoundError:
        return None
    try:
        lines = _lines(descriptor)
        if not _is_locked(descriptor, any(line.get("shared") for line in lines)):
            return None
        return _living(_lines(descriptor))
    finally:
        os.close(descriptor)


def sweep(folder: str, suffix: str = ".lease") -> List[str]:
    """Remove lease files that nobody holds; returns their names. Only tidiness: they mean nothing."""
    removed = []
    for name in sorted(os.listdir(folder)):
        path = os.path.join(folder, name)
        if name.endswith(suffix) and os.path.exists(path) and holder(path) is None:
            try:
                FileLease.acquire(path, {"sweep": True}, patience_s=0.0).release()
            except LeaseHeldError:
                continue
            removed.append(name)
    return removed


def _try_lock(descriptor: int, mode: int) -> bool:
    try:
        fcntl.flock(descriptor, mode | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _is_locked(descriptor: int, maybe_shared: bool) -> bool:
    """Whether somebody holds the file. Those who look for an exclusive holder do not disturb each other."""
    for _attempt in range(3):
        if _try_lock(descriptor, fcntl.LOCK_EX if maybe_shared else fcntl.LOCK_SH):
            fcntl.flock(descriptor, fcntl.LOCK_UN)
            return False
        if not maybe_shared:
            return True
        time.sleep(_PAUSE_SECONDS)
    return True


def _names(path: str, descriptor: int) -> bool:
    """Whether the path still leads to the open file."""
    try:
        there = os.stat(path, follow_symlinks=False)
    except FileNotFoundError:
        return False
    here = os.fstat(descriptor)
    return (there.st_dev, there.st_ino) == (here.st_dev, here.st_ino)


def _describe(descriptor: int, owner: Dict[str, Any], shared: bool) -> None:
    """One line per holder; an exclusive holder replaces what is there."""
    pid = os.getpid()
    line = dict(owner, pid=pid, starttime=start_time(pid), shared=shared, since=round(time.time(), 3))
    if not shared:
        os.ftruncate(descriptor, 0)
    os.write(descriptor, json.dumps(line, sort_keys=True).encode("ascii") + b"\n")


def _lines(descriptor: int) -> List[Dict[str, Any]]:
    found = []
    for line in os.pread(descriptor, 1 << 20, 0).split(b"\n"):
        try:
            decoded = json.loads(line)
        except ValueError:
            continue
        if isinstance(decoded, dict):
            found.append(decoded)
    return found


def _living(lines: List[Dict[str, Any]]) -> Dict[str, Any]:
    alive = [line for line in lines if is_alive(line.get("pid"), line.get("starttime"))]
    return (alive or lines or [{}])[-1]


def _held(path: str, descriptor: int) -> LeaseHeldError:
    who = _living(_lines(descriptor))
    name = os.path.basename(path)
    return LeaseHeldError(
        f"Lease {name} is held by {who.get('what') or who.get('job') or who.get('job_id') or 'another process'} "
        f"(pid {who.get('pid', 'unknown')}). Wait until it has ended, then try again.",
        details=who,
    )
