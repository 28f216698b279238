# Copyright: (c) 2026, Sendense contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a policy keeps: held against a second, slow way of saying the same, and against clocks that go wrong."""

from __future__ import annotations

import sys
from datetime import UTC, datetime, timedelta
from typing import Any, Dict, List
from zoneinfo import ZoneInfo, reset_tzpath

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ansible_collections.sendense.platform.plugins.module_utils.catalog.retention import (
    Policy,
    RetainedPoint,
    Verdict,
    judge,
    zone,
)
from ansible_collections.sendense.platform.plugins.module_utils.errors import DependencyMissingError, InvalidInputError
from tests.unit.catalog.promises import a_point, kept, promised

NOW = datetime(2026, 11, 20, 12, tzinfo=UTC)
ZONES = ["UTC", "Europe/Berlin", "America/New_York", "Australia/Lord_Howe", "America/Havana"]


def at(text: str, zone_name: str = "UTC", fold: int = 0) -> datetime:
    """A local time, in UTC."""
    return datetime.fromisoformat(text).replace(tzinfo=ZoneInfo(zone_name), fold=fold).astimezone(UTC)


def days_ago(*days: float) -> List[RetainedPoint]:
    return [a_point(NOW - timedelta(days=one)) for one in days]


def kept_days(points: List[RetainedPoint], now: datetime = NOW, **rules: Any) -> List[float]:
    """The ages in days, against the real NOW, of what is kept."""
    keep = set(kept(judge(points, Policy(**rules), now)))
    return [(NOW - point.created_at).total_seconds() / 86400 for point in points if point.point_id in keep]


policies = st.builds(
    Policy,
    keep_last=st.integers(1, 4),
    keep_hourly=st.integers(0, 6),
    keep_daily=st.integers(0, 9),
    keep_weekly=st.integers(0, 5),
    keep_monthly=st.integers(0, 5),
    keep_yearly=st.integers(0, 3),
    keep_within_days=st.integers(0, 20),
    maximum_age_days=st.sampled_from([0, 3, 40, 400]),
    minimum_sound=st.integers(0, 3),
    timezone=st.sampled_from(ZONES),
)
#: Minutes before NOW: many within hours of each other, some years apart, some equal, some in the future.
minutes = st.one_of(st.integers(-3000, 3000), st.integers(-600000, 1600000))


@st.composite
def histories(draw: st.DrawFn) -> List[RetainedPoint]:
    ages = draw(st.lists(minutes, max_size=25))
    return [a_point(NOW - timedelta(minutes=age), "ok", number, f"-{number}") for number, age in enumerate(ages)]


@given(histories(), policies)
def test_exactly_what_is_promised_is_kept_and_the_future_besides(points: List[RetainedPoint], policy: Policy) -> None:
    future = {point.point_id for point in points if point.created_at > NOW}
    assert set(kept(judge(points, policy, NOW))) == promised(points, policy, NOW) | future


@given(histories(), policies, st.randoms(use_true_random=False))
def test_the_order_of_the_points_does_not_matter(points: List[RetainedPoint], policy: Policy, random: Any) -> None:
    shuffled = list(points)
    random.shuffle(shuffled)
    assert set(kept(judge(shuffled, policy, NOW))) == set(kept(judge(points, policy, NOW)))
    assert [one.point_id for one in judge(shuffled, policy, NOW)] == [one.point_id for one in shuffled]


@given(histories(), policies, st.lists(st.sampled_from(["ok", "damaged", "merging"]), min_size=25, max_size=25))
def test_a_damaged_or_merging_point_never_pushes_a_sound_one_out(points: List[RetainedPoint], policy: Policy, statuses: List[str]) -> None:
    mixed = [RetainedPoint(one.point_id, one.created_at, status, one.generation) for one, status in zip(points, statuses, strict=False)]
    sound = [one for one in mixed if one.status == "ok"]
    verdicts = judge(mixed, policy, NOW)
    assert {one.point_id for one in verdicts if one.keep and one.status == "ok"} == set(kept(judge(sound, policy, NOW)))
    assert not [one for one in verdicts if one.keep and one.status == "merging"]


@given(histories(), policies)
def test_pruning_twice_is_pruning_once(points: List[RetainedPoint], policy: Policy) -> None:
    once = set(kept(judge(points, policy, NOW)))
    rest = [point for point in points if point.point_id in once]
    assert set(kept(judge(rest, policy, NOW))) == once


@given(histories(), policies)
def test_every_verdict_says_why(points: List[RetainedPoint], policy: Policy) -> None:
    assert all(one.reasons and all(one.reasons) for one in judge(points, policy, NOW))


# --- rule by rule ------------------------------------------------------------------------------------------------------


def test_the_newest_of_each_period_is_kept() -> None:
    points = days_ago(0.1, 0.2, 1.1, 1.2, 2.2, 9.2)
    assert kept_days(points, keep_daily=3) == pytest.approx([0.1, 1.1, 2.2])
    assert kept_days(points, keep_last=2) == pytest.approx([0.1, 0.2])
    assert kept_days(points, keep_within_days=2) == pytest.approx([0.1, 0.2, 1.1, 1.2])
    assert kept_days(points, keep_weekly=2) == pytest.approx([0.1, 9.2])


def test_weeks_are_iso_weeks_also_at_the_turn_of_the_year() -> None:
    points = [a_point(at(text)) for text in ("2025-12-28T10:00", "2025-12-29T10:00", "2026-01-01T10:00", "2026-01-04T10:00")]
    assert kept(judge(points, Policy(keep_weekly=9), NOW)) == [points[0].point_id, points[3].point_id]


def test_the_calendar_is_the_policys() -> None:
    points = [a_point(at("2026-11-19T22:30")), a_point(at("2026-11-19T23:30"))]
    assert len(kept(judge(points, Policy(keep_daily=9), NOW))) == 1
    assert len(kept(judge(points, Policy(keep_daily=9, timezone="Europe/Berlin"), NOW))) == 2


def test_the_night_with_two_half_past_two_has_two_hours_and_one_day() -> None:
    points = [a_point(at("2026-10-25T02:30", "Europe/Berlin", fold)) for fold in (0, 1)]
    assert points[1].created_at - points[0].created_at == timedelta(hours=1)
    policy: Dict[str, Any] = {"timezone": "Europe/Berlin", "minimum_sound": 0}
    assert len(kept(judge(points, Policy(keep_hourly=2, **policy), NOW))) == 2
    assert kept(judge(points, Policy(keep_daily=2, **policy), NOW)) == [points[1].point_id]


def test_the_night_without_half_past_two_loses_no_hour() -> None:
    points = [a_point(datetime(2026, 3, 29, hour, 30, tzinfo=UTC)) for hour in (0, 1, 2)]
    assert len(kept(judge(points, Policy(keep_hourly=9, timezone="Europe/Berlin"), NOW))) == 3


def test_maximum_age_beats_slots_but_not_the_last_sound_points() -> None:
    points = days_ago(50, 80, 200, 300)
    assert kept_days(points, keep_monthly=12, maximum_age_days=100) == pytest.approx([50, 80])
    assert kept_days(points, keep_monthly=12, maximum_age_days=10) == pytest.approx([50])
    assert kept_days(points, keep_monthly=12, maximum_age_days=10, minimum_sound=2) == pytest.approx([50, 80])
    assert kept_days(points, keep_monthly=12, maximum_age_days=10, minimum_sound=0) == []
    expired = judge(points, Policy(keep_monthly=12, maximum_age_days=100), NOW)[2]
    assert expired.reasons == ["older than 100 days (maximum_age_days)"]


def test_points_of_one_second_are_told_apart_by_generation() -> None:
    points = [a_point(NOW, generation=2, suffix="-a"), a_point(NOW, generation=7, suffix="-b"), a_point(NOW, generation=3, suffix="-c")]
    assert kept(judge(points, Policy(keep_daily=1), NOW)) == [points[1].point_id]


def test_damaged_points_age_beside_the_sound_ones() -> None:
    points = [a_point(NOW - timedelta(days=day), "damaged" if day in (0, 9) else "ok") for day in range(12)]
    assert kept_days(points, keep_daily=3) == pytest.approx([0, 1, 2, 3])
    assert judge(points, Policy(keep_daily=3), NOW)[9].reasons == ["no rule keeps it", "it is damaged"]


def test_when_all_points_are_damaged_the_newest_stays() -> None:
    points = [a_point(NOW - timedelta(days=day), "damaged") for day in (100, 200)]
    assert kept_days(points, keep_within_days=5) == pytest.approx([100])


# --- clocks ------------------------------------------------------------------------------------------------------------


def test_missed_runs_expire_nothing() -> None:
    points = days_ago(*range(100, 130))
    assert kept_days(points, keep_daily=7) == kept_days(points, NOW - timedelta(days=100), keep_daily=7)


def test_a_clock_that_went_ahead_expires_nothing_by_counts() -> None:
    points = days_ago(*range(60))
    rules: Dict[str, Any] = {"keep_last": 3, "keep_daily": 7, "keep_weekly": 4, "keep_monthly": 12}
    assert kept_days(points, NOW + timedelta(days=400), **rules) == kept_days(points, **rules)


def test_points_from_the_future_stay_and_push_nothing_out() -> None:
    past, future = days_ago(0, 1, 2), days_ago(-400, -401)
    assert kept_days([*past, *future], keep_last=2) == [0, 1, -400, -401]
    assert judge(future, Policy(keep_last=1), NOW)[0].reasons == ["it lies in the future of this clock"]


def test_the_last_point_made_stays_though_its_clock_was_set_back() -> None:
    points = [a_point(NOW - timedelta(days=day), generation=10 - day) for day in range(5)] + [
        a_point(NOW - timedelta(days=100), generation=11)
    ]
    assert kept_days(points, keep_last=2) == pytest.approx([0, 1, 100])
    assert kept_days(points, keep_last=2, minimum_sound=0) == pytest.approx([0, 1])


# --- input -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "rules",
    [
        {},
        {"maximum_age_days": 30},
        {"minimum_sound": 5},
        {"keep_daily": -1},
        {"keep_daily": 1, "minimum_sound": -1},
        {"keep_daily": 1, "maximum_expiry_share": 1.5},
        {"keep_daily": 1, "timezone": "Europe/Atlantis"},
        {"keep_daily": 1, "timezone": "../etc/passwd"},
        {"keep_daily": 1, "timezone": ""},
    ],
)
def test_a_policy_that_means_nothing_is_refused(rules: Dict[str, Any]) -> None:
    with pytest.raises(InvalidInputError):
        judge(days_ago(1), Policy(**rules), NOW)


def test_a_machine_without_time_zone_data_is_told_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ansible_collections.sendense.platform.plugins.module_utils.catalog.retention.ZoneInfo", ZoneInfo.no_cache)
    monkeypatch.setitem(sys.modules, "tzdata", None)
    reset_tzpath(to=())
    try:
        assert zone("UTC") is UTC
        with pytest.raises(DependencyMissingError, match="tzdata"):
            zone("Europe/Berlin")
    finally:
        reset_tzpath()


def test_times_are_texts_or_aware() -> None:
    text = RetainedPoint("a", "2026-11-20T11:00:00Z")
    assert judge([text], Policy(keep_last=1), "2026-11-20T12:00:00Z")[0].created_at == "2026-11-20T11:00:00Z"
    assert judge([RetainedPoint("a", "20269999")], Policy(keep_last=1), NOW)[0] == Verdict("a", True, ["its time cannot be read"])
    with pytest.raises(InvalidInputError, match="no time zone"):
        judge([RetainedPoint("a", datetime(2026, 1, 1))], Policy(keep_last=1), NOW)
    with pytest.raises(InvalidInputError, match="not a time"):
        judge([text], Policy(keep_last=1), "today")
