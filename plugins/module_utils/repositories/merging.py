# Copyright: (c) 2026, Sendense contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a merge is, for all backends: which points may go into which, what is to be done for each disk, and what comes out.

For each disk the *lowest layer* within the run of consumed points and survivor takes in the data of the layers above it.
docs/design/retention.md says why readers of the survivor never notice.
"""

from __future__ import annotations

import os
from contextlib import ExitStack
from dataclasses import asdict, replace
from typing import Any, Dict, Iterable, List, Mapping, Optional, Sequence, Tuple

from ..catalog import chain
from ..catalog.audit import COMPOSED_AT
from ..catalog.fields import FULL, INCREMENTAL
from ..catalog.manifest import Manifest, ManifestDisk
from ..datapath.blockhashes import union, write_merged
from ..datapath.extents import Extent, Run
from ..datapath.hashing import BLOCK_BYTES
from ..datapath.images import CLUSTER_BYTES, each_allocated, qcow2_node
from ..errors import InvalidInputError, PointNotFoundError, VerificationFailedError
from . import checks
from . import local_files as files
from ._base import MergeDisk, OpenMerge
from .checks import Shelf
from .digests import sha256_of

KEEP, COMMIT, COPY = "keep", "commit", "copy"
#: Why a disk is full that was read as an incremental.
REASON = "merged"

Layers = List[Tuple[str, ManifestDisk]]


def require_run(manifests: Mapping[str, Manifest], survivor: str, consumed: Sequence[str]) -> None:
    """The points are a run right below the survivor, or the survivor is no full. PointNotFoundError, InvalidInputError."""
    for point_id in [*consumed, survivor]:
        if point_id not in manifests:
            raise PointNotFoundError(
                f"Cannot merge into point {survivor}: there is no readable point {point_id}. List the machine's points.",
                details={"point_id": point_id},
            )
    parents = [manifests[point_id].parent_id for point_id in [*consumed[1:], survivor]]
    if consumed and parents != list(consumed):
        raise InvalidInputError(f"Cannot merge {', '.join(consumed)} into point {survivor}: each must stand on the one before it.")
    if not manifests[survivor].parent_id:
        raise InvalidInputError(f"Cannot make point {survivor} a full backup: it is one already.")


def plan_disks(shelf: Shelf, survivor: str, consumed: Sequence[str], work: str) -> List[MergeDisk]:
    """What is to be done for each disk of the survivor; ``work`` is where new images go. PointDamagedError."""
    return [_plan_disk(shelf, survivor, disk, consumed, work) for disk in shelf.manifests[survivor].disks]


def _plan_disk(shelf: Shelf, survivor: str, disk: ManifestDisk, consumed: Sequence[str], work: str) -> MergeDisk:
    layers = within(shelf.layers(survivor, disk.id), survivor, consumed)
    hashes = [shelf.path(layer, one.hashes_file) for layer, one in layers]
    if len(layers) == 1:
        return MergeDisk(disk.key, KEEP, {}, shelf.path(survivor, disk.file), disk.size_bytes, hashes)
    top = shelf.node(survivor, disk.id)
    if not consumed:
        return MergeDisk(disk.key, COPY, top, os.path.join(work, disk.file), disk.size_bytes, hashes)
    lowest, below = layers[0]
    return MergeDisk(disk.key, COMMIT, top, shelf.path(lowest, below.file), disk.size_bytes, hashes)


def within(layers: Layers, survivor: str, consumed: Sequence[str]) -> Layers:
    """The layers of one disk that become one; all of them if nothing is consumed, for a synthetic full takes the whole chain."""
    return [layer for layer in layers if layer[0] == survivor or layer[0] in consumed or not consumed]


def moved(merge: OpenMerge) -> List[MergeDisk]:
    """The disks whose data is moved."""
    return [disk for disk in merge.disks if disk.action != KEEP]


def node(shelf: Shelf, merge: OpenMerge, disk: MergeDisk) -> Dict[str, Any]:
    """The block node of a disk's new image, with the chain that it stands on. PointDamagedError."""
    known = _by_key(shelf.manifests[merge.survivor])[disk.key]
    below: Optional[Dict[str, Any]] = None
    for layer, one in shelf.layers(merge.survivor, known.id)[: -len(disk.hashes)]:
        below = qcow2_node(shelf.path(layer, one.file), backing=below)
    return qcow2_node(disk.base, backing=below)


def growth_bytes(disk: MergeDisk) -> int:
    """Upper bound of the bytes by which the image may grow: all blocks that any layer holds, less what it occupies now."""
    if disk.action == KEEP:
        return 0
    with ExitStack() as stack:
        layers = [stack.enter_context(checks.open_hashes(path)) for path in disk.hashes]
        blocks = sum(run.blocks for run in union(run for layer in layers for run in layer.runs))
    # A table of 64 KiB describes 8192 clusters; a few more hold the rest of the metadata.
    data = blocks * CLUSTER_BYTES
    return max(0, data + data // 4096 + 16 * CLUSTER_BYTES - files.allocated_bytes(disk.base))


def compose_hashes(shelf: Shelf, merge: OpenMerge) -> Dict[str, str]:
    """Write the composed block hashes into the work directory; their paths by disk key.

    VerificationFailedError if a disk would not have the survivor's root, or its image has a block that no backup has written;
    PointDamagedError, RepositoryIoError, RepositoryFullError.
    """
    return {disk.key: _compose_disk(shelf, merge, disk) for disk in moved(merge)}


def _compose_disk(shelf: Shelf, merge: OpenMerge, disk: MergeDisk) -> str:
    known = _by_key(shelf.manifests[merge.survivor])[disk.key]
    path = os.path.join(merge.path, known.hashes_file)
    files.remove_file(path)
    with ExitStack() as stack, files.storage_below("write", path):
        write_merged([stack.enter_context(checks.open_hashes(one)) for one in disk.hashes], path)
    below = shelf.hash_paths(merge.survivor, known.id)[: -len(disk.hashes)]
    root = checks.composed([*below, path]).root()
    if root != known.root:
        raise VerificationFailedError(
            f"Cannot merge into point {merge.survivor}: the composed block hashes of {disk.key} have the root {root}, not {known.root}."
            " Verify the point; nothing was published.",
            details={"point_id": merge.survivor, "disk": disk.key},
        )
    _require_nothing_else(merge, disk, path)
    return path


def _require_nothing_else(merge: OpenMerge, disk: MergeDisk, path: str) -> None:
    """The image holds no block that its hashes do not hold. VerificationFailedError.

    The re-read compares what the hashes hold. A block beside them, which only decay puts into an image that was sound once, would
    hide the one below it, and the image's new digest would vouch for it.
    """
    with checks.open_hashes(path) as hashes:
        full, runs = hashes.header.level == FULL, hashes.runs
    with files.storage_below("map", disk.base):
        block = _outside((extent for extent in each_allocated(disk.base) if extent.data or not full), runs)
    if block is not None:
        raise VerificationFailedError(
            f"Cannot merge into point {merge.survivor}: the image of {disk.key} has block {block}, which no backup has written. Verify the"
            " point; nothing was published.",
            details={"point_id": merge.survivor, "disk": disk.key, "block": block},
        )


def _outside(extents: Iterable[Extent], runs: Sequence[Run]) -> Optional[int]:
    """The first block of the extents that is in none of the runs; both ascend."""
    at = 0
    for extent in extents:
        block, end = extent.offset // BLOCK_BYTES, -(-(extent.offset + extent.length) // BLOCK_BYTES)
        while block < end:
            while at < len(runs) and runs[at].first + runs[at].blocks <= block:
                at += 1
            if at == len(runs) or runs[at].first > block:
                return block
            block = runs[at].first + runs[at].blocks
    return None


def merged_manifest(shelf: Shelf, merge: OpenMerge, digests: Mapping[str, str], verified: Dict[str, str]) -> Manifest:
    """The survivor's new manifest, for the files that are complete in the work directory. VerificationFailedError if they are not."""
    old = shelf.manifests[merge.survivor]
    wanted = {disk.key for disk in moved(merge)}
    if set(digests) != wanted:
        raise VerificationFailedError(
            f"Cannot merge into point {merge.survivor}: the re-read has digests of {sorted(digests)}, not of {sorted(wanted)}."
        )
    disks = [_merged_disk(shelf, merge, disk, digests[disk.key]) if disk.key in wanted else disk for disk in old.disks]
    parents = {disk.parent_id for disk in disks if disk.level == INCREMENTAL}
    parent = parents.pop() if parents else ""
    manifest = replace(
        old,
        level=INCREMENTAL if parent else FULL,
        parent_id=parent,
        chain_depth=chain.depth(shelf.manifests, parent) + 1 if parent else 0,
        disks=disks,
        verified=dict(verified),
        # What this point holds was not all read of the source by its own backup: the audit of change tracking asks for that.
        versions={**old.versions, COMPOSED_AT: verified["at"]},
    )
    manifest = Manifest.from_dict(asdict(manifest), f"point {manifest.point_id}")
    _require_fitting(shelf, merge, manifest)
    return manifest


def _merged_disk(shelf: Shelf, merge: OpenMerge, disk: ManifestDisk, digest: str) -> ManifestDisk:
    lowest = within(shelf.layers(merge.survivor, disk.id), merge.survivor, merge.consumed)[0][1]
    image, hashes = os.path.join(merge.path, disk.file), os.path.join(merge.path, disk.hashes_file)
    for path in (image, hashes):
        if files.file_size(path) is None:
            raise VerificationFailedError(
                f"Cannot merge into point {merge.survivor}: {os.path.basename(path)} has not been made. Nothing was published; prune again."
            )
    return replace(
        disk,
        level=lowest.level,
        reason=disk.reason if lowest.level == disk.level else REASON,
        parent_id=lowest.parent_id,
        parent_root=lowest.parent_root,
        file_size=files.file_size(image) or 0,
        file_digest=digest,
        hashes_size=files.file_size(hashes) or 0,
        hashes_sha256=sha256_of(hashes),
    )


def _require_fitting(shelf: Shelf, merge: OpenMerge, manifest: Manifest) -> None:
    """Manifest, files and what they stand on fit each other."""
    survivor = merge.survivor
    new = Shelf(
        {**shelf.manifests, survivor: manifest},
        lambda other: merge.path if other == survivor else shelf.directory(other),
        shelf.merging,
    )
    found = checks.chain_findings(new, survivor) or checks.own_structure(new, survivor) or checks.roots(new, survivor)
    if found:
        raise VerificationFailedError(
            f"Cannot merge into point {survivor}: {found[0].message}. Nothing was published; the merge is repeated by the next prune.",
            details={"findings": [vars(finding) for finding in found]},
        )


def _by_key(manifest: Manifest) -> Dict[str, ManifestDisk]:
    return {disk.key: disk for disk in manifest.disks}
