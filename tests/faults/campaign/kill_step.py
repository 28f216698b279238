# Copyright: (c) 2026, Sendense contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Kill a process at every named step of every play: many machines of one play at once, each with another fault."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

from ansible_collections.sendense.platform.plugins.module_utils.catalog import chain
from ansible_collections.sendense.platform.plugins.module_utils.repositories._base import PointFilter
from tests.e2e.site import ROOT
from tests.faults.fleet import Fleet, fleet_at
from tests.faults.kills import Fault
from tests.faults.oracle import LOST

from . import kill_steps as steps
from ._base import Family, Outcome
from .waves import Ground, Wave

#: Machines of one play.
MACHINES = 10

_DELETE = (
    "import sys; from ansible_collections.sendense.platform.plugins.module_utils.repositories.local import LocalRepository; "
    "LocalRepository(sys.argv[1]).delete(sys.argv[2], sys.argv[3])"
)
_WHOLE = sum(len(wave.faults) for wave in steps.waves(MACHINES))
_OWN = len(steps.CLEANUP_STEPS) + len(steps.DELETE_STEPS) + len(steps.DAMAGE_STEPS)


class KillStep(Family):
    """Every hook of ``steps.reached`` in the rooms of backup, restore, verification, clean-up and deletion at least once."""

    NAME = "kill-step"
    FULL = _WHOLE + _OWN
    SHORT = 10

    def run(self, base: Path, seed: int, count: int) -> Outcome:
        with fleet_at(base, "ks", seed) as fleet:
            ground = Ground(fleet)
            fleet.add(*(f"m{number:02d}" for number in range(min(MACHINES, count)))).backup()
            if count < self.FULL:
                some(ground, count)
            else:
                for wave in steps.waves(MACHINES):
                    ground.strike(wave)
                interrupted_cleanups(ground)
            ground.last()
            if count >= self.FULL:
                interrupted_deletions(ground)
                interrupted_damage(ground)
            return ground.outcome


def some(ground: Ground, count: int) -> None:
    """At least so many hits, chosen by the seed from those that may share a play."""
    fleet = ground.fleet
    while ground.outcome.hit < count and not ground.outcome.problems:
        wanted = min(len(fleet.guests), count - ground.outcome.hit)
        ground.strike(Wave("backup", fleet.random.sample(steps.SHARING, wanted)))


def interrupted_cleanups(ground: Ground) -> None:
    """Jobs whose keepers are all dead, and a clean-up that is killed at each of its steps; the next one completes it."""
    fleet = ground.fleet
    names = list(fleet.guests)[:4]
    ground.play("backup", dict.fromkeys(names, (Fault("hub keeper", "export:checked"),)), slow=False)
    killed = len(fleet.struck)
    for step in steps.CLEANUP_STEPS:
        run = fleet.play("cleanup", {names[0]: Fault("module", step, anyone=True)})
        if not fleet.struck or run.returncode == 0:
            ground.outcome.problems.append(f"the clean-up was not killed at {step}: {run.output[-1000:]}")
        killed += len(fleet.struck)
    fleet.struck = []
    ground.outcome.attempted += killed
    ground.outcome.hit += killed
    ground.after("cleanup", run)


def interrupted_deletions(ground: Ground) -> None:
    """The newest point of a machine is deleted by a process that is killed at each step; the next deletion completes it."""
    fleet, oracle = ground.fleet, ground.fleet.oracle
    for step, name in zip(steps.DELETE_STEPS, fleet.guests, strict=False):
        newest = oracle.repository.list()
        point_id = [point.manifest.point_id for point in newest if point.manifest.machine_key == fleet.key(name)][-1]
        oracle.released.add(point_id)
        ground.outcome.attempted += 1
        if _delete(fleet, name, point_id, step) == -signal.SIGKILL:
            ground.outcome.hit += 1
        ground.outcome.judge(oracle.points())
        if _delete(fleet, name, point_id, "") != 0:
            ground.outcome.problems.append(f"deletion of a point that was interrupted at {step} could not be completed")
        if any(point.manifest.point_id == point_id for point in oracle.repository.list()):
            ground.outcome.problems.append(f"the point whose deletion was interrupted at {step} is still there")
    fleet.site.play("cleanup", ",".join(fleet.guests))
    ground.outcome.judge(oracle.check(fleet.before))
    run = fleet.backup(ok=False)
    ground.outcome.judge(oracle.next_backup(run, list(fleet.guests), LOST))


def _delete(fleet: Fleet, name: str, point_id: str, step: str) -> int:
    hook = fleet.directory / "delete"
    hook.write_text("")
    Path(f"{hook}.kill").write_text(f"{step}\n")
    argv = [sys.executable, "-c", _DELETE, fleet.site.repository, fleet.key(name), point_id]
    path = os.pathsep.join([str(ROOT / "collections"), str(ROOT)])
    environ = dict(os.environ, PYTHONPATH=path, SENDENSE_STEP_HOOK=str(hook))
    return subprocess.run(argv, env=environ, check=False, timeout=60).returncode


def interrupted_damage(ground: Ground) -> None:
    """A verification that is killed after it has marked the first of several points that a damage concerns."""
    fleet, oracle = ground.fleet, ground.fleet.oracle
    name = list(fleet.guests)[-1]
    listed = oracle.repository.list(PointFilter(machine_key=fleet.key(name)))
    manifests = {point.manifest.point_id: point.manifest for point in listed}
    base = listed[0].manifest.point_id
    image = Path(fleet.site.repository, "machines", fleet.key(name), "points", base, "disk0.qcow2")
    with open(image, "r+b") as stream:
        stream.seek(image.stat().st_size // 2)
        byte = stream.read(1)[0]
        stream.seek(-1, os.SEEK_CUR)
        stream.write(bytes([byte ^ 0xFF]))
    fleet.remember()
    fleet.play("verify", {name: Fault("module", steps.DAMAGE_STEPS[0])}, verify_vm_all_points=True)
    ground.outcome.attempted += 1
    ground.outcome.hit += len(fleet.struck)
    ground.outcome.judge(fleet.recover())
    fleet.play("verify", {}, verify_vm_all_points=True)
    sound = {point.manifest.point_id for point in oracle.repository.list(PointFilter(status="ok"))}
    wrong = sound.intersection([base, *chain.descendants(manifests, base)])
    if wrong:
        ground.outcome.missed(f"{name}: listed ok though {base} is damaged: {', '.join(sorted(wrong))}")
    run = fleet.backup(ok=False)
    ground.outcome.judge(oracle.next_backup(run, [name], {"previous_damaged"}))
    ground.outcome.judge(oracle.check(fleet.before))
