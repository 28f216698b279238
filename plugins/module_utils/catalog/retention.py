# Copyright: (c) 2026, Sendense contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Which points a policy keeps, and why each: pure arithmetic over times, and the only place where it is done.

A rule such as ``keep_daily: 7`` keeps the newest point of each of the 7 most recent days *that have points*. So missed runs
and a clock that jumped ahead expire nothing by themselves: only new points push old ones out. Three kinds of points never
push a sound one out: damaged ones, those being merged, and those that lie in the future of the clock.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta, timezone, tzinfo
from typing import Callable, Collection, Dict, List, Optional, Sequence, Tuple, Union
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from ..errors import DependencyMissingError, InvalidInputError
from .times import utc_from_seconds, utc_text

OK, MERGING = "ok", "merging"
When = Union[str, datetime]
Period = Tuple[str, Callable[[datetime], str]]


@dataclass(frozen=True)
class Policy:
    """What is kept. Counts are of periods that have points, days are of 24 hours; 0 switches a rule off."""

    keep_last: int = 0
    keep_hourly: int = 0
    keep_daily: int = 0
    keep_weekly: int = 0
    keep_monthly: int = 0
    keep_yearly: int = 0
    keep_within_days: int = 0
    """Everything younger stays."""
    maximum_age_days: int = 0
    """What is older goes, whatever else would keep it, except for ``minimum_sound``."""
    minimum_sound: int = 1
    """The newest sound points that never expire, by their times and by the order in which they were made."""
    timezone: str = "UTC"
    """The calendar that hours, days, weeks, months and years belong to."""
    maximum_expiry_share: float = 0.2
    """See :func:`.retention_guard.guard`."""


@dataclass(frozen=True)
class RetainedPoint:
    """What retention needs of a point. ``created_at``: an aware datetime or the one spelling of catalog/times.py."""

    point_id: str
    created_at: When
    status: str = OK
    generation: int = 0
    """Which of two points of one second is the newer."""


@dataclass(frozen=True)
class Verdict:
    """Whether a point stays, and why, for people."""

    point_id: str
    keep: bool
    reasons: List[str]
    created_at: str = ""
    status: str = OK


@dataclass(frozen=True)
class _Dated:
    when: datetime
    point: RetainedPoint

    @property
    def order(self) -> Tuple[datetime, int, str]:
        return (self.when, self.point.generation, self.point.point_id)


#: The name of a point's period by rule. An hour carries its offset, for a clock that is set back has two hours of one name.
PERIODS: Dict[str, Period] = {
    "keep_hourly": ("hour", lambda when: when.strftime("%Y-%m-%d %H h (UTC%z)")),
    "keep_daily": ("day", lambda when: when.strftime("%Y-%m-%d")),
    "keep_weekly": ("week", lambda when: "{}-W{:02d}".format(*when.isocalendar()[:2])),
    "keep_monthly": ("month", lambda when: when.strftime("%Y-%m")),
    "keep_yearly": ("year", lambda when: when.strftime("%Y")),
}
_RULES = ("keep_last", *PERIODS, "keep_within_days")
_NUMBERS = (*_RULES, "maximum_age_days", "minimum_sound")


def check(policy: Policy) -> None:
    """InvalidInputError for a policy that means nothing or keeps nothing; DependencyMissingError as :func:`zone`."""
    for name in _NUMBERS:
        if getattr(policy, name) < 0:
            raise InvalidInputError(f"Retention policy: {name} is {getattr(policy, name)}; it counts, so give 0 (off) or more.")
    if not 0 <= policy.maximum_expiry_share <= 1:
        raise InvalidInputError(f"Retention policy: maximum_expiry_share is {policy.maximum_expiry_share}; give a share from 0 to 1.")
    if not any(getattr(policy, name) for name in _RULES):
        raise InvalidInputError(
            f"Retention policy: nothing would be kept. Set at least one of {', '.join(_RULES)}; "
            "to keep everything for 30 days and nothing longer, keep_within_days: 30."
        )
    zone(policy.timezone)


def zone(name: str) -> tzinfo:
    """The calendar of a time zone. InvalidInputError for a bad name, DependencyMissingError without time zone data."""
    if name == "UTC":
        return timezone.utc
    try:
        return ZoneInfo(name)
    except ZoneInfoNotFoundError as error:
        raise _no_zone(name) from error
    except (ValueError, OSError) as error:
        raise InvalidInputError(f"Retention policy: {name!r} is not the name of a time zone. Write it as Europe/Berlin, or UTC.") from error


def _no_zone(name: str) -> Exception:
    try:
        ZoneInfo("Europe/London")
    except ZoneInfoNotFoundError:
        return DependencyMissingError(
            f"Retention policy: time zone {name} cannot be used: this machine has no time zone data. Install tzdata, or use UTC."
        )
    return InvalidInputError(f"Retention policy: there is no time zone {name!r}. Write it as Europe/Berlin, or UTC.")


def instant(when: When) -> Optional[datetime]:
    """An aware time in UTC; None for a text that is no time. InvalidInputError for a datetime without a zone."""
    if isinstance(when, datetime):
        if when.tzinfo is None:
            raise InvalidInputError(f"The time {when.isoformat()} has no time zone; give an aware datetime.")
        return when.astimezone(timezone.utc)
    try:
        return datetime.strptime(utc_text(when), "%Y-%m-%dT%H:%M:%SZ").replace(tzinfo=timezone.utc)
    except InvalidInputError:
        return None


def choose(points: Sequence[RetainedPoint], going: Collection[str]) -> List[Verdict]:
    """One verdict per point, in the order given, where a person has chosen what goes; a merge that has begun goes on.

    Ids of ``going`` that are not among the points are none of its business.
    """
    verdicts = []
    for point in points:
        when, goes = instant(point.created_at), point.point_id in going
        at = utc_from_seconds(when.timestamp()) if when is not None else ""
        if point.status == MERGING:
            verdicts.append(_merging(point, at))
        else:
            verdicts.append(Verdict(point.point_id, not goes, ["it was chosen" if goes else "it was not chosen"], at, point.status))
    return verdicts


def _merging(point: RetainedPoint, at: str) -> Verdict:
    return Verdict(point.point_id, False, ["it is being merged into its successor"], at, point.status)


def judge(points: Sequence[RetainedPoint], policy: Policy, now: When) -> List[Verdict]:
    """One verdict per point, in the order given. Errors as :func:`check`; InvalidInputError for a ``now`` that is no time.

    A damaged point ages as if it were sound, but beside the sound ones: it takes no slot from them.
    """
    check(policy)
    today = instant(now)
    if today is None:
        raise InvalidInputError(f"Cannot judge backups: {now!r} is not a time.")
    dated = {point.point_id: _Dated(when, point) for point in points for when in [instant(point.created_at)] if when is not None}
    past = [one for one in dated.values() if one.when <= today and one.point.status != MERGING]
    sound = [one for one in past if one.point.status == OK]
    kept = _kept(sound, policy, today)
    shadow = _kept(past, policy, today) if len(sound) < len(past) else {}
    kept.update({one.point.point_id: shadow[one.point.point_id] for one in past if one.point.status != OK and one.point.point_id in shadow})
    return [_verdict(point, dated.get(point.point_id), kept.get(point.point_id, []), policy, today) for point in points]


def _verdict(point: RetainedPoint, dated: Optional[_Dated], reasons: List[str], policy: Policy, today: datetime) -> Verdict:
    if dated is None:
        return Verdict(point.point_id, True, ["its time cannot be read"], "", point.status)
    at = utc_from_seconds(dated.when.timestamp())
    if point.status == MERGING:
        return _merging(point, at)
    if dated.when > today:
        return Verdict(point.point_id, True, ["it lies in the future of this clock"], at, point.status)
    if reasons:
        return Verdict(point.point_id, True, reasons, at, point.status)
    why = "no rule keeps it"
    if policy.maximum_age_days and dated.when < today - timedelta(days=policy.maximum_age_days):
        why = f"older than {policy.maximum_age_days} days (maximum_age_days)"
    damaged = [] if point.status == OK else ["it is damaged"]
    return Verdict(point.point_id, False, [why, *damaged], at, point.status)


def _kept(points: List[_Dated], policy: Policy, today: datetime) -> Dict[str, List[str]]:
    """Why each point that stays does."""
    newest_first = sorted(points, key=lambda one: one.order, reverse=True)
    reasons: Dict[str, List[str]] = {}

    def keep(one: _Dated, why: str) -> None:
        reasons.setdefault(one.point.point_id, []).append(why)

    for number, one in enumerate(newest_first[: policy.keep_last], 1):
        keep(one, f"number {number} of the newest {policy.keep_last} (keep_last)")
    if policy.keep_within_days:
        for one in newest_first:
            if one.when >= today - timedelta(days=policy.keep_within_days):
                keep(one, f"not older than {policy.keep_within_days} days (keep_within_days)")
    for rule, (kind, name_of) in PERIODS.items():
        for one, period in _newest_of_periods(newest_first, getattr(policy, rule), name_of, zone(policy.timezone)):
            keep(one, f"newest of {kind} {period} ({rule})")
    if policy.maximum_age_days:
        limit = today - timedelta(days=policy.maximum_age_days)
        reasons = {one.point.point_id: reasons[one.point.point_id] for one in points if one.when >= limit and one.point.point_id in reasons}
    for one in newest_first[: policy.minimum_sound]:
        keep(one, f"one of the newest {policy.minimum_sound} sound (minimum_sound)")
    # A clock that was set back gives the newest points old times; generations only grow.
    last_made = sorted((one for one in points if one.point.generation > 0), key=lambda one: one.point.generation, reverse=True)
    for one in last_made[: policy.minimum_sound]:
        if one not in newest_first[: policy.minimum_sound]:
            keep(one, f"one of the last {policy.minimum_sound} made that are sound (minimum_sound)")
    return reasons


def _newest_of_periods(
    newest_first: List[_Dated], count: int, name_of: Callable[[datetime], str], calendar: tzinfo
) -> List[Tuple[_Dated, str]]:
    found: Dict[str, _Dated] = {}
    for one in newest_first:
        if len(found) >= count:
            break
        found.setdefault(name_of(one.when.astimezone(calendar)), one)
    return [(one, period) for period, one in found.items()]
