# Copyright: (c) 2026, Sendense contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Which points of a machine are damaged: those that are known to be, and those that are still offered although they are."""

from __future__ import annotations

from typing import Any, Dict, List, Tuple

from ...catalog import chain
from ...catalog.manifest import Manifest
from ...errors import PointNotFoundError
from ...repositories._base import Finding, Point, Repository
from .kinds import Diagnosis

_OF_FINDING = {
    "header": "image_wrong",
    "missing": "file_missing",
    "size": "file_changed",
    "digest": "file_changed",
    "hashes": "hashes_wrong",
    "root": "hashes_wrong",
}


def damaged(points: List[Point]) -> List[Diagnosis]:
    """The points in which damage began, each with what depends on it. Pure."""
    broken = {point.manifest.point_id: point for point in points if point.status == "damaged"}
    manifests = {point.manifest.point_id: point.manifest for point in points if point.manifest.schema_version > 0}
    origins = [one for one, point in broken.items() if point.manifest.parent_id not in broken or one not in manifests]
    covered = set(origins)
    for origin in origins:
        covered.update(chain.descendants(manifests, origin))
    # In a circle everything stands on something damaged: then each of its points is named.
    origins += [one for one in broken if one not in covered]
    found = []
    for point_id in sorted(origins):
        point = broken[point_id]
        dependants = [one for one in chain.descendants(manifests, point_id) if one in broken and one not in origins]
        kind = (
            "manifest_unreadable" if point_id not in manifests else "chain_broken" if chain.fault(manifests, point_id) else "point_damaged"
        )
        text = point.damage + _dependants(dependants)
        found.append(Diagnosis(kind, point_id, text, details={"dependants": dependants, "immutable_until": point.immutable_until}))
    return found


def distrusted(points: List[Point]) -> List[Diagnosis]:
    """The points that no backup builds on, although they are sound. Pure."""
    return [Diagnosis("point_distrusted", point.manifest.point_id, point.distrusted) for point in points if point.distrusted]


def faults(repository: Repository, key: str, points: List[Point], digests: bool) -> List[Diagnosis]:
    """What is wrong with points that are still offered; marks nothing.

    A chain is looked at from its end; only a faulty one link by link. Each fault is seen twice: retention may be at work.
    """
    readable = {point.manifest.point_id: point.manifest for point in points if point.manifest.schema_version > 0}
    offered = [point.manifest for point in points if point.status == "ok"]
    parents = {manifest.parent_id for manifest in offered}
    found: Dict[Tuple[str, str, str], Finding] = {}
    for manifest in offered:
        point_id = manifest.point_id
        if point_id not in parents:
            first = _checked(repository.structure_check, key, point_id)
            below = chain.ancestors(readable, point_id) if first else []
            for fault in first + [fault for one in below for fault in _checked(repository.structure_check, key, one)]:
                found[(fault.point_id, fault.disk, fault.kind)] = fault
        if digests:
            for fault in _checked(repository.digest_check, key, point_id):
                found[(fault.point_id, fault.disk, fault.kind)] = fault
    diagnosed = [_diagnosis(fault, readable) for fault in found.values() if fault.kind in _OF_FINDING]
    return [one for one in diagnosed if still_wrong(repository, key, one)]


def still_wrong(repository: Repository, key: str, one: Diagnosis) -> bool:
    """Whether another look at a fault of :func:`faults` finds the same, in a point that is still offered."""
    point_id = one.details["point_id"]
    check = repository.digest_check if one.details["check"] == "digest" else repository.structure_check
    try:
        offered = repository.get(key, point_id).status == "ok"
    except PointNotFoundError:
        return False
    wanted = (point_id, one.details["disk"], one.details["check"])
    return offered and any((fault.point_id, fault.disk, fault.kind) == wanted for fault in _checked(check, key, point_id))


def _checked(check: Any, key: str, point_id: str) -> List[Finding]:
    try:
        return list(check(key, point_id))
    except PointNotFoundError:
        return []  # retention removed it meanwhile


def _diagnosis(fault: Finding, readable: Dict[str, Manifest]) -> Diagnosis:
    name = f"{fault.point_id} {fault.disk}".strip()
    dependants = chain.descendants(readable, fault.point_id)
    text = fault.message + _dependants(dependants)
    facts = {"point_id": fault.point_id, "disk": fault.disk, "check": fault.kind, "message": fault.message, "dependants": dependants}
    return Diagnosis(_OF_FINDING[fault.kind], name, text, details=facts)


def _dependants(dependants: List[str]) -> str:
    if not dependants:
        return ""
    return "; 1 backup depends on it" if len(dependants) == 1 else f"; {len(dependants)} backups depend on it"
