# Copyright: (c) 2026, Sendense contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Kill anything that works on a job at a random moment of its life, in backups, restores and verifications."""

from __future__ import annotations

import random
import time
from pathlib import Path
from typing import Dict, List, Optional, Tuple

from ansible_collections.sendense.platform.plugins.module_utils.errors import JobNotFoundError
from ansible_collections.sendense.platform.plugins.module_utils.hubstate.jobs import JobDir, list_jobs
from ansible_collections.sendense.platform.plugins.module_utils.hubstate.processes import is_alive
from ansible_collections.sendense.platform.plugins.module_utils.hubstate.statedir import StateDir
from tests.e2e.site import Started
from tests.faults.fleet import Fleet, fleet_at
from tests.faults.kills import Fault, Strike, send
from tests.faults.watch import Watch
from tests.lab.paths import LabError

from ._base import Family, Outcome
from .waves import Ground

#: Machines of one play.
MACHINES = 8
#: Kinds of plays, by how often.
KINDS = ["backup"] * 5 + ["restore", "files", "verify"]
#: Victims of one machine's job, by kind of play. Of a keeper's children any one may be meant.
VICTIMS: Dict[str, List[str]] = {
    "backup": ["hub keeper", "node keeper", "export", "mover", "checker", "reader", "qemu"],
    "restore": ["hub keeper", "node keeper", "export", "writer", "mover"],
    "files": ["hub keeper", "export", "writer", "mover"],
    "verify": ["hub keeper", "checker", "reader"],
}
#: Which children of which keeper a word means, by the beginning of their names.
CHILDREN: Dict[str, Tuple[str, ...]] = {
    "export": ("target-", "read-"),
    "writer": ("target-",),
    "reader": ("reread-",),
    "mover": ("copy",),
    "checker": ("verify",),
}
#: Seconds that a victim may live before it is struck, by word; drawn evenly. Most of them live longer in a slow copy.
LIVES = {"hub keeper": 12.0, "node keeper": 10.0, "qemu": 15.0, "export": 6.0, "writer": 6.0, "mover": 5.0, "checker": 0.4, "reader": 0.4}
#: One play in so many has all of its machines hit by one kill of libvirtd, or of ansible-playbook.
WHOLE_EVERY = 6
WHOLE_SECONDS = 25.0


class KillRandom(Family):
    """Moments are drawn from the seed, relative to the birth of the victim; a victim that dies before is no hit."""

    NAME = "kill-random"
    FULL = 90
    SHORT = 6

    def run(self, base: Path, seed: int, count: int) -> Outcome:
        with fleet_at(base, "kr", seed) as fleet:
            ground = Ground(fleet)
            fleet.add(*(f"m{number:02d}" for number in range(min(MACHINES, count + 2)))).backup()
            plays = 0
            while ground.outcome.hit < count and plays < count:
                plays += 1
                one_play(ground, "backup" if plays == 1 else fleet.random.choice(KINDS), whole=plays % WHOLE_EVERY == 0)
            ground.last()
            return ground.outcome


def one_play(ground: Ground, kind: str, whole: bool) -> None:
    """One play with a random kill for every machine, or one for all of them."""
    fleet = ground.fleet
    if whole:
        plans = [Plan("", fleet.random.choice(["ansible", "libvirtd"]), 0.0, fleet.random.uniform(2.0, WHOLE_SECONDS))]
    else:
        plans = [Plan(name, *_draw(fleet.random, kind)) for name in fleet.guests]
    ticks = Moments(fleet, plans)
    run = ground.play(kind, {}, slow=True, tick=ticks)
    fleet.struck = ticks.struck
    ground.outcome.attempted += len(plans)
    ground.after(kind, run)


def _draw(source: random.Random, kind: str) -> Tuple[str, float, float]:
    victim = source.choice(VICTIMS[kind])
    return victim, source.random(), source.uniform(0.0, LIVES[victim])


class Plan:
    """Kill this victim of this machine so many seconds after it was first seen. ``which`` (0..1) chooses among several."""

    def __init__(self, name: str, victim: str, which: float, after_s: float) -> None:
        self.name = name
        self.victim = victim
        self.which = which
        self.after_s = after_s
        self.seen: Optional[float] = None


class Moments:
    """Called all the time while a play runs; strikes when a plan's moment has come."""

    def __init__(self, fleet: Fleet, plans: List[Plan]) -> None:
        self._fleet = fleet
        self._plans = list(plans)
        self.struck: List[Strike] = []

    def __call__(self, started: Started, watch: Watch) -> None:
        jobs = self._jobs()
        for plan in list(self._plans):
            if not plan.name:
                self._whole(plan, started)
                continue
            pid = self._find(plan, jobs.get(self._fleet.key(plan.name), []))
            if pid is None:
                continue
            plan.seen = plan.seen or time.monotonic()
            if time.monotonic() - plan.seen < plan.after_s:
                continue
            self._plans.remove(plan)
            if send(pid):
                self._note(plan, pid)

    def _note(self, plan: Plan, pid: Optional[int]) -> None:
        self.struck.append(Strike(plan.name, Fault(plan.victim, f"{plan.after_s:.2f} s"), pid, time.monotonic()))

    def _whole(self, plan: Plan, started: Started) -> None:
        plan.seen = plan.seen or time.monotonic()
        if time.monotonic() - plan.seen < plan.after_s:
            return
        self._plans.remove(plan)
        if plan.victim == "ansible":
            started.kill()
        else:
            self._fleet.host.kill()
            self._fleet.host.start()
        self._note(plan, None)

    def _jobs(self) -> Dict[str, List[JobDir]]:
        """The living jobs by machine key."""
        site = self._fleet.site
        found: Dict[str, List[JobDir]] = {}
        for path in {site.hub_state, site.node_state}:
            for job in list_jobs(StateDir(path)):
                try:
                    if job.alive():
                        found.setdefault(str(job.meta().get("machine_key")), []).append(job)
                except JobNotFoundError:
                    continue
        return found

    def _find(self, plan: Plan, jobs: List[JobDir]) -> Optional[int]:
        """The victim's process, if it lives and works on a job."""
        if plan.victim == "qemu":
            return self._qemu(plan.name) if jobs else None
        role, _space, what = plan.victim.partition(" ")
        for job in jobs:
            try:
                if what == "keeper" and job.role == role:
                    return int(job.meta()["pid"] or 0) or None
                names = CHILDREN.get(plan.victim, ())
                children = [child for child in job.children() if child["name"].startswith(names)] if names else []
            except JobNotFoundError:
                continue
            pids = [int(child["pid"]) for child in children if is_alive(child["pid"], child["starttime"])]
            if pids:
                return pids[int(plan.which * len(pids))]
        return None

    def _qemu(self, name: str) -> Optional[int]:
        try:
            return self._fleet.guests[name].qemu_pid
        except LabError:
            return None
