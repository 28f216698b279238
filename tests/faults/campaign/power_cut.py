# Copyright: (c) 2026, Sendense contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""``power-cut``: the disk below the repository as a power cut leaves it, at any request of whole backups.

A cut keeps all that was flushed before it and loses any part of the rest. What the repository then lists as ok must be
right, and what was acknowledged must be there.
"""

from __future__ import annotations

import random
from pathlib import Path
from typing import ClassVar, List, Tuple

from ansible_collections.sendense.platform.plugins.module_utils.errors import SendenseError
from tests.faults.oracle import Oracle

from ._base import Outcome
from .apart import ApartFamily
from .recording import Entry, RecordedDisk, Replay, mounted, recorded_disk
from .workbench import COPIED, Workbench

SIZE_MIB = 24
#: After one in so many cuts the next backup is made as well.
NEXT_BACKUP_EVERY = 10

#: A point and the number of requests that were in the log when its commit had returned.
Acknowledged = List[Tuple[str, int]]


class PowerCut(ApartFamily):
    """One recording of several backups, and as many cuts in it as are asked for."""

    NAME: ClassVar[str] = "power-cut"
    FULL: ClassVar[int] = 200
    SHORT: ClassVar[int] = 20

    def inside(self, base: Path, seed: int, count: int) -> Outcome:
        outcome, bench = Outcome(), Workbench(seed)
        try:
            with recorded_disk(bench.rig, SIZE_MIB) as disk:
                bench.site.repository = str(disk.where)
                begin, acknowledged = _record(bench, disk)
                entries = disk.entries()
            outcome.judge(bench.oracle.jobs() + bench.oracle.leaks())
            replay = Replay(disk.origin, entries)
            image = bench.rig / "cut.img"
            for number, cut in enumerate(_cuts(bench.random, entries, begin, acknowledged, count)):
                image.write_bytes(replay.state(cut, bench.random))
                outcome.attempted += 1
                outcome.hit += 1
                with mounted(image, disk.where):
                    found = _judge(bench, [point_id for point_id, position in acknowledged if position <= cut])
                    if number % NEXT_BACKUP_EVERY == 0:
                        found += _next_backup(bench)
                outcome.judge([f"{text} (cut {cut} of {len(entries)}, {replay.lost} pages lost)" for text in found])
                image.unlink()
        finally:
            outcome.judge(bench.close())
        return outcome


def _record(bench: Workbench, disk: RecordedDisk) -> Tuple[int, Acknowledged]:
    """A full and incrementals, one of them given up after its copy. The cuts lie behind the first number."""
    bench.initialise()
    begin = disk.position()
    acknowledged = []
    for number in range(4):
        hooks = {COPIED: _give_up} if number == 2 else {}
        attempt = bench.backup(hooks)
        assert attempt.ok != bool(hooks), attempt
        if attempt.ok:
            acknowledged.append((attempt.point_id, disk.position()))
        bench.scribble()
    return begin, acknowledged


def _give_up() -> None:
    raise ValueError("given up after the copy")


def _cuts(source: random.Random, entries: List[Entry], begin: int, acknowledged: Acknowledged, count: int) -> List[int]:
    """Just when a commit was acknowledged; of the rest half anywhere, half around flushes: there the order of things is decided."""
    found = [position for _point_id, position in acknowledged][:count]
    flushes = [number for number, entry in enumerate(entries) if entry.flush and number > begin]
    while len(found) < count:
        around = min(len(entries), source.choice(flushes) + source.choice((0, 0, 1, 2)))
        found.append(around if len(found) % 2 else source.randrange(begin + 1, len(entries) + 1))
    return sorted(found)


def _judge(bench: Workbench, acknowledged: List[str]) -> List[str]:
    oracle = Oracle(bench.site, [], bench.oracle.references)
    try:
        listed = {point.manifest.point_id: point for point in oracle.repository.list()}
    except SendenseError as error:
        return [f"O4 the repository cannot be read: {error.msg}"]
    found = oracle.points()
    found += [f"O4 {point_id} was committed before the cut and is gone" for point_id in acknowledged if point_id not in listed]
    damaged = [point for point in listed.values() if point.status != "ok"]
    return found + [f"O4 {point.manifest.point_id} is {point.status} after the cut: {point.damage}" for point in damaged]


def _next_backup(bench: Workbench) -> List[str]:
    """O5, and what the cut has left is gone after it."""
    attempt = bench.backup()
    if not attempt.ok:
        return [f"O5 not backed up: {attempt.error or attempt.untyped}"]
    return bench.oracle.points() + bench.oracle.leaks()
