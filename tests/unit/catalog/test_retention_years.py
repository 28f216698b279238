# Copyright: (c) 2026, Sendense contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Two years of a machine's life: points, prunes, missed runs, nights of clock change, and clocks that jump.

Every prune is real arithmetic, plan and guard; what is left is held against what the policy promises of *all* points that were
ever made, as if nothing had been pruned in between.
"""

from __future__ import annotations

import copy
import random
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from functools import cache
from typing import Any, List, Tuple

import pytest

from ansible_collections.sendense.platform.plugins.module_utils.catalog.retention import Policy, RetainedPoint, judge
from ansible_collections.sendense.platform.plugins.module_utils.catalog.retention_guard import GUARD_FROM, guard
from tests.unit.catalog.promises import a_point, kept, promised

BEGIN = datetime(2026, 1, 15, tzinfo=UTC)
GFS = Policy(
    keep_last=3, keep_hourly=24, keep_daily=14, keep_weekly=8, keep_monthly=12, keep_yearly=2, minimum_sound=3, timezone="Europe/Berlin"
)
AGED = Policy(keep_within_days=30, keep_daily=7, keep_monthly=12, maximum_age_days=200, timezone="America/New_York")


@dataclass
class Life:
    """A machine that is backed up and pruned; ``offset`` is by how much its clock is wrong."""

    policy: Policy
    now: datetime = BEGIN
    offset: timedelta = timedelta(0)
    made: List[RetainedPoint] = field(default_factory=list)
    there: List[RetainedPoint] = field(default_factory=list)
    refusals: List[str] = field(default_factory=list)
    largest: int = 0

    def backup(self) -> None:
        number = len(self.made)
        self.made.append(a_point(self.clock, generation=number, suffix=f"-{number}"))
        self.there.append(self.made[-1])

    @property
    def clock(self) -> datetime:
        return self.now + self.offset

    def prune(self, confirmed: bool = False) -> None:
        verdicts = judge(self.there, self.policy, self.clock)
        going = {one.point_id for one in verdicts if not one.keep}
        refused = guard(verdicts, going, self.policy, self.clock, confirmed)
        if refused:
            self.refusals.append(refused)
            return
        self.largest = max(self.largest, len(going))
        self.there = [point for point in self.there if point.point_id not in going]

    def names(self) -> set[str]:
        return {point.point_id for point in self.there}


@pytest.mark.parametrize("policy", [GFS, AGED], ids=["gfs", "aged"])
@pytest.mark.parametrize("seed", [1, 2])
def test_1000_points_in_365_days_with_a_prune_after_each(policy: Policy, seed: int) -> None:
    rng = random.Random(seed)
    life = Life(policy)
    moments = sorted(rng.sample(range(365 * 24 * 60), 1000))
    missed = [(100 * 1440, 121 * 1440), (250 * 1440, 253 * 1440)]
    made = [minute for minute in moments if not any(begin <= minute < end for begin, end in missed)]
    made += rng.sample(range(121 * 1440, 250 * 1440), 1000 - len(made))
    for number, minute in enumerate(sorted(made)):
        while BEGIN + timedelta(minutes=minute) - life.now > timedelta(days=1):
            life.now += timedelta(days=1)
            life.prune()  # a missed run of the backup: the prune comes all the same
        life.now = BEGIN + timedelta(minutes=minute)
        life.backup()
        life.prune()
        if number % 20 == 0 or minute > 360 * 1440:
            assert life.names() == promised(life.made, policy, life.now)
    assert len(life.made) == 1000
    assert life.refusals == [] and life.largest <= 20
    assert life.names() == promised(life.made, policy, life.now)


@pytest.mark.parametrize("every", [timedelta(hours=1), timedelta(hours=6), timedelta(days=1)], ids=["hourly", "6-hourly", "daily"])
@pytest.mark.parametrize("policy", [GFS, AGED, Policy(keep_last=3)], ids=["gfs", "aged", "last"])
def test_the_guard_is_silent_in_a_daily_prune_for_two_years(policy: Policy, every: timedelta) -> None:
    """Including both nights of clock change, leap-free February, and the turns of months and years."""
    life = Life(policy)
    for day in range(730 if every > timedelta(hours=1) else 200):
        for tick in range(int(timedelta(days=1) / every)):
            life.now = BEGIN + timedelta(days=day) + tick * every
            life.backup()
        life.prune()
        assert life.refusals == []
    assert life.names() == promised(life.made, policy, life.now)


def aged_estate(policy: Policy, days: int = 200) -> Life:
    """A machine that was backed up and pruned so many days in a row."""
    return copy.deepcopy(_aged_estate(policy, days))


@cache
def _aged_estate(policy: Policy, days: int) -> Life:
    life = Life(policy)
    for day in range(days):
        life.now = BEGIN + timedelta(days=day, hours=3)
        life.backup()
        life.prune()
    assert life.refusals == []
    return life


@pytest.mark.parametrize("policy", [GFS, AGED, Policy(keep_within_days=60)], ids=["gfs", "aged", "within"])
@pytest.mark.parametrize("days", [1, 10, 45, 400, 4000, -1, -100, -400])
@pytest.mark.parametrize("backup_first", [True, False])
def test_a_clock_jump_takes_no_more_than_a_day_does(policy: Policy, days: int, backup_first: bool) -> None:
    life = aged_estate(policy)
    before = life.names()
    life.offset = timedelta(days=days)
    if backup_first:
        life.backup()
    life.prune()
    share = int(policy.maximum_expiry_share * (len(before) + 1))
    assert len(before - life.names()) <= max(GUARD_FROM, share)
    life.offset = timedelta(0)
    life.now += timedelta(days=1)
    life.backup()
    life.prune()
    assert len(before - life.names()) <= 2 * max(GUARD_FROM, share)


@pytest.mark.parametrize("count", range(2, 9))
@pytest.mark.parametrize("backup_first", [True, False])
def test_a_small_estate_survives_a_clock_that_is_400_days_ahead(count: int, backup_first: bool) -> None:
    """Age limits would leave one point of a few, which is fewer than the guard's number."""
    life = aged_estate(Policy(keep_within_days=30), count)
    before = life.names()
    life.offset = timedelta(days=400)
    for _night in range(2):
        if backup_first:
            life.backup()
        life.prune()
        life.now += timedelta(hours=6)
    assert before <= life.names() and life.refusals
    assert "400 days ago by this clock" in life.refusals[0]


def test_a_machine_that_is_switched_off_needs_no_confirmation() -> None:
    life = aged_estate(AGED)
    for day in range(200, 500):
        life.now = BEGIN + timedelta(days=day, hours=3)
        life.prune()
    assert life.refusals == []
    assert life.names() == promised(life.made, AGED, life.now) and len(life.there) == 1


def test_weeks_without_any_run_are_asked_for_once_where_age_alone_decides() -> None:
    life = aged_estate(Policy(keep_within_days=60))
    before = life.names()
    life.now += timedelta(days=40)
    life.backup()
    life.prune()
    assert len(life.refusals) == 1 and before < life.names()
    life.prune(confirmed=True)
    assert life.names() == promised(life.made, life.policy, life.now)


def test_weeks_of_missed_runs_and_then_a_run() -> None:
    life = aged_estate(GFS)
    before = life.names()
    life.now += timedelta(days=40)
    life.backup()
    life.prune()
    assert life.refusals == [] and len(before - life.names()) <= 4


# --- the guard by itself -----------------------------------------------------------------------------------------------


def ask(count: int, policy: Policy, confirmed: bool = False, **kwargs: Any) -> Tuple[str, int]:
    points = [a_point(BEGIN - timedelta(days=day)) for day in range(count)]
    verdicts = judge(points, policy, BEGIN)
    going = kwargs.get("going", {one.point_id for one in verdicts if not one.keep})
    return guard(verdicts, going, policy, BEGIN, confirmed), len(points) - len(kept(verdicts))


def test_the_first_prune_of_an_existing_estate_is_asked_for() -> None:
    refused, going = ask(100, Policy(keep_last=20))
    assert going == 80 and "80 of the machine's 100 backups" in refused and "at most 20" in refused and "confirm_expiry" in refused
    assert ask(100, Policy(keep_last=20), confirmed=True)[0] == ""
    assert ask(100, Policy(keep_last=20, maximum_expiry_share=0.8))[0] == ""


@pytest.mark.parametrize(("count", "keep", "refused"), [(5, 2, False), (5, 1, True), (100, 80, False), (100, 79, True)])
def test_both_limits_must_be_passed(count: int, keep: int, refused: bool) -> None:
    assert bool(ask(count, Policy(keep_last=keep, minimum_sound=0))[0]) is refused


def test_what_is_protected_and_does_not_go_does_not_count() -> None:
    assert ask(100, Policy(keep_last=20), going={"x"})[0] == ""


def test_the_last_sound_point_does_not_go_unasked() -> None:
    policy = Policy(keep_within_days=5, maximum_age_days=5, minimum_sound=0)
    points = [a_point(BEGIN - timedelta(days=9)), a_point(BEGIN, "damaged")]
    verdicts = judge(points, policy, BEGIN)
    going = {one.point_id for one in verdicts if not one.keep}
    assert going == {points[0].point_id}
    assert "All 1 sound" in guard(verdicts, going, policy, BEGIN, False)
    assert guard(verdicts, going, policy, BEGIN, True) == ""


def test_what_is_being_merged_already_counts_nowhere() -> None:
    points = [a_point(BEGIN - timedelta(days=day), "merging" if day else "ok") for day in range(50)]
    verdicts = judge(points, Policy(keep_last=1), BEGIN)
    assert guard(verdicts, {one.point_id for one in verdicts if not one.keep}, Policy(keep_last=1), BEGIN, False) == ""
