# Copyright: (c) 2026, Sendense contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The clock of hub and node jumps, before a run and in the middle of a copy: nothing is lost, and nothing waits for it."""

from __future__ import annotations

import struct
import subprocess
import time
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Iterator, List, Tuple

from tests.faults.fleet import fleet_at
from tests.faults.kills import Fault

from ._base import Family, Outcome
from .waves import Ground

HOUR, DAY = 3600, 86400
#: Seconds that a job of this family may take by its own account.
LONGEST_SECONDS = 600.0
#: What a prune keeps that runs at a wrong time: of everything else it must not let go a history at once.
POLICY = {"keep_last": 2, "keep_within_days": 30}
WRONG_TIMES = (400 * DAY, -400 * DAY)


@dataclass(frozen=True)
class Jump:
    """The wall clock's difference from the true time, in seconds: when a run begins, and from the middle of its copy on.

    With ``instant`` both are relative to the time that is shown when the run begins instead. ``zone``: TZ of everything.
    """

    name: str
    begin: int
    middle: int
    instant: str = ""
    zone: str = "UTC"

    def shifts(self) -> Tuple[int, int]:
        """Both differences from the true time."""
        base = 0
        if self.instant:
            base = int(datetime.fromisoformat(self.instant).replace(tzinfo=UTC).timestamp() - time.time())
        return base + self.begin, base + self.middle


JUMPS: List[Jump] = [
    Jump("two hours forward in the copy", 0, 2 * HOUR),
    Jump("two hours back before the run", 0, 0),
    Jump("two hours back in the copy", 0, -2 * HOUR),
    Jump("400 days forward before the run", 400 * DAY, 400 * DAY),
    Jump("400 days back in the copy", 400 * DAY, 0),
    Jump("400 days back before the run", -400 * DAY, -400 * DAY),
    Jump("400 days forward in the copy", -400 * DAY, 0),
    Jump("the hour that comes twice", -20, 20, "2026-10-25T01:00:00", "Europe/Berlin"),
    Jump("the hour that is left out", -20, 20, "2026-03-29T01:00:00", "Europe/Berlin"),
    Jump("the end of 32 bits", -20, 20, "2038-01-19T03:14:08", "UTC"),
]


class Clock(Family):
    """Every jump is one play over two machines; their order follows from the seed. At last there are prunes at wrong times."""

    NAME = "clock"
    FULL = len(JUMPS) + len(WRONG_TIMES)
    SHORT = 2

    def run(self, base: Path, seed: int, count: int) -> Outcome:
        with fleet_at(base, "ck", seed) as fleet:
            ground = Ground(fleet)
            clock = ShiftedClock(fleet.directory)
            fleet.site.environment.update(clock.environment())
            fleet.add("m00", "m01").backup()
            order = fleet.random.sample(JUMPS, len(JUMPS))
            for number in range(min(count, len(JUMPS))):
                jump(ground, clock, order[number])
            for shift in WRONG_TIMES[: max(0, count - len(JUMPS))]:
                prune(ground, clock, shift)
            clock.set(0)
            ground.last()
            return ground.outcome


class ShiftedClock:
    """The wall clock of everything that is started with its environment."""

    def __init__(self, directory: Path) -> None:
        self._file = directory / "clock"
        self._library = directory / "shifted_clock.so"
        self.set(0)
        source = Path(__file__).with_suffix("").parent / "shifted_clock.c"
        subprocess.run(["cc", "-shared", "-fPIC", "-O2", "-Wall", "-Werror", "-o", str(self._library), str(source)], check=True)

    def environment(self) -> dict[str, str]:
        """Variables for a process that shall see this clock."""
        return {"LD_PRELOAD": str(self._library), "SHIFTED_CLOCK": str(self._file)}

    def set(self, seconds: int) -> None:
        """Jump: the difference from the true time from now on."""
        with open(self._file, "r+b" if self._file.exists() else "wb") as stream:
            stream.write(struct.pack("=q", seconds))


def jump(ground: Ground, clock: ShiftedClock, planned: Jump) -> None:
    """One run with a jump; each machine gets its point, incremental and right, and what is reported is sane."""
    fleet, outcome = ground.fleet, ground.outcome
    begin, middle = planned.shifts()
    clock.set(begin)
    fleet.site.environment["TZ"] = planned.zone
    points = len(fleet.oracle.repository.list())
    fault = Fault("act", "copy:started", copied=True, act=lambda: clock.set(middle))
    run = ground.play("backup", {"m00": (fault,)}, slow=True)
    outcome.attempted += 1
    problems = fleet.oracle.next_backup(run, list(fleet.guests), set()) + fleet.recover()
    if len(fleet.oracle.repository.list()) != points + len(fleet.guests):
        problems.append(f"O4 there are {len(fleet.oracle.repository.list())} points, not {points + len(fleet.guests)}")
    for name in fleet.guests:
        wrong = [f"{path} = {value}" for path, value in durations(run.report(name)) if not 0 <= value <= LONGEST_SECONDS]
        problems += [f"{name} reports {one}" for one in wrong]
    outcome.hit += len(fleet.struck)
    outcome.judge([f"{problem} [{planned.name}]" for problem in problems])


def prune(ground: Ground, clock: ShiftedClock, shift: int) -> None:
    """A prune whose clock is wrong takes no point, whether it refuses or finds that none has expired."""
    fleet, outcome = ground.fleet, ground.outcome
    clock.set(shift)
    points = {point.manifest.point_id for point in fleet.oracle.repository.list()}
    fleet.remember()
    run = fleet.play("prune", sendense_retention=POLICY)
    outcome.attempted += 1
    codes = {name: str(run.error(name).get("error_code", "")) for name in fleet.guests}
    # A clock that went ahead makes points expire, and the guard must say so; by one that was set back none has.
    outcome.hit += set(codes.values()) == ({"EXPIRY_REFUSED"} if shift > 0 else {""})
    gone = points - {point.manifest.point_id for point in fleet.oracle.repository.list()}
    problems = [f"O4 a prune {shift // DAY} days off let {len(gone)} of {len(points)} points go"] if gone else []
    for name in fleet.guests:
        print(f"    prune {shift // DAY} days off: {name}: {run.error(name).get('msg', 'nothing has expired')}")
    outcome.judge(problems + fleet.recover())


def durations(data: Any, path: str = "") -> Iterator[Tuple[str, float]]:
    """Everything in a report that is a number of seconds."""
    if isinstance(data, dict):
        for key, value in data.items():
            if isinstance(value, (int, float)) and (key.endswith("_s") or "seconds" in key):
                yield f"{path}.{key}", float(value)
            yield from durations(value, f"{path}.{key}")
    elif isinstance(data, list):
        for number, value in enumerate(data):
            yield from durations(value, f"{path}[{number}]")
