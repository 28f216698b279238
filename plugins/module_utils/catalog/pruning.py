# Copyright: (c) 2026, Sendense contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""From expired points to what is done with them: deleted, merged into what stands on them, or left alone. Pure.

What nothing stands on is deleted. What something stands on is consumed by it, in runs: a chain ``K0 <- E1 <- E2 <- K3``
in which E1 and E2 have expired becomes ``K0 <- K3``.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Dict, List, Mapping, Protocol, Sequence, Set

from . import chain
from .manifest import Manifest


class PrunedPoint(Protocol):
    """What the plan needs of a point as a repository lists it."""

    @property
    def manifest(self) -> Manifest:
        """The stored manifest; of one that cannot be read only the id is known."""

    @property
    def status(self) -> str:
        """``ok``, ``damaged`` or ``merging``."""


class GuardedPoint(PrunedPoint, Protocol):
    """What protection needs of a point as a repository lists it."""

    @property
    def immutable_until(self) -> str:
        """UTC in the one spelling; empty if the point is not immutable."""


@dataclass(frozen=True)
class Merge:
    """A run of expired points, oldest first, and the point that takes their data in."""

    consumed: List[str]
    survivor: str


@dataclass(frozen=True)
class Left:
    """An expired point that stays for now."""

    point_id: str
    why: str


@dataclass(frozen=True)
class PrunePlan:
    """``delete`` in the order of deletion, newest first; ``merge`` oldest first."""

    delete: List[str]
    merge: List[Merge]
    left: List[Left]

    @property
    def going(self) -> Set[str]:
        """Ids of the points that will not be there afterwards."""
        return {*self.delete, *(point_id for merge in self.merge for point_id in merge.consumed)}


def immutables(points: Sequence[GuardedPoint], now: str) -> Dict[str, str]:
    """Why points may not go: those that are immutable at ``now`` (UTC in the one spelling) and all that they stand on."""
    manifests = {point.manifest.point_id: point.manifest for point in points}
    found: Dict[str, str] = {}
    for point in points:
        point_id = point.manifest.point_id
        if point.immutable_until > now:
            for below in chain.known_ancestors(manifests, point_id):
                found.setdefault(below, f"{point_id}, which is immutable until {point.immutable_until}, stands on it")
    found.update(
        {point.manifest.point_id: f"it is immutable until {point.immutable_until}" for point in points if point.immutable_until > now}
    )
    return found


def plan(points: Sequence[PrunedPoint], expired: Set[str], protected: Mapping[str, str]) -> PrunePlan:
    """What to do with the expired points. ``protected``: what may not go or be changed, and why each.

    Ids of ``expired`` that are not among the points, and points that are being merged already, are none of its business.
    """
    statuses = {point.manifest.point_id: point.status for point in points if point.status != "merging"}
    manifests = {point.manifest.point_id: point.manifest for point in points}
    left = {point_id: protected[point_id] for point_id in statuses if point_id in expired and point_id in protected}
    delete = _deletable(manifests, {point_id for point_id in statuses if point_id in expired and point_id not in protected})
    gone = set(delete)
    rest = {point_id for point_id in statuses if point_id in expired and point_id not in gone and point_id not in left}
    children = {point_id: [child for child in _children(manifests, point_id) if child not in gone] for point_id in manifests}
    for point_id in sorted(rest):
        why = _unmergeable(point_id, children[point_id], statuses)
        if why:
            left[point_id] = why
    consumable = rest - set(left)
    merges: List[Merge] = []
    for run in _runs(manifests, consumable, children):
        survivor = children[run[-1]][0]
        why = _unfit(survivor, statuses.get(survivor, "merging"), protected)
        if why:
            left.update(dict.fromkeys(run, why))
        else:
            merges.append(Merge(run, survivor))
    unfollowed = consumable - set(left) - {point_id for merge in merges for point_id in merge.consumed}
    left.update(dict.fromkeys(unfollowed, "its chain runs in a circle"))
    return PrunePlan(delete, merges, [Left(point_id, why) for point_id, why in sorted(left.items())])


def _children(manifests: Mapping[str, Manifest], point_id: str) -> List[str]:
    return sorted(key for key, manifest in manifests.items() if manifest.parent_id == point_id and key != point_id)


def _deletable(manifests: Mapping[str, Manifest], going: Set[str]) -> List[str]:
    """Points with nothing, or only deletable ones, on them; each before what it stands on, else newest first."""
    found: List[str] = []
    pending = sorted(point_id for point_id in going if going.issuperset(chain.descendants(manifests, point_id)))
    while pending:
        leaf = next((one for one in reversed(pending) if not set(_children(manifests, one)) - set(found)), None)
        if leaf is None:
            break  # a circle: damage that is not taken apart blindly
        pending.remove(leaf)
        found.append(leaf)
    return found


def _unmergeable(point_id: str, children: List[str], statuses: Mapping[str, str]) -> str:
    if statuses[point_id] != "ok":
        return f"it is damaged, and {', '.join(children) or 'another'} stands on it"
    if len(children) != 1:
        return f"more than one backup stands on it: {', '.join(children)}"
    return ""


def _unfit(survivor: str, status: str, protected: Mapping[str, str]) -> str:
    if survivor in protected:
        return f"{survivor}, which stands on it, cannot be changed: {protected[survivor]}"
    if status != "ok":
        return f"{survivor}, which stands on it, is {status}"
    return ""


def _runs(manifests: Mapping[str, Manifest], consumable: Set[str], children: Mapping[str, List[str]]) -> List[List[str]]:
    """Longest runs of consumable points that stand on each other, oldest first. Consumable points have one child each."""
    runs = []
    for bottom in sorted(one for one in consumable if manifests[one].parent_id not in consumable):
        run = [bottom]
        while children[run[-1]][0] in consumable:
            run.append(children[run[-1]][0])
        runs.append(run)
    return runs
