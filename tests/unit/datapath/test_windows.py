# Copyright: (c) 2026, Sendense contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Time windows: over midnight, over years, and over the nights in which the clock is set."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any
from zoneinfo import ZoneInfo

import pytest
import yaml

from ansible_collections.sendense.platform.plugins.module_utils.datapath.windows import lowest, parse_windows
from ansible_collections.sendense.platform.plugins.module_utils.errors import InvalidInputError

MIB = 1 << 20
OFFICE = {"days": ["mon", "tue", "wed", "thu", "fri"], "from": "08:00", "to": "18:00", "timezone": "Europe/Berlin", "bytes_per_second": MIB}
BERLIN = ZoneInfo("Europe/Berlin")


def rate(windows: Any, *moment: int, zone: Any = BERLIN) -> Any:
    return lowest(parse_windows(windows), datetime(*moment, tzinfo=zone))


def utc(*moment: int) -> datetime:
    return datetime(*moment, tzinfo=UTC)


def minutes_open(window: Any, begin: datetime, end: datetime) -> int:
    windows, found = parse_windows([window]), 0
    while begin < end:
        found += lowest(windows, begin) is not None
        begin += timedelta(minutes=1)
    return found


def test_a_window_by_day() -> None:
    assert rate([OFFICE], 2026, 11, 20, 7, 59) is None  # a Friday
    assert rate([OFFICE], 2026, 11, 20, 8, 0) == MIB
    assert rate([OFFICE], 2026, 11, 20, 17, 59) == MIB
    assert rate([OFFICE], 2026, 11, 20, 18, 0) is None
    assert rate([OFFICE], 2026, 11, 21, 12, 0) is None
    assert rate([OFFICE], 2026, 11, 20, 7, 30, zone=UTC) == MIB  # half past eight in Berlin


def test_a_window_over_midnight_belongs_to_the_day_on_which_it_begins() -> None:
    night = dict(OFFICE, days=["fri"], **{"from": "22:00", "to": "06:00"})
    assert rate([night], 2026, 11, 20, 21, 59) is None
    assert rate([night], 2026, 11, 20, 22, 0) == MIB
    assert rate([night], 2026, 11, 21, 5, 59) == MIB  # Saturday
    assert rate([night], 2026, 11, 21, 6, 0) is None
    assert rate([night], 2026, 11, 20, 1, 0) is None  # the night from Thursday
    assert rate([night], 2026, 11, 21, 23, 0) is None
    sunday = dict(night, days=["sun"])
    assert rate([sunday], 2026, 11, 23, 5, 0) == MIB  # Monday


def test_where_windows_overlap_the_lowest_counts() -> None:
    noon = {"from": "12:00", "to": "13:00", "timezone": "Europe/Berlin", "bytes_per_second": MIB // 2}
    assert rate([OFFICE, noon], 2026, 11, 20, 12, 30) == MIB // 2
    assert rate([noon, OFFICE], 2026, 11, 20, 12, 30) == MIB // 2
    assert rate([noon, OFFICE], 2026, 11, 20, 13, 0) == MIB
    assert rate([noon, OFFICE], 2026, 11, 22, 12, 30) == MIB // 2  # every day without days


@pytest.mark.parametrize("year", (2024, 2026, 2027))
def test_a_year_of_office_hours_has_ten_hours_on_each_working_day(year: int) -> None:
    """Half an hour by half an hour, daylight saving or not."""
    windows, moment, per_day = parse_windows([OFFICE]), utc(year, 1, 1), {}
    while moment < utc(year + 1, 1, 1):
        if lowest(windows, moment) is not None:
            local = moment.astimezone(BERLIN)
            assert local.weekday() < 5 and 8 <= local.hour < 18
            per_day[local.date()] = per_day.get(local.date(), 0) + 1
        moment += timedelta(minutes=30)
    assert set(per_day.values()) == {20}
    assert len(per_day) in (260, 261, 262)


def test_the_nights_in_which_the_clock_is_set() -> None:
    """Berlin: on 29 March 2026 there is no hour from two to three, on 25 October 2026 there are two of them."""
    hour = dict(OFFICE, days=["sun"], **{"from": "02:00", "to": "03:00"})
    night = dict(OFFICE, days=["sat"], **{"from": "22:00", "to": "06:00"})
    assert minutes_open(hour, utc(2026, 3, 28, 12), utc(2026, 3, 29, 12)) == 0
    assert minutes_open(hour, utc(2026, 10, 24, 12), utc(2026, 10, 25, 12)) == 120
    assert minutes_open(hour, utc(2026, 6, 6, 12), utc(2026, 6, 7, 12)) == 60
    assert minutes_open(night, utc(2026, 3, 28, 12), utc(2026, 3, 29, 12)) == 7 * 60
    assert minutes_open(night, utc(2026, 10, 24, 12), utc(2026, 10, 25, 12)) == 9 * 60
    assert minutes_open(night, utc(2026, 6, 6, 12), utc(2026, 6, 7, 12)) == 8 * 60


def test_a_whole_day() -> None:
    day = dict(OFFICE, days=["sun"], **{"from": "00:00", "to": "24:00"})
    assert minutes_open(day, utc(2026, 6, 6), utc(2026, 6, 9)) == 24 * 60
    assert minutes_open(day, utc(2026, 3, 28), utc(2026, 3, 31)) == 23 * 60
    assert minutes_open(day, utc(2026, 10, 24), utc(2026, 10, 27)) == 25 * 60


def test_times_that_yaml_reads_as_numbers_mean_what_they_look_like() -> None:
    """Unquoted, 18:00 is a number to base 60 in YAML 1.1, and 08:00 is not."""
    loaded = yaml.safe_load("{from: 08:00, to: 18:00, bytes_per_second: 20000}")
    assert loaded["to"] == 1080
    windows = parse_windows([loaded])
    assert [lowest(windows, utc(2026, 6, 6, hour)) for hour in (7, 8, 17, 18)] == [None, 20000, 20000, None]


@pytest.mark.parametrize(
    "change",
    [
        {"days": ["monday"]},
        {"days": "mon"},
        {"days": [0]},
        {"from": None},
        {"from": "8"},
        {"from": "08:60"},
        {"from": "24:00"},
        {"from": "18:00"},
        {"from": -1},
        {"from": True},
        {"to": "24:01"},
        {"to": "00:00"},
        {"to": 1441},
        {"to": "18:00\n"},
        {"timezone": "Middle-earth/Bree"},
        {"timezone": "../../../etc/passwd"},
        {"timezone": "Europe"},
        {"timezone": 1},
        {"bytes_per_second": 0},
        {"bytes_per_second": 100},
        {"bytes_per_second": "1M"},
        {"bytes_per_second": True},
        {"bytes_per_second": None},
        {"until": "18:00"},
    ],
)
def test_bad_windows_are_refused_and_named(change: Any) -> None:
    with pytest.raises(InvalidInputError, match="window 2|windows"):
        parse_windows([OFFICE, {**OFFICE, **change}])


@pytest.mark.parametrize("windows", [{}, "x", [1], [[]], None])
def test_what_is_no_list_of_windows_is_refused(windows: Any) -> None:
    with pytest.raises(InvalidInputError):
        parse_windows(windows)
