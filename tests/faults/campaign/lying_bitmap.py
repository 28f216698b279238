# Copyright: (c) 2026, Sendense contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Change tracking that omits changes: the audit finds them, the points that have them wrong are marked, the next backup is full."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any, ClassVar, Dict, List

from tests.e2e.site import ROOT
from tests.faults.oracle import full_read, sha256

from ._base import Family, Outcome
from .source_disks import SourceDisk
from .workbench import Attempt, Workbench

MIB = 1 << 20
BLOCK = 65536
#: 129 and 48 blocks; samples of the larger one have 64, the least there is, so that three runs see all of it.
SIZES = (8 * MIB + 512, 3 * MIB)
TURNS = 3
KINDS = ("write -P 253", "write -z", "discard")
IN_FULL, NONE, SAMPLE = {"share": 100}, {"share": 0, "after_events": False}, {"share": 0.01}


#: Where the hub is killed while it takes note of a lie that a point believes; empty: nowhere.
KILLED_AT = ("damage:marked", "condemn:marked", "distrust:marked", "")
_ABORT = (
    "import json, sys; from ansible_collections.sendense.platform.plugins.module_utils.jobs.backup import abort_backup; "
    "abort_backup(json.load(sys.stdin), False)"
)


class LiedTo(Workbench):
    """A workbench whose hub may be killed at a step of taking note of a lie."""

    kill_at = ""

    def _rescue(self, attempt: Attempt, job: Dict[str, Any]) -> None:
        if attempt.code == "TRACKING_LIED" and self.kill_at and attempt.error is not None:
            lies = attempt.error.details.pop("lies")
            hook = self.rig / "step"
            hook.write_text("")
            Path(f"{hook}.kill").write_text(f"{self.kill_at}\n")
            path = os.pathsep.join([str(ROOT / "collections"), str(ROOT)])
            environ = dict(os.environ, PYTHONPATH=path, SENDENSE_STEP_HOOK=str(hook))
            order = json.dumps(dict(self.common(), job=job, parent_id=attempt.parent_id, lies=lies))
            done = subprocess.run([sys.executable, "-c", _ABORT], input=order, text=True, env=environ, check=False, timeout=60)
            assert done.returncode == -signal.SIGKILL, f"the hub was not killed at {self.kill_at}: {done.returncode}"
        super()._rescue(attempt, job)  # what the keeper does by itself when nobody beats its heart any more


class LyingBitmap(Family):
    """In turn: found at once by an audit in full; in full, when a point believes the lie already; by samples."""

    NAME: ClassVar[str] = "lying-bitmap"
    FULL: ClassVar[int] = 18
    SHORT: ClassVar[int] = 3

    def run(self, base: Path, seed: int, count: int) -> Outcome:
        outcome, bench = Outcome(), LiedTo(seed, sizes=SIZES)
        try:
            bench.initialise()
            for number in range(count):
                _round(bench, outcome, number)
            outcome.judge(bench.oracle.check(bench.oracle.committed_files()))
        finally:
            outcome.judge(bench.close())
        return outcome


def _round(bench: LiedTo, outcome: Outcome, number: int) -> None:
    """A chain, one lie, and what has to come of it."""
    bench.renew()
    bench.audit = IN_FULL
    points = [_made(bench.backup(full=True))]
    for _honest in range(bench.random.randrange(2)):
        bench.scribble()
        points.append(_made(bench.backup()))
    bench.scribble()
    disk = bench.random.choice(bench.disks)
    offset = bench.random.randrange(disk.size // BLOCK) * BLOCK
    disk.write([f"write -P 3 {offset} {BLOCK}"])
    bench.audit = NONE  # what comes later cannot lean on this point's audit
    points.append(_made(bench.backup()))
    outcome.attempted += 1
    _omit(disk, f"{KINDS[number // 3 % 3]} {offset} {BLOCK}")
    outcome.hit += 1
    if number % 3 == 1:
        points.append(_made(bench.backup()))  # believes the lie: this point is wrong and seems sound
    bench.kill_at = KILLED_AT[number // 3 % len(KILLED_AT)] if number % 3 == 1 else ""
    bench.audit = SAMPLE if number % 3 == 2 else IN_FULL
    found = _until_found(bench, points, TURNS if number % 3 == 2 else 1)
    _judge(bench, outcome, points, found, f"lie {number} ({KINDS[number // 3 % 3]}) at block {offset // BLOCK} of {disk.path.name}")


def _made(attempt: Attempt) -> str:
    assert attempt.ok, f"a backup that nothing is wrong with failed: {attempt.error or attempt.untyped}"
    return attempt.point_id


def _until_found(bench: Workbench, points: List[str], turns: int) -> Attempt:
    """Back up until an audit finds something, at most so many times."""
    for _turn in range(turns):
        attempt = bench.backup()
        if not attempt.ok:
            break
        points.append(attempt.point_id)
    return attempt


def _judge(bench: Workbench, outcome: Outcome, points: List[str], found: Attempt, name: str) -> None:
    if found.code != "TRACKING_LIED":
        outcome.missed(f"{name}: {found.code or 'nothing'} was found in {points}")
    # O1 counts every point that is wrong and still listed as ok.
    outcome.judge(bench.settle() + bench.oracle.points() + bench.oracle.jobs() + bench.oracle.leaks())
    sound = bench.point_ids("ok")
    damaged = [point_id for point_id in points if point_id not in sound]
    wrong = [point_id for point_id in points if _is_wrong(bench, point_id)]
    if damaged != wrong:
        outcome.problems.append(f"{name}: marked are {damaged}, wrong are {wrong} of {points}")
    again = bench.backup()
    if not again.ok or again.full_reason not in ("tracking_lied", "previous_damaged") or set(again.levels) != {"full"}:
        outcome.problems.append(f"O5 {name}: the next backup was {again.levels} because of {again.full_reason!r}: {again.code}")


def _is_wrong(bench: Workbench, point_id: str) -> bool:
    """Whether the images of a point, whatever is said of it, do not read as the source did when it was made."""
    for key, reference in bench.oracle.references[point_id].items():
        with tempfile.NamedTemporaryFile(prefix="sendense-lie-") as raw:
            full_read(bench.points / point_id / f"{key}.qcow2", raw.name)
            if sha256(raw.name) != reference:
                return True
    return False


def _omit(disk: SourceDisk, order: str) -> None:
    """Do what is ordered, and make the bitmap forget that alone."""
    image = ["-f", "qcow2", str(disk.path)]
    _bitmap("--add", "--disable", *image, "kept")
    _bitmap("--merge", disk.bitmap, *image, "kept")
    disk.write([order])
    _bitmap("--clear", *image, disk.bitmap)
    _bitmap("--merge", "kept", *image, disk.bitmap)
    _bitmap("--remove", *image, "kept")


def _bitmap(*arguments: str) -> None:
    subprocess.run(["qemu-img", "bitmap", *arguments], check=True, capture_output=True, timeout=60)
