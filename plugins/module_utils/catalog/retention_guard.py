# Copyright: (c) 2026, Sendense contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The guard before a prune: a wrong clock or a mistaken policy must not take a machine's history at once. Pure."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Collection, Dict, List, Sequence

from ..errors import InvalidInputError
from .retention import MERGING, OK, Policy, Verdict, When, instant

#: So few points may always go at once: the share of a small number says nothing.
GUARD_FROM = 3
#: As many points as were made this recently may always go: that is what a daily prune of a machine at rest brings.
STEADY = timedelta(hours=36)
#: How much longer than the policy's age limits a machine may go without a backup before the clock is doubted.
DOUBT = timedelta(days=7)

_ADVICE = "Look at what would go with --check --diff; if it is right, run it once with confirm_expiry (prune_points_confirm_expiry: true)."


def guard(verdicts: Sequence[Verdict], going: Collection[str], policy: Policy, now: When, confirmed: bool) -> str:
    """Why removing the points ``going`` at once is refused; empty if it is not. What is being merged already does not count.

    InvalidInputError for a ``now`` that is no time.
    """
    today = instant(now)
    if today is None:
        raise InvalidInputError(f"Cannot judge backups: {now!r} is not a time.")
    counted = [one for one in verdicts if one.status != MERGING]
    leaving = [one for one in counted if one.point_id in going]
    if confirmed or not leaving:
        return ""
    times = {one.point_id: when for one in counted for when in [instant(one.created_at)] if when is not None}
    sound = [one for one in counted if one.status == OK]
    if sound and all(one.point_id in going for one in sound):
        return f"All {len(sound)} sound backups of the machine would go at once. {_ADVICE}"
    doubt = _clock_doubt(leaving, sound, times, policy, today)
    if doubt:
        return doubt
    recent = sum(1 for one in sound if one.point_id in times and today - STEADY <= times[one.point_id] <= today)
    allowed = max(policy.maximum_expiry_share * len(counted), recent, GUARD_FROM)
    if len(leaving) > allowed:
        return (
            f"{len(leaving)} of the machine's {len(counted)} backups would go at once; without confirmation at most {int(allowed)} may "
            f"(maximum_expiry_share: {policy.maximum_expiry_share:g}). A new policy or a wrong clock would look like this. {_ADVICE}"
        )
    return ""


def _clock_doubt(leaving: List[Verdict], sound: List[Verdict], times: Dict[str, datetime], policy: Policy, today: datetime) -> str:
    """Whether points go by age that a machine with regular backups would have lost long ago: so the clock may be wrong."""
    settled = [times[one.point_id] for one in sound if one.point_id in times and times[one.point_id] < today - STEADY]
    last = max(settled, default=today)
    oldest = today - timedelta(days=policy.maximum_age_days) if policy.maximum_age_days else None
    aged = [times[one.point_id] for one in leaving if one.point_id in times]
    for days, ended in (
        (policy.keep_within_days, [when for when in aged if oldest is None or when >= oldest]),
        (policy.maximum_age_days, [when for when in aged if oldest is not None and when < oldest]),
    ):
        limit = timedelta(days=days)
        held = [when for when in ended if today - last > limit + DOUBT and last - limit <= when <= last]
        if days and held:
            return (
                f"{len(held)} backups would go because of their age, but before today the machine was last backed up "
                f"{(today - last).days} days ago by this clock. If the clock is wrong, set it right and run this again. {_ADVICE}"
            )
    return ""
