# Copyright: (c) 2026, Sendense contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Time windows in which less bandwidth may be used.

A window is compared with what the clock on the wall of its time zone shows. So it needs no rule for daylight saving time: an hour that is
skipped is in no window, and one that comes twice is in its window both times.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import datetime, tzinfo
from typing import Any, FrozenSet, List, Optional
from zoneinfo import ZoneInfo

from ..errors import InvalidInputError
from .bandwidth import MIN_RATE

DAYS = ("mon", "tue", "wed", "thu", "fri", "sat", "sun")
DAY_MINUTES = 24 * 60
MEMBERS = ("days", "from", "to", "timezone", "bytes_per_second")

_CLOCK = re.compile(r"([01]?[0-9]|2[0-4]):([0-5][0-9])")


@dataclass(frozen=True)
class Window:
    """From ``begin`` to ``end``, in minutes of the day; over midnight if ``end`` is not later. It belongs to the day on which it begins."""

    days: FrozenSet[int]
    """0 is Monday."""
    begin: int
    end: int
    zone: tzinfo
    bytes_per_second: int

    def covers(self, moment: datetime) -> bool:
        """Whether it is open at this moment (with a time zone)."""
        local = moment.astimezone(self.zone)
        minute, today = local.hour * 60 + local.minute, local.weekday()
        if self.begin < self.end:
            return today in self.days and self.begin <= minute < self.end
        return (today in self.days and minute >= self.begin) or ((today - 1) % 7 in self.days and minute < self.end)


def lowest(windows: List[Window], moment: datetime) -> Optional[int]:
    """Bytes per second of the strictest window that is open; None if none is."""
    return min((window.bytes_per_second for window in windows if window.covers(moment)), default=None)


def parse_windows(items: Any) -> List[Window]:
    """Windows as configured: ``[{days, from, to, timezone, bytes_per_second}]``. InvalidInputError, which names the window."""
    if not isinstance(items, list):
        raise _bad("windows must be a list")
    return [_parse(item, f"window {number}") for number, item in enumerate(items, 1)]


def parse_rate(value: Any, what: str) -> int:
    """Bytes per second. InvalidInputError if it is no number, or so low that a unit was mistaken."""
    if isinstance(value, bool) or not isinstance(value, int):
        raise _bad(f"bytes_per_second of {what} must be a whole number, not {value!r}")
    if value < MIN_RATE:
        raise _bad(
            f"bytes_per_second of {what} is {value}; the least is {MIN_RATE}. A pause is not offered, because a snapshot that stays "
            "open grows at the source: schedule the job for another time"
        )
    return value


def _parse(item: Any, what: str) -> Window:
    if not isinstance(item, dict) or set(item) - set(MEMBERS):
        raise _bad(f"{what} must have only {', '.join(MEMBERS)}")
    begin, end = _minutes(item.get("from"), f"from of {what}"), _minutes(item.get("to"), f"to of {what}")
    if begin == end or begin == DAY_MINUTES or end == 0:
        raise _bad(f"{what} must begin before 24:00, end after 00:00, and not end where it begins; a whole day is from 00:00 to 24:00")
    return Window(
        _days(item.get("days"), what),
        begin,
        end,
        _zone(item.get("timezone"), what),
        parse_rate(item.get("bytes_per_second"), what),
    )


def _minutes(value: Any, what: str) -> int:
    # YAML reads an unquoted 18:00 as a number to base 60, which is exactly the minutes of the day.
    if isinstance(value, int) and not isinstance(value, bool) and 0 <= value <= DAY_MINUTES:
        return value
    match = _CLOCK.fullmatch(value) if isinstance(value, str) else None
    minutes = int(match[1]) * 60 + int(match[2]) if match else DAY_MINUTES + 1
    if minutes > DAY_MINUTES:
        raise _bad(f'{what} must be a time like "08:00", up to "24:00", not {value!r}')
    return minutes


def _days(value: Any, what: str) -> FrozenSet[int]:
    names = DAYS if value in (None, []) else value
    if not isinstance(names, (list, tuple)) or any(name not in DAYS for name in names):
        raise _bad(f"days of {what} must be a list of {', '.join(DAYS)}, not {value!r}")
    return frozenset(DAYS.index(name) for name in names)


def _zone(value: Any, what: str) -> tzinfo:
    name = value or "UTC"
    try:
        return ZoneInfo(name)
    except (KeyError, ValueError, TypeError, AttributeError, OSError) as exc:
        raise _bad(
            f"timezone of {what}, {value!r}, is not known here; use a name like Europe/Berlin, and install tzdata if this machine has none"
        ) from exc


def _bad(why: str) -> InvalidInputError:
    return InvalidInputError(f"The bandwidth is refused: {why}.", details={"reason": why})
