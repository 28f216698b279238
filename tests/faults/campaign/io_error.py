# Copyright: (c) 2026, Sendense contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""``io-error``: reads of the source and writes of the repository fail now and then, and flushes that fail or lie.

Never may a point with wrong content be listed as ok. nbdkit's random numbers cannot be seeded: which of its requests
fail is another one in every run.
"""

from __future__ import annotations

from contextlib import contextmanager
from pathlib import Path
from typing import Any, Callable, ClassVar, Dict, Iterator, List

from ._base import Outcome
from .apart import ApartFamily
from .failing_disk import failing_disk
from .recording import make_filesystem, mounted
from .shim import blkdebug_targets
from .source_disks import SourceDisk, filtered, served
from .workbench import COPIED, SERVED, Attempt, Workbench

SIZE_MIB = 48
#: Shares of requests that fail.
SHARES = ("1%", "5%", "20%")
#: Places of qemu's block layer at which a write may fail: data, tables, and the two halves of a flush.
EVENTS = ("flush_to_os", "flush_to_disk", "pwritev", "l2_update", "l2_alloc_write", "cluster_alloc", "cluster_alloc_bytes")
ERRNOS = (5, 28)
#: Attempts per hit that is wanted: one request in a hundred does not always come.
PATIENCE = 4


class IoError(ApartFamily):
    """A third each: reads of the source, writes of the disk below the repository, writes and flushes of the target servers."""

    NAME: ClassVar[str] = "io-error"
    FULL: ClassVar[int] = 60
    SHORT: ClassVar[int] = 6

    def inside(self, base: Path, seed: int, count: int) -> Outcome:
        outcome = Outcome()
        third = count // 3
        with _bench(seed, outcome) as bench:
            bench.initialise().chain(1)
            _until(outcome, third, lambda number: _source(bench, outcome, SHARES[number % 3], full=number % 2 == 0))
            _until(outcome, third, lambda number: _server(bench, outcome, number))
        with _bench(seed + 1, outcome) as bench:
            image, where = bench.rig / "disk.img", bench.directory / "mnt"
            bench.site.repository = str(where)
            make_filesystem(image, SIZE_MIB)
            with mounted(image, where):
                bench.initialise().chain(1)
            _until(outcome, count - 2 * third, lambda number: _target(bench, outcome, image, number))
        return outcome


@contextmanager
def _bench(seed: int, outcome: Outcome) -> Iterator[Workbench]:
    bench = Workbench(seed)
    try:
        yield bench
    finally:
        outcome.judge(bench.close())


def _until(outcome: Outcome, count: int, fault: Callable[[int], bool]) -> None:
    """Try until so many faults were hit."""
    hit = 0
    for number in range(PATIENCE * count):
        if hit == count:
            return
        outcome.attempted += 1
        if fault(number):
            hit += 1
            outcome.hit += 1


def _source(bench: Workbench, outcome: Outcome, share: str, full: bool) -> bool:
    """A share of the reads of the source fails from the moment when the copy begins."""
    before = bench.renew()
    trigger, log = bench.directory / "trigger", bench.directory / "nbdkit.log"
    log.write_text("")

    @contextmanager
    def serve(disk: SourceDisk, socket: Path) -> Iterator[str]:
        options = ["error=EIO", f"error-pread-rate={share}", f"error-file={trigger}", f"logfile={log}", "logappend=true"]
        with filtered(disk.path, socket.with_suffix(".raw"), ["log", "error"], options) as node, served(disk, node, socket) as uri:
            yield uri

    attempt = bench.backup({SERVED: trigger.touch}, serve, full=full)
    trigger.unlink(missing_ok=True)
    errors = log.read_text().count("return=-1")
    _judge(bench, outcome, attempt, before, f"{share} of the reads of the source, {errors} errors")
    return errors > 0


def _server(bench: Workbench, outcome: Outcome, number: int) -> bool:
    """One place in the target server's block layer fails, once or from then on."""
    before = bench.renew()
    rule = {"event": EVENTS[number % len(EVENTS)], "errno": ERRNOS[number // len(EVENTS) % 2], "once": bench.random.random() < 0.5}
    with blkdebug_targets(bench.directory, [rule]):
        attempt = bench.backup()
    _judge(bench, outcome, attempt, before, f"{rule}")
    return not attempt.ok


def _target(bench: Workbench, outcome: Outcome, image: Path, number: int) -> bool:
    """A share of the writes of the repository's disk fails; for every second fault the target servers' flushes fail, too.

    Judged after a repair of the file system and a new mount, so by what is really on the disk.
    """
    where, share = Path(bench.site.repository), SHARES[number % 3]
    rules: List[Dict[str, Any]] = [{"event": "flush_to_disk", "errno": 5, "once": False}] if number % 2 else []
    moment = bench.random.choice((SERVED, COPIED))
    with mounted(image, where):
        before = bench.renew()
    with failing_disk(bench.rig, image, where, share) as disk, blkdebug_targets(bench.directory, rules):
        attempt = bench.backup({moment: disk.fail})
        found = bench.settle()
        errors = disk.errors()
    what = f"{share} of the writes from {moment} on, {'with' if rules else 'without'} flushes that fail, {errors} errors"
    outcome.judge([f"{text} ({what})" for text in found])
    with mounted(image, where):
        # On storage that cannot be written to nothing can be taken back: what stays must be gone after the next backup.
        _judge(bench, outcome, attempt, before, what, partial_may_stay=True)
    return errors > 0 or bool(rules and not attempt.ok)


def _judge(bench: Workbench, outcome: Outcome, attempt: Attempt, before: Dict[str, str], what: str, partial_may_stay: bool = False) -> None:
    found = bench.remains(attempt, before)
    if partial_may_stay:  # on storage that cannot be written to nothing can be taken back: the next backup does it
        found = [text for text in found if "unfinished point" not in text]
    found += bench.goes_on(attempt) + bench.oracle.leaks()
    outcome.judge([f"{text} ({what}; {attempt.code or 'committed'})" for text in found])
