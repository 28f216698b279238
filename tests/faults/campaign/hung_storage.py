# Copyright: (c) 2026, Sendense contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""``hung-storage``: servers and storage that answer nothing are noticed in time; those that are only slow are waited for."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Callable, ClassVar, Dict, Iterator, List, Optional

from tests.faults.failing import loop_disk
from tests.lab.disks import MIB

from ._base import Outcome
from .apart import ApartFamily, own_network
from .noticing import GRACE_SECONDS, Hang
from .source_disks import Serve, SourceDisk, filtered, serve_plainly, served
from .workbench import COPIED, SERVED, Attempt, Workbench

SIZES = (12 * MIB, MIB)
#: Bytes per second at which a copy takes some seconds, so that it can be caught in the middle.
RATE = 2 * MIB
#: The operator's limit where the default would take too long to wait for.
SHORT_LIMIT = 6
DEFAULT_LIMIT = 60
#: Faults at the same time: they wait most of the time.
AT_ONCE = 7


class HungStorage(ApartFamily):
    """The first of each kind of a full round with the default limit, all others with a short one."""

    NAME: ClassVar[str] = "hung-storage"
    FULL: ClassVar[int] = 21
    SHORT: ClassVar[int] = 7

    def inside(self, base: Path, seed: int, count: int) -> Outcome:
        outcome = Outcome()
        names = sorted(CASES)

        def one(number: int) -> Outcome:
            name = names[number % len(names)]
            long = count >= self.FULL and number < len(names) and name not in NOT_DEAD
            return _fault(name, seed + number, DEFAULT_LIMIT if long else SHORT_LIMIT)

        with ThreadPoolExecutor(AT_ONCE) as pool:
            for found in pool.map(one, range(count)):
                outcome.add(found)
        return outcome


@dataclass
class Rig:
    """What a case arranges for its backup."""

    serve: Serve = serve_plainly
    rate: int = RATE
    hang: Optional[Hang] = None
    hooks: Dict[str, Callable[[], None]] = field(default_factory=dict)


Case = Callable[[Workbench, ExitStack], Rig]


def source_stopped(bench: Workbench, stack: ExitStack) -> Rig:
    """The source's server is there and says nothing. It is the rig's own, so it goes on before it is to end."""
    return _stopped(bench, "--read-only", early=True)


def target_stopped(bench: Workbench, stack: ExitStack) -> Rig:
    """The target's server is there and takes nothing; the keeper has to kill it."""
    return _stopped(bench, "--detect-zeroes=unmap")


def source_paused(bench: Workbench, stack: ExitStack) -> Rig:
    """The storage below the source's server hangs."""
    controls = [str(bench.rig / f"pause{at}.sock") for at in range(len(bench.disks))]

    @contextmanager
    def serve(disk: SourceDisk, where: Path) -> Iterator[str]:
        control = controls[bench.disks.index(disk)]
        with filtered(disk.path, bench.rig / f"{where.name}.raw", ["pause"], [f"pause-control={control}"]) as node:
            try:
                with served(disk, node, where) as uri:
                    yield uri
            finally:
                os.unlink(control)

    def command(letter: bytes) -> None:
        for control in controls:
            with socket.socket(socket.AF_UNIX) as client:
                client.settimeout(60)
                client.connect(control)
                client.sendall(letter)
                client.recv(1)

    # Ended early, because pausing waits for the requests in flight and the rig's own server could not end otherwise.
    return Rig(serve, hang=Hang(bench, lambda: command(b"p"), lambda: command(b"r"), early=True))


def storage_frozen(bench: Workbench, stack: ExitStack) -> Rig:
    """The file system of the repository is frozen: whoever writes hangs in the kernel, and cannot be killed."""
    where = bench.site.repository
    return Rig(hang=Hang(bench, lambda: _freeze(where, "--freeze"), lambda: _freeze(where, "--unfreeze"), early=True))


def frozen_for_a_while(bench: Workbench, stack: ExitStack) -> Rig:
    """Frozen while the backup is committed, for as long as the limit: it goes on afterwards."""
    where = bench.site.repository

    def freeze() -> None:
        _freeze(where, "--freeze")
        timer = threading.Timer(SHORT_LIMIT + 1, _freeze, (where, "--unfreeze"))
        timer.start()
        stack.callback(timer.join)

    return Rig(hooks={COPIED: freeze}, rate=0)


def source_delayed(bench: Workbench, stack: ExitStack) -> Rig:
    """Every piece of 32 KiB comes late: a request of 1 MiB takes half of the limit."""
    return _slow(["delay"], [f"rdelay={SHORT_LIMIT * 1000 // 64}ms"])


def source_throttled(bench: Workbench, stack: ExitStack) -> Rig:
    """The source gives 1.3 MB a second."""
    return _slow(["rate"], ["rate=10M"])


CASES: Dict[str, Case] = {
    case.__name__.replace("_", " "): case
    for case in (source_stopped, target_stopped, source_paused, storage_frozen, frozen_for_a_while, source_delayed, source_throttled)
}
#: Not to be given up, though they take longer than the limit.
NOT_DEAD = ("frozen for a while", "source delayed", "source throttled")


def _fault(name: str, seed: int, limit: int) -> Outcome:
    own_network()  # several benches at once, each with ports of its own
    outcome = Outcome(attempted=1)
    bench = Workbench(seed, sizes=SIZES, stall_seconds=limit)
    try:
        bench.site.repository = str(bench.directory / "mounted")
        with loop_disk(bench.rig / "image", Path(bench.site.repository), 96), ExitStack() as stack:
            bench.initialise()
            bench.disks[0].fill(bench.random.randrange(1, 256), 0, SIZES[0])
            rig = CASES[name](bench, stack)
            if rig.hang is not None:
                rig.hooks[SERVED] = rig.hang.watch
            try:
                attempt = bench.backup(rig.hooks, rig.serve, rate=rig.rate)
            finally:
                if rig.hang is not None:
                    rig.hang.join()
            stack.close()
            found = _judge(bench, outcome, rig, attempt, limit)
            found += bench.remains(attempt, {}) + bench.goes_on(attempt) + bench.oracle.leaks()
            outcome.judge([f"{text} ({name}, limit {limit} s, {attempt.code})" for text in found])
    finally:
        outcome.judge(bench.close())
    return outcome


def _judge(bench: Workbench, outcome: Outcome, rig: Rig, attempt: Attempt, limit: int) -> List[str]:
    """Whether the fault happened, and what came of it."""
    if rig.hang is None:
        outcome.hit = int(attempt.seconds > limit)
        return [] if attempt.ok else [f"O5 slow was taken for dead: {attempt.error or attempt.untyped}"]
    outcome.hit = 1
    if rig.hang.noticed is None or attempt.ok:
        outcome.missed(f"a hang was not noticed within {limit + GRACE_SECONDS} s: {attempt}")
    elif attempt.code != "COPY_STALLED":
        return [f"O5 a hang was called {attempt.code}: {attempt.error}"]
    return []


def _stopped(bench: Workbench, mark: str, early: bool = False) -> Rig:
    """The servers whose arguments have this mark."""
    stopped: List[int] = []

    def servers() -> List[int]:
        return [pid for pid, line in bench.oracle.processes().items() if "qemu-nbd " in line and mark in line]

    def begin() -> None:
        stopped.extend(servers())
        for pid in stopped:
            os.kill(pid, signal.SIGSTOP)

    def end() -> None:
        for pid in set(stopped) & set(servers()):
            os.kill(pid, signal.SIGCONT)

    return Rig(hang=Hang(bench, begin, end, early))


def _slow(filters: List[str], options: List[str]) -> Rig:
    @contextmanager
    def serve(disk: SourceDisk, where: Path) -> Iterator[str]:
        with filtered(disk.path, where.with_suffix(".raw"), filters, options) as node, served(disk, node, where) as uri:
            yield uri

    return Rig(serve, rate=0)


def _freeze(where: str, how: str) -> None:
    subprocess.run(["fsfreeze", how, where], check=True)
