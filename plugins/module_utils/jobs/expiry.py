# Copyright: (c) 2026, Sendense contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a prune of one machine would do now: the policy's verdicts, what protects points, the plan, and what the guard says."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import Any, Collection, Dict, List, Mapping

from ..catalog.pruning import Merge, PrunePlan, immutables, plan
from ..catalog.retention import Policy, RetainedPoint, Verdict, check, choose, judge
from ..catalog.retention_guard import guard
from ..catalog.times import utc_from_seconds
from ..errors import ExpiryRefusedError
from ..hubstate.statedir import StateDir
from ..repositories._base import Point, PointFilter, Repository
from .point_leases import in_use

Row = Dict[str, Any]
KEPT, DELETED, MERGED, LEFT = "kept", "deleted", "merged", "left"


@dataclass
class Survey:
    """The machine's points, oldest first, with a verdict for each. ``refused``: why the guard lets nothing go, or empty."""

    points: List[Point]
    verdicts: List[Verdict]
    plan: PrunePlan
    refused: str
    synthetic: List[Merge]

    def idle(self) -> bool:
        """Whether nothing is to be done."""
        return not self.plan.going and not self.synthetic and not any(point.status == "merging" for point in self.points)

    def rows(self) -> List[Row]:
        """One row per point: what would become of it (``action``), and why."""
        into = {point_id: merge.survivor for merge in self.plan.merge for point_id in merge.consumed}
        left = {one.point_id: one.why for one in self.plan.left}
        rows = []
        for point, verdict in zip(self.points, self.verdicts):
            row = describe(point)
            row["reasons"] = list(verdict.reasons)
            point_id = verdict.point_id
            if verdict.keep:
                row["action"] = KEPT
            elif point_id in self.plan.delete:
                row["action"] = DELETED
            elif point_id in into or point.status == "merging":
                row.update(action=MERGED, into=into.get(point_id, ""))
            else:
                row["action"] = LEFT
                row["reasons"].append(f"but {left.get(point_id, 'it cannot go now')}")
            rows.append(row)
        return rows


def describe(point: Point) -> Row:
    """What a person has to know of a point that goes or stays."""
    manifest = point.manifest
    return {
        "point_id": manifest.point_id,
        "created_at": manifest.created_at,
        "level": manifest.level,
        "status": point.status,
        "stored_bytes": stored_bytes(point),
        "into": "",
    }


def look(repository: Repository, key: str, params: Dict[str, Any], job_id: str = "") -> Survey:
    """What is to be done now; what others than job ``job_id`` hold is left alone. InvalidInputError, DependencyMissingError."""
    chosen = params.get("point_ids") or []
    policy = Policy() if chosen else policy_of(params)
    points = repository.list(PointFilter(machine_key=key))
    owner = str(repository.identity()["owner"])
    used = in_use(StateDir(params["state_dir"]), owner, key, [point.manifest.point_id for point in points], job_id)
    now = utc_from_seconds(time.time())
    return survey(points, policy, now, used, params["confirm_expiry"], params["synthetic_full"], chosen)


def policy_of(params: Dict[str, Any]) -> Policy:
    """The policy of the module's arguments. InvalidInputError, DependencyMissingError."""
    policy = Policy(**{name: value for name, value in (params["policy"] or {}).items() if value is not None})
    check(policy)
    return policy


def survey(
    points: List[Point],
    policy: Policy,
    now: str,
    used: Mapping[str, str],
    confirmed: bool,
    synthetic_full: bool = False,
    chosen: Collection[str] = (),
) -> Survey:
    """Judge, protect, plan, guard. ``used``: points that a job holds, with the reason; ``now`` is UTC in the one spelling.

    With ``chosen`` these points go, and the policy judges none; all of them, or the run is refused, confirmed or not.
    InvalidInputError or DependencyMissingError for the policy.
    """
    retained = [RetainedPoint(one.manifest.point_id, one.manifest.created_at, one.status, one.manifest.generation) for one in points]
    verdicts = choose(retained, chosen) if chosen else judge(retained, policy, now)
    protected = {**used, **immutables(points, now)}
    expired = {one.point_id for one in verdicts if not one.keep}
    planned = plan(points, expired, protected)
    stay = [f"{one.point_id} cannot go: {one.why}" for one in planned.left if one.point_id in chosen]
    refused = f"{'; '.join(stay)}. Nothing was touched." if stay else guard(verdicts, planned.going, policy, now, confirmed)
    synthetic = _synthetic(points, planned, protected) if synthetic_full else []
    return Survey(points, verdicts, planned, refused, synthetic)


def _synthetic(points: List[Point], planned: PrunePlan, protected: Mapping[str, str]) -> List[Merge]:
    """The newest sound point as a merge that consumes nothing, if it stands on others afterwards and may be changed."""
    sound = [point for point in points if point.status == "ok" and point.manifest.point_id not in planned.going]
    if not sound:
        return []
    newest = max(sound, key=lambda point: (point.manifest.generation, point.manifest.point_id)).manifest
    merge = next((merge for merge in planned.merge if merge.survivor == newest.point_id), None)
    parents = {point.manifest.point_id: point.manifest.parent_id for point in points}
    parent = parents.get(merge.consumed[0], "") if merge else newest.parent_id
    return [Merge([], newest.point_id)] if parent and newest.point_id not in protected else []


def stored_bytes(point: Point) -> int:
    """Bytes of the point's own image files, as its manifest states them."""
    return sum(disk.file_size for disk in point.manifest.disks)


def refusal(found: Survey, key: str) -> ExpiryRefusedError:
    """What the guard says, as an error."""
    return ExpiryRefusedError(
        f"Backups of machine {key} are not pruned: {found.refused}", details={"machine_key": key, "going": sorted(found.plan.going)}
    )


def outcome(rows: List[Row], changed: bool = False) -> Dict[str, Any]:
    """The fields of every result, from rows with what became, or would become, of each point."""
    result: Dict[str, Any] = {KEPT: [], DELETED: [], MERGED: [], LEFT: []}
    for row in rows:
        result[row["action"]].append({name: value for name, value in row.items() if name != "action"})
    return dict(result, changed=changed, damaged=[], bytes_freed=0, synthetic_full="", refused="", diff=difference(rows))


def difference(rows: List[Row]) -> Dict[str, str]:
    """Before and after as Ansible's ``--diff`` shows them: what goes, with the reason, among what stays."""
    before = [_line(row) for row in rows]
    after = [_line(row) for row in rows if row["action"] in (KEPT, LEFT)]
    return {
        "before_header": "backups now",
        "after_header": "backups afterwards",
        "before": "".join(before),
        "after": "".join(after),
    }


def _line(row: Row) -> str:
    into = f", merged into {row['into']}" if row["into"] else ""
    return f"{row['point_id']} {row['level']} {row['status']}: {row['action']}, {'; '.join(row['reasons'])}{into}\n"
