# Copyright: (c) 2026, Sendense contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Points of a local repository as its directories tell them: committed ones, and those being written or left behind.

No bad point stops the reading of the others, and none is hidden: it is listed as damaged, with why.
"""

from __future__ import annotations

import json
import os
from typing import Any, Dict, FrozenSet, List, Optional

from ..catalog import chain
from ..catalog.fields import POINT_ID
from ..catalog.manifest import MAXIMUM_BYTES, Manifest, unreadable_manifest
from ..errors import PointDamagedError, RepositoryIoError, SchemaUnknownError
from . import local_files as files
from . import local_immutability as immutability
from . import local_journal as journals
from . import local_marks as marks
from ._base import Point
from .local_paths import JOB, MANIFEST, PARTIAL, Paths

OK = "ok"
DAMAGED = "damaged"
MERGING = "merging"
_JOB_LIMIT = 1 << 20


def read_manifest(paths: Paths, key: str, point_id: str) -> Manifest:
    """The manifest of a committed point. PointDamagedError, SchemaUnknownError, RepositoryIoError."""
    where = f"point {point_id} of machine {key}"
    content = None
    if files.is_directory(paths.point(key, point_id)):
        content = files.read_file(os.path.join(paths.point(key, point_id), MANIFEST), MAXIMUM_BYTES)
    if content is None:
        fault = "it is missing, or it or its directory is not a plain one"
        raise PointDamagedError(f"Cannot read the manifest of {where}: {fault}.", details={"fault": fault})
    manifest = Manifest.from_bytes(content, where)
    if (manifest.machine_key, manifest.point_id) != (key, point_id):
        fault = f"it belongs to point {manifest.point_id} of machine {manifest.machine_key}"
        raise PointDamagedError(f"Cannot use the manifest of {where}: {fault}.", details={"fault": fault})
    return manifest


def scan(paths: Paths, key: str, lenient: bool = False) -> List[Point]:
    """All committed points of one machine, oldest first, with their state.

    ``lenient``: a manifest or mark that the storage cannot deliver makes its point damaged in the answer instead of
    raising RepositoryIoError. A damaged manifest or mark never raises. If it cannot be told which points were being merged,
    none of the machine's is sound.
    """
    manifests: Dict[str, Manifest] = {}
    damage: Dict[str, str] = {}
    ids = paths.point_ids(key)
    for point_id in ids:
        try:
            manifests[point_id] = read_manifest(paths, key, point_id)
        except (PointDamagedError, SchemaUnknownError) as error:
            damage[point_id] = error.msg
        except RepositoryIoError as error:
            if not lenient:
                raise
            damage[point_id] = error.msg
    for point_id, mark in marks.read_all(paths, key, marks.DAMAGE, lenient).items():
        damage.setdefault(point_id, _damage_text(mark))
    kept = marks.read_all(paths, key, marks.IMMUTABLE, lenient)
    distrusted = marks.read_all(paths, key, marks.DISTRUST, lenient)
    consumed: FrozenSet[str] = frozenset()
    try:
        consumed = merging_points(paths, key)
    except PointDamagedError as error:
        damage.update(dict.fromkeys(ids, error.msg))
    found = []
    for point_id in ids:
        point = _point(manifests, damage, manifests.get(point_id) or unreadable_manifest(key, point_id), kept.get(point_id))
        if point_id in consumed:
            point.status, point.damage = MERGING, ""
        if point_id in distrusted:
            point.distrusted = str(distrusted[point_id].get("reason") or "distrusted; the mark itself cannot be read")
        found.append(point)
    return sorted(found, key=lambda point: (point.manifest.created_at, point.manifest.generation, point.manifest.point_id))


def merging_points(paths: Paths, key: str) -> FrozenSet[str]:
    """Ids of the points that an open merge consumes. PointDamagedError if its journal cannot be read, RepositoryIoError."""
    journal = journals.read(paths, key)
    return frozenset(journal.consumed if journal is not None else ())


def partial_job(paths: Paths, key: str, point_id: str) -> Dict[str, Any]:
    """The job.json of a partial point; empty if it is not what was written. RepositoryIoError."""
    content = files.read_file(os.path.join(paths.partial(key, point_id), JOB), _JOB_LIMIT)
    try:
        data = json.loads((content or b"").decode("ascii"))
    except (ValueError, RecursionError):
        return {}
    return data if isinstance(data, dict) else {}


def partial_of_job(paths: Paths, key: str, job_id: str) -> Optional[str]:
    """Point id of the partial point of a job; one whose job.json cannot be read is told by the 8 digits in its name."""
    for point_id in paths.point_ids(key, PARTIAL):
        owner = partial_job(paths, key, point_id).get("job_id")
        if owner == job_id or (not isinstance(owner, str) and point_id[-8:] == job_id[:8]):
            return point_id
    return None


def dependants(paths: Paths, key: str, point_id: str) -> List[str]:
    """What would break if this point went: points and partial points that stand on it, sorted.

    An unreadable point may stand on any older one, so it counts for all of them.
    """
    found = []
    for other in paths.point_ids(key):
        if other == point_id:
            continue
        try:
            depends = read_manifest(paths, key, other).parent_id == point_id
        except (PointDamagedError, SchemaUnknownError):
            depends = other > point_id
        if depends:
            found.append(other)
    for other in paths.point_ids(key, PARTIAL):
        parent = partial_job(paths, key, other).get("parent_id")
        if parent == point_id or not isinstance(parent, str):
            found.append(f"{other}{PARTIAL}")
    return found


def _point(manifests: Dict[str, Manifest], damage: Dict[str, str], manifest: Manifest, kept: Optional[Dict[str, Any]]) -> Point:
    found = _damage(manifests, damage, manifest.point_id)
    until = immutability.until_of(kept) if kept is not None else ""
    return Point(manifest=manifest, status=DAMAGED if found else OK, damage=found, immutable_until=until)


def _damage(manifests: Dict[str, Manifest], damage: Dict[str, str], point_id: str) -> str:
    if point_id in damage:
        return damage[point_id]
    fault = chain.fault(manifests, point_id)
    if fault:
        return fault
    for parent in chain.ancestors(manifests, point_id):
        if parent in damage:
            return f"depends on {parent}: {damage[parent]}"
    return ""


def _damage_text(mark: Dict[str, Any]) -> str:
    reason, began = mark.get("reason"), mark.get("began_in")
    if not isinstance(reason, str) or not isinstance(began, str) or not POINT_ID.fullmatch(began):
        return "marked as damaged; the mark itself cannot be read"
    return f"{reason} (began in {began})"
