# Copyright: (c) 2026, Sendense contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Taking committed points away, and sweeping up what an interrupted change left. The machine's lock is always held."""

from __future__ import annotations

import os
from typing import List

from ..errors import PointImmutableError, PointInUseError
from ..steps import reached
from . import local_files as files
from . import local_immutability as immutability
from . import local_marks as marks
from .local_paths import DELETING, JOB, PREPARING, Paths
from .local_points import dependants

_KINDS = (marks.DAMAGE, marks.IMMUTABLE, marks.DISTRUST)


def delete(paths: Paths, key: str, point_id: str, now: str) -> bool:
    """Delete one point; False if it was gone. ``now`` is UTC in the one spelling.

    The rename is the moment of deletion: before it the point is whole, after it the point is not listed.
    """
    if not files.exists(paths.point(key, point_id)):
        return _finish(paths, key, point_id)
    _require_free(paths, key, point_id, now)
    take_away(paths, key, point_id)
    return True


def take_away(paths: Paths, key: str, point_id: str) -> bool:
    """Delete a point of which is known that nothing needs it; False if it was gone. May be repeated after a crash."""
    if not files.exists(paths.point(key, point_id)):
        return _finish(paths, key, point_id)
    immutability.release(paths, key, point_id)
    reached("delete:released")
    files.rename(paths.point(key, point_id), paths.deleting(key, point_id))
    reached("delete:renamed")
    return _finish(paths, key, point_id)


def sweep(paths: Paths, key: str) -> List[str]:
    """Finish what a crash interrupted; returns the names removed. Never touches a point or a partial point."""
    removed: List[str] = []
    for point_id in paths.point_ids(key, DELETING):
        _finish(paths, key, point_id)
        removed.append(f"{point_id}{DELETING}")
    for point_id in paths.point_ids(key, PREPARING):
        files.remove_directory(paths.preparing(key, point_id))
        removed.append(f"{point_id}{PREPARING}")
    for point_id in paths.point_ids(key):
        path = os.path.join(paths.point(key, point_id), JOB)
        if files.is_directory(paths.point(key, point_id)) and files.exists(path):
            files.remove_file(path)
            removed.append(f"{point_id}/{JOB}")
    for kind in _KINDS:
        removed += _sweep_marks(paths, key, kind)
    return removed


def _sweep_marks(paths: Paths, key: str, kind: str) -> List[str]:
    present = {f"{point_id}.json" for point_id in paths.point_ids(key)}
    gone = [name for name in files.names(paths.marks(key, kind)) if name not in present]
    for name in gone:
        files.remove_file(os.path.join(paths.marks(key, kind), name))
    return [f"{kind}/{name}" for name in gone]


def _require_free(paths: Paths, key: str, point_id: str, now: str) -> None:
    mark = marks.read_all(paths, key, marks.IMMUTABLE).get(point_id)
    if mark is not None and immutability.until_of(mark) > now:
        raise PointImmutableError(
            f"Cannot delete point {point_id} of machine {key}: it may not be deleted before {immutability.until_of(mark)}. Delete it then.",
            details={"machine_key": key, "point_id": point_id, "until": immutability.until_of(mark)},
        )
    found = dependants(paths, key, point_id)
    if found:
        raise PointInUseError(
            f"Cannot delete point {point_id} of machine {key}: {', '.join(found)} depends on it. Delete the newest first.",
            details={"machine_key": key, "point_id": point_id, "dependants": found},
        )


def _finish(paths: Paths, key: str, point_id: str) -> bool:
    done = files.remove_directory(paths.deleting(key, point_id))
    reached("delete:removed")
    for kind in _KINDS:
        marks.remove(paths, key, kind, point_id)
    return done
