# Copyright: (c) 2026, Sendense contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Is a stored point what was committed? Checks of files at this place against manifests, shared by all backends.

*Structure* is everything that can be told without reading the data: manifest, chain, sizes, image headers, block hashes,
roots. *Digests* read every byte of a point's own files. Comparing the data with the block hashes is the verifier's work.
"""

from __future__ import annotations

import os
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any, Callable, Dict, FrozenSet, List, Mapping, Optional, Tuple

from ..catalog import chain
from ..catalog.fields import INCREMENTAL
from ..catalog.manifest import Manifest, ManifestDisk
from ..datapath.blockhashes import BlockHashFile, BlockMap, compose
from ..datapath.images import qcow2_node, read_qcow2_header
from ..errors import ImageRejectedError, PointDamagedError
from . import local_files as files
from ._base import Finding
from .digests import file_digest, sha256_of


@dataclass(frozen=True)
class Shelf:
    """The readable manifests of one machine, and where the files of a point lie at this place."""

    manifests: Mapping[str, Manifest]
    directory: Callable[[str], str]
    merging: FrozenSet[str] = frozenset()
    """Points that an open merge consumes: their images change and grow, and are proved when the merge ends."""

    def path(self, point_id: str, name: str) -> str:
        """A file of a point."""
        return os.path.join(self.directory(point_id), name)

    def layers(self, point_id: str, disk_id: str) -> List[Tuple[str, ManifestDisk]]:
        """As :func:`chain.disk_layers`."""
        return chain.disk_layers(self.manifests, point_id, disk_id)

    def hash_paths(self, point_id: str, disk_id: str) -> List[str]:
        """Block hash files of one disk, the full's first. PointDamagedError."""
        return [self.path(layer, disk.hashes_file) for layer, disk in self.layers(point_id, disk_id)]

    def node(self, point_id: str, disk_id: str) -> Dict[str, Any]:
        """The block node of one disk with its explicit chain. PointDamagedError."""
        node: Optional[Dict[str, Any]] = None
        for layer, disk in self.layers(point_id, disk_id):
            node = qcow2_node(self.path(layer, disk.file), backing=node)
        return node or {}


def structure(shelf: Shelf, point_id: str) -> List[Finding]:
    """What is wrong with a point and all it stands on, without reading data; the deepest first. RepositoryIoError."""
    found = chain_findings(shelf, point_id)
    if found:
        return found
    for member in reversed([point_id, *chain.ancestors(shelf.manifests, point_id)]):
        found += own_structure(shelf, member)
    return found or roots(shelf, point_id)


def chain_findings(shelf: Shelf, point_id: str) -> List[Finding]:
    """What the manifests alone say against the chain of a point."""
    if point_id not in shelf.manifests:
        return [Finding(point_id, "", "manifest", "the manifest is missing or cannot be read")]
    fault = chain.fault(shelf.manifests, point_id)
    return [Finding(point_id, "", "chain", fault)] if fault else []


def own_structure(shelf: Shelf, point_id: str, manifest: Optional[Manifest] = None) -> List[Finding]:
    """As :func:`structure`, of this point's own files; ``manifest`` for a point that is not committed yet."""
    manifest = manifest or shelf.manifests[point_id]
    found: List[Finding] = []
    for disk in manifest.disks:
        path = shelf.path(point_id, disk.file)
        fault = _size_fault(path, None if point_id in shelf.merging else disk.file_size)
        if fault:
            found.append(Finding(point_id, disk.key, *fault))
        else:
            found += _finding(point_id, disk.key, "header", _header_fault(path, disk, _backing(shelf, disk)))
        found += _hashes_findings(shelf.path(point_id, disk.hashes_file), point_id, disk)
    for part in (manifest.native, manifest.nvram):
        fault = _size_fault(shelf.path(point_id, part["file"]), part["size"]) if part else None
        if fault:
            found.append(Finding(point_id, "", *fault))
    return found


def roots(shelf: Shelf, point_id: str) -> List[Finding]:
    """Which disks of a point are, by the block hashes of their chains, not of the root in the manifest."""
    found: List[Finding] = []
    for disk in shelf.manifests[point_id].disks:
        try:
            root = composed(shelf.hash_paths(point_id, disk.id)).root()
        except PointDamagedError as error:
            found.append(Finding(point_id, disk.key, "hashes", error.msg))
            continue
        if root != disk.root:
            found.append(Finding(point_id, disk.key, "root", f"the block hashes of its chain have the root {root}, not {disk.root}"))
    return found


def digests(shelf: Shelf, point_id: str) -> List[Finding]:
    """Which files of this point alone differ from their digest in the manifest. Reads all of them. RepositoryIoError."""
    found: List[Finding] = []
    for disk in shelf.manifests[point_id].disks:
        path = shelf.path(point_id, disk.file)
        found += _digest_findings(point_id, disk.key, path, disk.file_digest, disk.hash_algorithm)
        found += _digest_findings(point_id, disk.key, shelf.path(point_id, disk.hashes_file), disk.hashes_sha256, "sha256")
    return found + side_files(shelf, point_id)


def side_files(shelf: Shelf, point_id: str) -> List[Finding]:
    """As :func:`digests`, of the machine's files only: they are small."""
    manifest = shelf.manifests[point_id]
    found: List[Finding] = []
    for part in (manifest.native, manifest.nvram):
        if part:
            found += _digest_findings(point_id, "", shelf.path(point_id, part["file"]), part["sha256"], "sha256")
    return found


def composed(paths: List[str]) -> BlockMap:
    """The block map of a disk from its hash files, the full's first. PointDamagedError, RepositoryIoError."""
    with ExitStack() as stack:
        return compose([stack.enter_context(open_hashes(path)) for path in paths])


def open_hashes(path: str) -> BlockHashFile:
    """A block hash file, validated. PointDamagedError, RepositoryIoError."""
    with files.storage_below("read", path):
        return BlockHashFile(path)


def require_sound(found: List[Finding], what: str) -> None:
    """PointDamagedError about the first finding, which is in the deepest damaged point, if there is any."""
    if found:
        first = found[0]
        raise PointDamagedError(
            f"Cannot use {what}: {first.message} (in {first.point_id}{' ' + first.disk if first.disk else ''}). It and what depends on it"
            " is damaged; the next backup is a full one. See docs/runbooks/damaged-point.md.",
            details={"point_id": first.point_id, "findings": [vars(finding) for finding in found]},
        )


def _backing(shelf: Shelf, disk: ManifestDisk) -> str:
    """The backing path that the image of a disk must name: relative, so that the repository may be mounted anywhere."""
    parent = shelf.manifests[disk.parent_id].disk(disk.id) if disk.level == INCREMENTAL else None
    return backing_path(disk.parent_id, parent.file) if parent is not None else ""


def backing_path(parent_id: str, file: str) -> str:
    """How an incremental's image names its parent's."""
    return f"../{parent_id}/{file}"


def _size_fault(path: str, expected: Optional[int]) -> Optional[Tuple[str, str]]:
    size = files.file_size(path)
    if size is None:
        return "missing", f"{os.path.basename(path)} is missing or not a plain file"
    if expected is not None and size != expected:
        return "size", f"{os.path.basename(path)} has {size} bytes instead of {expected}"
    return None


def _header_fault(path: str, disk: ManifestDisk, backing: str) -> str:
    try:
        with files.storage_below("read", path):
            header = read_qcow2_header(path, backing)
    except ImageRejectedError as error:
        return error.msg
    if header.size != disk.size_bytes:
        return f"the header of {os.path.basename(path)} says {header.size} bytes instead of {disk.size_bytes}"
    return ""


def _hashes_findings(path: str, point_id: str, disk: ManifestDisk) -> List[Finding]:
    fault = _size_fault(path, disk.hashes_size)
    if fault:
        return [Finding(point_id, disk.key, *fault)]
    if sha256_of(path) != disk.hashes_sha256:
        return [Finding(point_id, disk.key, "hashes", f"{os.path.basename(path)} does not match its digest")]
    try:
        with open_hashes(path) as hashes:
            header = hashes.header
    except PointDamagedError as error:
        return [Finding(point_id, disk.key, "hashes", error.msg)]
    stated = (header.disk_size, header.level, header.algorithm, header.block_size)
    wanted = (disk.size_bytes, disk.level, disk.hash_algorithm, disk.block_bytes)
    return _finding(point_id, disk.key, "hashes", "" if stated == wanted else f"{os.path.basename(path)} is of {stated}, not {wanted}")


def _digest_findings(point_id: str, key: str, path: str, wanted: str, algorithm: str) -> List[Finding]:
    name = os.path.basename(path)
    if files.file_size(path) is None:
        return [Finding(point_id, key, "missing", f"{name} is missing or not a plain file")]
    digest = file_digest(path, algorithm)
    return _finding(point_id, key, "digest", "" if digest == wanted else f"{name} has the {algorithm} {digest} instead of {wanted}")


def _finding(point_id: str, key: str, kind: str, message: str) -> List[Finding]:
    return [Finding(point_id, key, kind, message)] if message else []
