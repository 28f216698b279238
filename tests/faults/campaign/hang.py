# Copyright: (c) 2026, Sendense contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Stop processes without ending them: a job that makes no progress has to fail soon, one that makes a little must not."""

from __future__ import annotations

import json
import signal
import time
from pathlib import Path
from typing import Any, Dict, List

from tests.e2e.site import Started
from tests.faults.fleet import fleet_at
from tests.faults.kills import Fault, Strike, resume, send
from tests.faults.watch import Watch

from ._base import Family, Outcome
from .waves import Ground, Suffering

#: Seconds without progress after which the product gives up, in the campaign and in the short round, and what it may need on top.
STALL_SECONDS, SHORT_STALL_SECONDS, NOTICE_SECONDS = 60, 20, 15
#: Seconds after which a stopped process goes on, so that a product that waits for it for ever is found and does not stop the campaign.
PATIENCE_SECONDS = 130.0
#: A machine that is only slow: a server is stopped for most of the time, but never for as long as the product waits.
SLOW_SHARE, SLOW_RUN_SECONDS, SLOW_PULSES = 0.4, 0.5, 5

VICTIMS: List[Fault] = [
    Fault("export", "copy:started", copied=True, number=signal.SIGSTOP),
    Fault("mover", "copy:started", copied=True, number=signal.SIGSTOP),
    Fault("qemu", "copy:started", copied=True, number=signal.SIGSTOP),
    Fault("reader", "commit:reread-started", number=signal.SIGSTOP),
    Fault("checker", "commit:reread-started", number=signal.SIGSTOP),
    Fault("export of the second disk", "copy:started", copied=True, number=signal.SIGSTOP),
    Fault("hub keeper", "copy:started", copied=True, number=signal.SIGSTOP),
    Fault("node keeper", "copy:started", copied=True, number=signal.SIGSTOP),
]
SLOW = Fault("export", "copy:started", copied=True, number=signal.SIGSTOP)
SLOW_MACHINE = "slow"


class Hang(Family):
    """Every victim once per play, beside a machine that is only slow."""

    NAME = "hang"
    FULL = 16
    SHORT = 3

    def run(self, base: Path, seed: int, count: int) -> Outcome:
        stall = STALL_SECONDS if count > self.SHORT else SHORT_STALL_SECONDS
        with fleet_at(base, "hg", seed) as fleet:
            ground = Ground(fleet)
            fleet.add(SLOW_MACHINE, *(f"m{number:02d}" for number in range(min(count, len(VICTIMS))))).backup()
            while ground.outcome.attempted < count:
                first = ground.outcome.attempted % len(VICTIMS)
                one_play(ground, VICTIMS[first : first + count - ground.outcome.attempted], stall)
            ground.last()
            return ground.outcome


def one_play(ground: Ground, faults: List[Fault], stall: int) -> None:
    """One play; every hang is noticed in time, and the slow machine is backed up."""
    fleet, outcome = ground.fleet, ground.outcome
    planned: Dict[str, Suffering] = {SLOW_MACHINE: (SLOW,)}
    planned.update((name, (fault,)) for name, fault in zip([name for name in fleet.guests if name != SLOW_MACHINE], faults, strict=False))
    stopped = Stopped(stall)
    fleet.scribble()
    fleet.remember()
    run = fleet.backup(planned, ok=False, tick=stopped, backup_vm_max_bytes_per_second=512 * 1024, backup_vm_stall_seconds=stall)
    outcome.attempted += len(faults)
    for strike in fleet.struck:
        if strike.name == SLOW_MACHINE:
            continue
        seconds = stopped.noticed.get(strike.name)
        print(f"    {strike.fault}: noticed after {seconds or 0:.1f} s")
        if seconds is None or seconds > stall + NOTICE_SECONDS:
            outcome.missed(f"{strike.fault} was noticed after {seconds or PATIENCE_SECONDS:.0f} s, not within {stall + NOTICE_SECONDS} s")
        if strike.name in stopped.patience_lost:
            outcome.problems.append(f"{strike.fault}: the play did not end before the process went on, after {PATIENCE_SECONDS:.0f} s")
        if not run.error(strike.name):
            outcome.problems.append(f"{strike.fault}: the play does not say that the job failed")
    stopped.let_go()
    outcome.judge(fleet.oracle.next_backup(run, [SLOW_MACHINE], set()))
    fleet.struck = [strike for strike in fleet.struck if strike.name != SLOW_MACHINE]
    ground.after("backup", run)


class Stopped:
    """Called all the time while a play runs: says when each hang was noticed, and lets the slow machine go on now and then."""

    def __init__(self, stall: int) -> None:
        self._pause = stall * SLOW_SHARE
        self._pulses = 0
        self._pids: List[int] = []
        self.noticed: Dict[str, float] = {}
        self.patience_lost: List[str] = []

    def __call__(self, started: Started, watch: Watch) -> None:
        now = time.monotonic()
        for strike in watch.struck:
            if strike.name == SLOW_MACHINE:
                self._pulse(strike, now)
                continue
            if strike.pid is not None and strike.pid not in self._pids:
                self._pids.append(strike.pid)
            if strike.name not in self.noticed and _has_failed(watch, strike.name):
                self.noticed[strike.name] = now - strike.at
            if now - strike.at > PATIENCE_SECONDS and strike.name not in self.patience_lost and strike.pid is not None:
                self.patience_lost.append(strike.name)
                resume(strike.pid)

    def let_go(self) -> None:
        """Let everything go on that was stopped and lives."""
        for pid in self._pids:
            resume(pid)

    def _pulse(self, strike: Strike, now: float) -> None:
        if strike.pid is None:
            return
        into = (now - strike.at) % (self._pause + SLOW_RUN_SECONDS)
        running = into > self._pause or (now - strike.at) > SLOW_PULSES * (self._pause + SLOW_RUN_SECONDS)
        if running:
            resume(strike.pid)
        else:
            send(strike.pid, signal.SIGSTOP)


def _has_failed(watch: Watch, name: str) -> bool:
    """The job is gone at one of its places, or its mover or checker has said that it failed."""
    for role, status in (("node", "copy"), ("hub", "verify")):
        job = watch.job(name, role)
        if job is None or _state(Path(job.path, f"{status}.status.json")) == "failed":
            return True
    return False


def _state(path: Path) -> Any:
    try:
        return json.loads(path.read_text()).get("state")
    except (FileNotFoundError, ValueError):
        return ""
