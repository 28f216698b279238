# Copyright: (c) 2026, Sendense contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Kill what works on a prune: module, keeper, merger, checker, servers, controller, at each step and at any moment."""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path
from typing import List, Optional

from tests.faults.kills import send

from . import pruning
from ._base import Family, Outcome
from .hub_process import HubProcess
from .workbench import Workbench


@dataclass(frozen=True)
class Kill:
    """``victim``: module (the process that reached the step), keeper, controller or the beginning of a child's name."""

    victim: str
    step: str

    def __str__(self) -> str:
        return f"{self.victim} at {self.step or 'any moment'}"


_MODULE = (
    "prune:leased prune:taken-over prune:planned prune:deleted prune:points-leased prune:merge-begun prune:merger-started"
    " prune:data-moved prune:checker-started prune:merge-finished delete:renamed merge:journal-written merge:data-committed"
    " merge:hashes-composed merge:prepared merge:exchanged merge:consumed-removed merge:journal-removed"
)
_KEEPER = "prune:leased prune:planned prune:merge-begun prune:merger-started prune:data-moved prune:checker-started prune:merge-finished"
KILLS: List[Kill] = [
    *(Kill("module", step) for step in _MODULE.split()),
    *(Kill("keeper", step) for step in _KEEPER.split()),
    Kill("merge-", "prune:merger-started"),
    Kill("check-", "prune:checker-started"),
    Kill("reread-disk0", "prune:checker-started"),
    Kill("controller", "prune:merger-started"),
    Kill("controller", "prune:merge-finished"),
    *(Kill("controller", "") for _number in range(4)),
    *(Kill("keeper", "") for _number in range(4)),
]
#: Seconds that a prune of the bench takes at most on a quiet machine: a random moment is within them.
DURATION_SECONDS = 2.0


class KillPrune(Family):
    """After each kill: what the policy keeps is sound, the next backup needs no help, and the next prune completes the work."""

    NAME = "kill-prune"
    FULL = len(KILLS)
    SHORT = 4

    def run(self, base: Path, seed: int, count: int) -> Outcome:
        outcome, bench = Outcome(), Workbench(seed).initialise()
        try:
            bench.chain(pruning.KEEP)
            planned = bench.random.sample(KILLS, len(KILLS))
            while outcome.hit < count and outcome.attempted < 2 * count + 4 and not outcome.problems:
                kill = planned[outcome.attempted % len(planned)]
                outcome.attempted += 1
                pruning.history(bench)
                self._one(bench, kill, outcome)
        finally:
            outcome.judge(bench.close())
        return outcome

    def _one(self, bench: Workbench, kill: Kill, outcome: Outcome) -> None:
        kept = pruning.let_go(bench)
        before = bench.oracle.committed_files()
        hit = strike(bench, kill)
        outcome.hit += hit
        if not hit and kill.step:
            outcome.problems.append(f"{kill} was not hit")
        findings = bench.settle(40.0) + bench.oracle.points() + bench.oracle.jobs() + bench.oracle.unchanged(before)
        missing = sorted(set(kept) - set(bench.point_ids("ok")))
        findings += [f"O1 {point_id} is kept by the policy and not listed ok" for point_id in missing]
        attempt = bench.backup()
        findings += [] if attempt.ok and set(attempt.levels) == {"incremental"} else [f"O5 the next backup: {attempt}"]
        bench.scribble()
        again = pruning.prune(bench)
        findings += [f"O5 the next prune: {again['error']}"] if "error" in again else []
        findings += pruning.retention(bench) + bench.oracle.points() + bench.settle() + bench.oracle.jobs() + bench.oracle.leaks()
        outcome.judge([f"{finding} [{kill}]" for finding in findings])


def strike(bench: Workbench, kill: Kill) -> bool:
    """Run a prune and do it; whether it happened."""
    of_module = kill.victim == "module"
    running = HubProcess.start(
        "prune", pruning.params(bench), bench.directory, stop="" if of_module else kill.step, kill=kill.step if of_module else ""
    )
    if of_module:
        return running.outcome().get("error", {}).get("error_code") == "KILLED"
    pid: Optional[int] = None
    if kill.step:
        stopped = running.stopped_at(kill.step)
    else:
        stopped = None
        while "hub:keeper-started" not in running.steps() and running.process.poll() is None:
            time.sleep(0.01)
        time.sleep(bench.random.uniform(0, DURATION_SECONDS))
    pid = running.victim(kill.victim)
    done = pid is not None and running.process.poll() is None and send(pid)
    if stopped is not None:
        running.go_on(stopped)
    running.outcome()
    return done
