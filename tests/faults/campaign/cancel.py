# Copyright: (c) 2026, Sendense contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Cancel jobs of single machines, or whole runs by a signal, at random moments: within 10 s nothing is left, without a clean-up."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path
from typing import Any, Dict, List, Optional

from tests.e2e.site import Run, Started
from tests.faults.cancelling import LEFT_NOTHING_SECONDS, Cancels, has_job, notes
from tests.faults.fleet import Fleet, fleet_at

from ._base import Family, Outcome
from .waves import Ground

#: Machines of one play, and how many of them are left alone: they must not notice.
MACHINES, LEFT_ALONE = 7, 1
KINDS = ["backup", "restore", "backup", "verify", "backup", "files"]
#: Seconds of a job's life from which its moment is drawn, by kind of play; a job that ended before is no hit.
LIVES = {"backup": 14.0, "restore": 10.0, "files": 8.0, "verify": 3.0}
#: One play in so many is ended as a whole, by SIGINT or SIGTERM to ansible-playbook, within so many seconds.
WHOLE_EVERY, WHOLE_SECONDS = 3, 14.0


class Cancel(Family):
    """Moments follow from the seed, relative to the first sign of the machine's job."""

    NAME = "cancel"
    FULL = 50
    SHORT = 5

    def run(self, base: Path, seed: int, count: int) -> Outcome:
        slowest: Dict[str, float] = {}
        with fleet_at(base, "cn", seed) as fleet:
            ground = Ground(fleet)
            fleet.add(*(f"m{number:02d}" for number in range(min(MACHINES, count)))).backup()
            plays = 0
            while ground.outcome.hit < count and plays < count:
                kind, whole = KINDS[plays % len(KINDS)], plays % WHOLE_EVERY == WHOLE_EVERY - 1
                seconds = (_whole if whole else _single)(ground, kind)
                slowest[kind] = max(slowest.get(kind, 0.0), seconds)
                plays += 1
            ground.last()
        print(f"    the slowest left nothing after {slowest} s", flush=True)
        return ground.outcome


def _single(ground: Ground, kind: str) -> float:
    """Cancel most machines of one play, each at its own moment; the longest seconds until nothing was left."""
    fleet = ground.fleet
    names = fleet.random.sample(sorted(fleet.guests), max(1, len(fleet.guests) - LEFT_ALONE))
    moments = {name: fleet.random.uniform(0.0, LIVES[kind]) for name in names}
    ticks = Moments(fleet, moments)
    run = ground.play(kind, {}, slow=True, tick=ticks)
    ticks.cancels.wait()
    ground.outcome.attempted += len(names)
    ground.outcome.hit += len(ticks.cancels.seconds)
    for name, seconds in ticks.cancels.seconds.items():
        _judge_time(ground.outcome, f"{kind} of {name}, cancelled {moments[name]:.2f} s after its begin", seconds)
    for name in fleet.guests:
        code = run.error(name).get("error_code")
        if code is not None and (code != "JOB_CANCELLED" or name not in ticks.cancels.seconds):
            ground.outcome.problems.append(f"{kind} of {name} failed with {code}: {run.error(name).get('msg')}")
    _after(ground, kind, run)
    return max(ticks.cancels.seconds.values(), default=0.0)


def _whole(ground: Ground, kind: str) -> float:
    """End one play by a signal; the seconds until nothing was left."""
    number = ground.fleet.random.choice([signal.SIGINT, signal.SIGTERM])
    ticks = Interrupt(ground.fleet, number, ground.fleet.random.uniform(0.0, min(WHOLE_SECONDS, LIVES[kind])))
    run = ground.play(kind, {}, slow=True, tick=ticks)
    ground.outcome.attempted += 1
    seconds = 0.0
    if ticks.at is not None:
        ground.fleet.settle()
        seconds = time.monotonic() - ticks.at
        ground.outcome.hit += 1
        _judge_time(ground.outcome, f"{kind}, ended by {number.name} {ticks.after_s:.2f} s after its begin", seconds)
    _after(ground, kind, run)
    return seconds


def _judge_time(outcome: Outcome, what: str, seconds: float) -> None:
    if seconds > LEFT_NOTHING_SECONDS:
        outcome.problems.append(f"{what}: something was left for {seconds:.1f} s")


def _after(ground: Ground, kind: str, run: Run) -> None:
    """The oracle, without any clean-up."""
    fleet = ground.fleet
    fleet.settle()
    findings = fleet.oracle.check(fleet.before)
    findings += [f"O3 note {path}" for path in notes(fleet)]
    if kind == "backup":
        findings += [finding for name in fleet.guests for finding in fleet.oracle.levels(run, name, set())]
    elif kind in ("restore", "files"):
        findings += ground.restores.check()
        ground.restores.remove()
    ground.outcome.judge([f"{finding} [after {kind}]" for finding in findings])


class Moments:
    """Called all the time while a play runs; cancels a machine so many seconds after its job was first seen."""

    def __init__(self, fleet: Fleet, moments: Dict[str, float]) -> None:
        self._fleet = fleet
        self._left = dict(moments)
        self._seen: Dict[str, float] = {}
        self.cancels = Cancels(fleet)

    def __call__(self, *_run: Any) -> None:
        now = time.monotonic()
        for name, after_s in list(self._left.items()):
            if name not in self._seen and not has_job(self._fleet, name):
                continue
            if now - self._seen.setdefault(name, now) >= after_s:
                del self._left[name]
                self.cancels.strike(name)
        self.cancels.look()


class Interrupt:
    """Sends a signal to ansible-playbook so many seconds after the first job was seen."""

    def __init__(self, fleet: Fleet, number: signal.Signals, after_s: float) -> None:
        self._fleet = fleet
        self._number = number
        self.after_s = after_s
        self._seen: Optional[float] = None
        self.at: Optional[float] = None

    def __call__(self, started: Started, *_run: Any) -> None:
        now = time.monotonic()
        if self.at is not None or (self._seen is None and not self._any()):
            return
        self._seen = self._seen or now
        if now - self._seen >= self.after_s and self._any():
            os.kill(started.process.pid, self._number)
            self.at = now

    def _any(self) -> List[str]:
        return [name for name in self._fleet.guests if has_job(self._fleet, name)]
