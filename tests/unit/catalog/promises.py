# Copyright: (c) 2026, Sendense contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a retention policy promises, said a second time: it shares nothing with the product but the meaning of the words."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import List, Set
from zoneinfo import ZoneInfo

from ansible_collections.sendense.platform.plugins.module_utils.catalog.retention import Policy, RetainedPoint, Verdict


def a_point(when: datetime, status: str = "ok", generation: int = 0, suffix: str = "") -> RetainedPoint:
    """A point of this time, whose id begins with it."""
    return RetainedPoint(f"{when:%Y%m%dT%H%M%SZ}{suffix}", when, status, generation)


def kept(verdicts: List[Verdict]) -> List[str]:
    """Ids of the points that stay."""
    return [one.point_id for one in verdicts if one.keep]


def promised(points: List[RetainedPoint], policy: Policy, now: datetime) -> Set[str]:
    """What the policy promises to keep of sound points that are not in the future, rule by rule."""
    past = sorted((point for point in points if point.created_at <= now), key=lambda one: (one.created_at, one.generation, one.point_id))
    keep = _last(past, policy.keep_last)
    for rule, period in (
        (policy.keep_hourly, lambda when: (when.date(), when.hour, when.utcoffset())),
        (policy.keep_daily, lambda when: when.date()),
        (policy.keep_weekly, lambda when: when.date() - timedelta(days=when.weekday())),
        (policy.keep_monthly, lambda when: (when.year, when.month)),
        (policy.keep_yearly, lambda when: when.year),
    ):
        # The last of a period overwrites the earlier ones of it; what is left, oldest first, are the periods' newest.
        newest = {period(one.created_at.astimezone(ZoneInfo(policy.timezone))): one for one in past}
        winners = set(newest.values())
        keep |= _last([one for one in past if one in winners], rule)
    if policy.keep_within_days:
        keep |= {one.point_id for one in past if (now - one.created_at).total_seconds() <= policy.keep_within_days * 86400}
    if policy.maximum_age_days:
        keep -= {one.point_id for one in past if (now - one.created_at).total_seconds() > policy.maximum_age_days * 86400}
    made = sorted((point for point in past if point.generation), key=lambda one: one.generation)
    return keep | _last(past, policy.minimum_sound) | _last(made, policy.minimum_sound)


def _last(points: List[RetainedPoint], count: int) -> Set[str]:
    return {one.point_id for one in points[len(points) - min(count, len(points)) :]}
