# Copyright: (c) 2026, Sendense contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The decision full or incremental, as far as the repository decides it: which point the next backup may build on.

Pure: from the list of the points of one machine, to a :class:`Previous`. What the platform knows (change tracking, disk
sizes) is decided by its source, per disk. Any doubt means full, with the reason.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any, Dict, List, Optional, Protocol, Sequence

from . import chain
from .manifest import Manifest

#: Deeper chains read noticeably slower (performance.md: 85 % at 30) and lose more to one damaged point.
MAXIMUM_DEPTH = 30

NO_PREVIOUS_BACKUP = "no_previous_backup"
PREVIOUS_DAMAGED = "previous_damaged"
CHAIN_TOO_DEEP = "chain_too_deep"
TRACKING_LIED = "tracking_lied"
REQUESTED = "requested"


class ListedPoint(Protocol):
    """What the decision needs of a point as a repository lists it."""

    @property
    def manifest(self) -> Manifest:
        """The stored manifest; of no meaning where ``status`` is not ``ok``."""

    @property
    def distrusted(self) -> str:
        """Why no incremental may be built on it; empty if one may."""

    @property
    def status(self) -> str:
        """``ok``, ``damaged`` or ``merging``."""


@dataclass(frozen=True)
class PreviousDisk:
    """What the point to build on knows about one disk, in the shape that a source takes."""

    disk_id: str
    size_bytes: int
    change_id: str


@dataclass(frozen=True)
class Previous:
    """The point to build on. ``disks`` None: full, because of ``reason`` (empty otherwise)."""

    point_id: str
    disks: Optional[List[PreviousDisk]]
    reason: str

    def to_dict(self) -> Dict[str, Any]:
        """Plain data for JSON."""
        return asdict(self)


def choose_previous(points: Sequence[ListedPoint], requested_full: bool = False, max_depth: int = MAXIMUM_DEPTH) -> Previous:
    """Choose the point that the next backup of this machine builds on.

    Only the newest point is considered: if it is damaged, an older one might still serve, but a full ends the doubt and
    gives the machine a new sound chain. A full is made once the chain would grow beyond ``max_depth`` parents.
    """
    if requested_full:
        return _full(REQUESTED)
    if not points:
        return _full(NO_PREVIOUS_BACKUP)
    newest = _newest(points)
    if newest.distrusted:
        return _full(TRACKING_LIED)
    # A point that is being merged is not offered, but what stands on it reads through it as before.
    manifests = {point.manifest.point_id: point.manifest for point in points if point.status in ("ok", "merging")}
    point_id = newest.manifest.point_id
    if newest.status != "ok" or chain.fault(manifests, point_id):
        return _full(PREVIOUS_DAMAGED)
    if chain.depth(manifests, point_id) >= max_depth:
        return _full(CHAIN_TOO_DEEP)
    disks = [PreviousDisk(disk.id, disk.size_bytes, disk.change_id) for disk in newest.manifest.disks]
    return Previous(point_id, disks, "")


def known_change_ids(points: Sequence[ListedPoint]) -> List[str]:
    """Change ids that a later incremental of this repository may start from: those of the newest sound point, sorted.

    The source may drop all other change tracking state of this repository.
    """
    chosen = choose_previous(points, max_depth=len(points) + 1)
    return sorted({disk.change_id for disk in chosen.disks or [] if disk.change_id})


def _newest(points: Sequence[ListedPoint]) -> ListedPoint:
    """By generation, which only grows, so that a clock that was set back changes nothing.

    A point whose manifest is unreadable has no generation that could be trusted: it counts as the newest if its id, which
    begins with its time, is not older than the newest readable one's.
    """
    readable = [point for point in points if point.manifest.generation > 0]
    if not readable:
        return points[-1]
    newest = max(readable, key=lambda point: (point.manifest.generation, point.manifest.point_id))
    unreadable = [point for point in points if point.manifest.generation <= 0]
    return next((point for point in unreadable if point.manifest.point_id >= newest.manifest.point_id), newest)


def _full(reason: str) -> Previous:
    return Previous("", None, reason)
