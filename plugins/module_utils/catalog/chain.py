# Copyright: (c) 2026, Sendense contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Chains: which point stands on which. Pure functions over the manifests of one machine, by point id.

A chain must never be assumed to be sound: a missing parent, a circle, or a parent whose content is not the one that
the child was built on is damage, and is named.
"""

from __future__ import annotations

from typing import List, Mapping, Tuple

from ..errors import PointDamagedError, PointNotFoundError
from .fields import INCREMENTAL
from .manifest import Manifest, ManifestDisk

Manifests = Mapping[str, Manifest]


def fault(manifests: Manifests, point_id: str) -> str:
    """What is wrong with the chain below this point, as far as manifests can tell; empty if nothing is."""
    try:
        links = [point_id, *ancestors(manifests, point_id)]
    except PointDamagedError as error:
        return str(error.details["fault"])
    for child_id, parent_id in zip(links, links[1:]):
        found = _link_fault(manifests[child_id], manifests[parent_id])
        if found:
            return found
    return ""


def ancestors(manifests: Manifests, point_id: str) -> List[str]:
    """Ids of the points that this one depends on, nearest first. PointNotFoundError, PointDamagedError."""
    if point_id not in manifests:
        raise PointNotFoundError(f"Cannot follow the chain of point {point_id}: there is no such point. List the machine's points.")
    found: List[str] = []
    current = point_id
    while manifests[current].parent_id:
        parent = manifests[current].parent_id
        if parent == point_id or parent in found:
            raise _broken(point_id, f"the chain runs in a circle at {parent}")
        if parent not in manifests:
            raise _broken(point_id, f"{parent}, which {current} depends on, is missing or unreadable")
        found.append(parent)
        current = parent
    return found


def known_ancestors(manifests: Manifests, point_id: str) -> List[str]:
    """As :func:`ancestors`, of a chain that may be broken: as far as it can be followed, nothing of a point that is not there."""
    found: List[str] = []
    current = manifests[point_id].parent_id if point_id in manifests else ""
    while current in manifests and current not in found and current != point_id:
        found.append(current)
        current = manifests[current].parent_id
    return found


def depth(manifests: Manifests, point_id: str) -> int:
    """How many points this one depends on. Errors as :func:`ancestors`."""
    return len(ancestors(manifests, point_id))


def descendants(manifests: Manifests, point_id: str) -> List[str]:
    """Ids of all points that depend on this one, directly or not, sorted. The point itself need not be readable."""
    found: List[str] = []
    pending = [point_id]
    while pending:
        parent = pending.pop()
        children = [key for key, manifest in manifests.items() if manifest.parent_id == parent and key not in found and key != point_id]
        found += children
        pending += children
    return sorted(found)


def disk_layers(manifests: Manifests, point_id: str, disk_id: str) -> List[Tuple[str, ManifestDisk]]:
    """The points, with their part of one disk, that this disk is made of: the full first, ``point_id`` last.

    PointDamagedError if the chain is broken or a parent lacks the disk.
    """
    layers: List[Tuple[str, ManifestDisk]] = []
    for current in [point_id, *ancestors(manifests, point_id)]:
        disk = manifests[current].disk(disk_id)
        if disk is None:
            raise _broken(point_id, f"{current} has no disk {disk_id!r}")
        layers.insert(0, (current, disk))
        if disk.level != INCREMENTAL:
            break
    return layers


def _link_fault(child: Manifest, parent: Manifest) -> str:
    for disk in child.disks:
        if disk.level != INCREMENTAL:
            continue
        below = parent.disk(disk.id)
        if below is None:
            return f"{parent.point_id} has no disk {disk.id!r}, on which {child.point_id} depends"
        if (below.size_bytes, below.block_bytes, below.hash_algorithm) != (disk.size_bytes, disk.block_bytes, disk.hash_algorithm):
            return f"disk {disk.id!r} of {child.point_id} has another size or another way of hashing than in {parent.point_id}"
        if below.root != disk.parent_root:
            return f"disk {disk.id!r} of {parent.point_id} is not the content that {child.point_id} was built on"
    return ""


def _broken(point_id: str, what: str) -> PointDamagedError:
    return PointDamagedError(
        f"Cannot use the chain of point {point_id}: {what}. See docs/runbooks/damaged-point.md.",
        details={"point_id": point_id, "fault": what},
    )
