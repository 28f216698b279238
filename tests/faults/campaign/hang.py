# Copyright: (c) 2026, Sendense contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Stop processes without ending them: a job that makes no progress has to fail soon, one that makes a little must not."""

from __future__ import annotations

import signal
import time
from pathlib import Path
from typing import Dict, List

from tests.e2e.site import Started
from tests.faults.fleet import fleet_at
from tests.faults.kills import Fault, Strike, resume, send
from tests.faults.watch import Watch

from ._base import Family, Outcome
from .waves import Ground, Suffering

#: Seconds without progress after which the product gives up, in the campaign and in the short round, and what it may need on top.
STALL_SECONDS, SHORT_STALL_SECONDS, NOTICE_SECONDS = 60, 20, 15
#: Seconds that the end of a job may take for a machine or a keeper that hangs, and in which the play has to come to it.
CLOSING_SECONDS = 60 + 15
#: A machine that is only slow: a server is stopped for most of the time, but never for as long as the product waits.
SLOW_SHARE, SLOW_RUN_SECONDS = 0.4, 0.5

#: The limit that the operator sets is that of the copy, and so of the first two; everything else has 60 s.
VICTIMS: List[Fault] = [
    Fault("export", "copy:started", copied=True, number=signal.SIGSTOP),
    Fault("export of the second disk", "copy:started", copied=True, number=signal.SIGSTOP),
    Fault("reader", "commit:reread-started", number=signal.SIGSTOP),
    Fault("mover", "copy:started", copied=True, number=signal.SIGSTOP),
    Fault("qemu", "copy:started", copied=True, number=signal.SIGSTOP),
    Fault("checker", "commit:reread-started", number=signal.SIGSTOP),
    Fault("hub keeper", "copy:started", copied=True, number=signal.SIGSTOP),
    Fault("node keeper", "copy:started", copied=True, number=signal.SIGSTOP),
]
SLOW = Fault("export", "copy:started", copied=True, number=signal.SIGSTOP)
SLOW_MACHINE = "slow"


class Hang(Family):
    """Every victim once per play, beside a machine that is only slow: noticed in time, and ended in time while it still hangs."""

    NAME = "hang"
    FULL = 8
    SHORT = 2

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
    patience = stall + NOTICE_SECONDS + CLOSING_SECONDS
    stopped = Stopped(stall, patience)
    fleet.scribble()
    fleet.remember()
    run = fleet.backup(planned, ok=False, tick=stopped, backup_vm_max_bytes_per_second=512 * 1024, backup_vm_stall_seconds=stall)
    outcome.attempted += len(faults)
    for strike in fleet.struck:
        if strike.name == SLOW_MACHINE:
            continue
        seconds = stopped.noticed.get(strike.name)
        print(f"    {strike.fault}: noticed after {seconds or 0:.1f} s, ended after {stopped.ended.get(strike.name, 0):.1f} s")
        if seconds is None or seconds > stall + NOTICE_SECONDS:
            outcome.missed(f"{strike.fault} was noticed after {seconds or patience:.0f} s, not within {stall + NOTICE_SECONDS} s")
        if strike.name in stopped.patience_lost:
            outcome.problems.append(f"{strike.fault}: the machine's play had not ended when the process went on, after {patience} s")
        if not run.error(strike.name):
            outcome.problems.append(f"{strike.fault}: the play does not say that the job failed")
    stopped.let_go()
    outcome.judge(fleet.oracle.next_backup(run, [SLOW_MACHINE], set()))
    fleet.struck = [strike for strike in fleet.struck if strike.name != SLOW_MACHINE]
    ground.after("backup", run)


class Stopped:
    """Called all the time while a play runs: says when each hang was noticed, and lets the slow machine go on now and then."""

    def __init__(self, stall: int, patience: int) -> None:
        self._pause = stall * SLOW_SHARE
        #: Seconds after which a stopped process goes on, so that a job that waits for it is found and does not stop the campaign.
        self._patience = patience
        self._pids: List[int] = []
        #: Seconds after which a task of a machine had failed, and after which its play had reported that and ended.
        self.noticed: Dict[str, float] = {}
        self.ended: Dict[str, float] = {}
        self.patience_lost: List[str] = []

    def __call__(self, started: Started, watch: Watch) -> None:
        now = time.monotonic()
        said = started.log.read_text(errors="replace")
        for strike in watch.struck:
            if strike.name == SLOW_MACHINE:
                self._pulse(strike, watch, now)
            elif strike.name not in self.ended:
                self._look(strike, said, now)

    def let_go(self) -> None:
        """Let everything go on that was stopped and lives."""
        for pid in self._pids:
            resume(pid)

    def _look(self, strike: Strike, said: str, now: float) -> None:
        if strike.pid is not None and strike.pid not in self._pids:
            self._pids.append(strike.pid)
        if f"fatal: [{strike.name}" in said:
            self.noticed.setdefault(strike.name, now - strike.at)
        if f"fatal: [{strike.name}]" in said:  # without the name of a place: the report at the end
            self.ended[strike.name] = now - strike.at
        elif now - strike.at > self._patience and strike.name not in self.patience_lost and strike.pid is not None:
            self.patience_lost.append(strike.name)
            resume(strike.pid)

    def _pulse(self, strike: Strike, watch: Watch, now: float) -> None:
        """Only while it copies: a server that is to end must be able to."""
        if strike.pid is None:
            return
        if (now - strike.at) % (self._pause + SLOW_RUN_SECONDS) > self._pause:
            resume(strike.pid)
        elif watch.copying(strike.name):
            send(strike.pid, signal.SIGSTOP)
