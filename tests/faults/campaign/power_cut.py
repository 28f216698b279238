# Copyright: (c) 2026, Sendense contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""``power-cut``: the disk below the repository as a power cut leaves it, at any request of whole backups and of a merge.

A cut keeps all that was flushed before it and loses any part of the rest. What the repository then lists as ok must be
right, and what was acknowledged must be there.
"""

from __future__ import annotations

import random
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar, List, Tuple

from ansible_collections.sendense.platform.plugins.module_utils.errors import SendenseError

from . import pruning
from ._base import Outcome
from .apart import ApartFamily
from .recording import Entry, RecordedDisk, Replay, mounted, recorded_disk
from .workbench import COPIED, Workbench

SIZE_MIB = 24
#: After one in so many cuts the next prune and backup are made as well.
GO_ON_EVERY = 10
BACKUPS = 5
#: The backup that is given up after its copy.
GIVEN_UP = 2


@dataclass
class Promise:
    """A point that must be there and ok if the power fails after so many requests: its commit was answered, no prune has begun."""

    point_id: str
    since: int
    until: int = 1 << 62


class PowerCut(ApartFamily):
    """One recording of several backups and a prune, and as many cuts in it as are asked for."""

    NAME: ClassVar[str] = "power-cut"
    FULL: ClassVar[int] = 200
    SHORT: ClassVar[int] = 12

    def inside(self, base: Path, seed: int, count: int) -> Outcome:
        outcome, bench = Outcome(), Workbench(seed)
        try:
            with recorded_disk(bench.rig, SIZE_MIB) as disk:
                bench.site.repository = str(disk.where)
                begin, promises = self.record(bench, disk)
                entries = disk.entries()
            outcome.judge(bench.oracle.jobs() + bench.oracle.leaks())
            replay = Replay(disk.origin, entries)
            image = bench.rig / "cut.img"
            for number, cut in enumerate(_cuts(bench.random, entries, begin, promises, count)):
                image.write_bytes(replay.state(cut, bench.random))
                outcome.attempted += 1
                outcome.hit += 1
                with mounted(image, disk.where):
                    found = _judge(bench, [one.point_id for one in promises if one.since <= cut < one.until])
                    if number % GO_ON_EVERY == 0:
                        found += _go_on(bench)
                outcome.judge([f"{text} (cut {cut} of {len(entries)}, {replay.lost} pages lost)" for text in found])
                image.unlink()
        finally:
            outcome.judge(bench.close())
        return outcome

    def record(self, bench: Workbench, disk: RecordedDisk) -> Tuple[int, List[Promise]]:
        """A full and incrementals, then a prune that merges the older ones. The cuts lie behind the first number."""
        bench.initialise()
        begin = disk.position()
        promises = []
        for number in range(BACKUPS):
            hooks = {COPIED: _give_up} if number == GIVEN_UP else {}
            attempt = bench.backup(hooks)
            assert attempt.ok != bool(hooks), attempt
            if attempt.ok:
                promises.append(Promise(attempt.point_id, disk.position()))
            bench.scribble()
        for expired in promises[: -pruning.KEEP]:
            expired.until = disk.position()
        answer = pruning.prune(bench)
        assert answer.get("result", {}).get("changed"), answer
        assert len(bench.point_ids()) == pruning.KEEP
        return begin, promises


def _give_up() -> None:
    raise ValueError("given up after the copy")


def _cuts(source: random.Random, entries: List[Entry], begin: int, promises: List[Promise], count: int) -> List[int]:
    """Just when a commit was acknowledged; of the rest half anywhere, half around flushes: there the order of things is decided."""
    found = [one.since for one in promises][:count]
    flushes = [number for number, entry in enumerate(entries) if entry.flush and number > begin]
    while len(found) < count:
        around = min(len(entries) - 1, source.choice(flushes) + source.choice((0, 0, 1, 2)))  # after the last request nothing is cut
        found.append(around if len(found) % 2 else source.randrange(begin + 1, len(entries)))
    return sorted(found)


def _judge(bench: Workbench, promised: List[str]) -> List[str]:
    oracle = bench.oracle
    try:
        listed = {point.manifest.point_id: point for point in oracle.repository.list()}
    except SendenseError as error:
        return [f"O4 the repository cannot be read: {error.msg}"]
    found = oracle.points()
    found += [f"O4 {point_id} was committed before the cut and is gone" for point_id in promised if point_id not in listed]
    wrong = [
        point for point in listed.values() if point.status == "damaged" or (point.status != "ok" and point.manifest.point_id in promised)
    ]
    return found + [f"O4 {point.manifest.point_id} is {point.status} after the cut: {point.damage}" for point in wrong]


def _go_on(bench: Workbench) -> List[str]:
    """O5: an open merge is ended by the next prune, the next backup is made, and what the cut has left is gone after it."""
    found = []
    if bench.repository.open_merges(bench.key):
        answer = pruning.prune(bench)
        found += [] if "result" in answer else [f"O5 not pruned: {answer}"]
    attempt = bench.backup()
    found += [] if attempt.ok else [f"O5 not backed up: {attempt.error or attempt.untyped}"]
    return found + bench.settle() + bench.oracle.points() + bench.oracle.leaks()
