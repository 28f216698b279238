# Copyright: (c) 2026, Sendense contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Describe a point that was written and read back: bring its small files together and build its manifest.

Called between the re-read and :meth:`Repository.commit`, so that the module that commits stays thin. Sealing may be
repeated; it changes nothing but files of the point that is being written.
"""

from __future__ import annotations

import os
import platform
import time
from dataclasses import asdict, dataclass, field
from typing import Any, Dict, List, Optional

from ..catalog.fields import FULL, INCREMENTAL
from ..catalog.manifest import SCHEMA_VERSION, Manifest, ManifestDisk
from ..catalog.times import utc_from_seconds, utc_text
from ..datapath.blockhashes import HashHeader
from ..errors import InvalidInputError, PointDamagedError, VerificationFailedError
from ..model import Machine
from ..steps import reached
from . import local_files as files
from ._base import OpenPoint, Repository
from .checks import composed, open_hashes
from .digests import file_digest, sha256_of

NATIVE_FILE = "machine.native"
NVRAM_FILE = "nvram.fd"


@dataclass
class Sealing:
    """What the job knows about the point that it wrote. Paths are at this place."""

    snapshot: Dict[str, Any]
    """``Snapshot.to_dict()`` of what was read."""
    copied: Dict[str, Dict[str, Any]]
    """The mover's result by disk key: ``bytes_read``, ``bytes_written``, ``bytes_zeroed``."""
    hashes: Dict[str, str]
    """The mover's block hash file by disk key."""
    digests: Dict[str, str] = field(default_factory=dict)
    """Digest of each image file by disk key, where the re-read has computed it already."""
    nvram_path: str = ""
    """A copy of the firmware variables, if the machine has any."""
    verified_method: str = "direct"
    """``direct`` if the re-read went past the page cache, else ``cached``."""
    verified_reason: str = ""
    """Why not direct, if not."""
    verified_at: str = ""
    """UTC, ISO 8601; now if empty."""
    versions: Dict[str, str] = field(default_factory=dict)
    """Versions of what took part, by name, for a later diagnosis."""


def seal(repository: Repository, point: OpenPoint, sealing: Sealing) -> Manifest:
    """Put the point's small files into it and return the manifest to commit.

    InvalidInputError if snapshot, copy and point do not fit each other; VerificationFailedError if a hash file is not of
    its disk; PointDamagedError if the parent is not what its manifest says; RepositoryIoError, RepositoryFullError.
    """
    snapshot = sealing.snapshot
    _require_complete(point, sealing)
    parent = repository.get(point.machine_key, point.parent_id).manifest if point.parent_id else None
    below = repository.hash_files(point.machine_key, point.parent_id) if point.parent_id else {}
    disks = [_seal_disk(point, sealing, disk, parent, below) for disk in snapshot["disks"]]
    native, nvram = _native(point, snapshot), _nvram(point, sealing)
    files.sync_directory(point.path)
    reached("seal:files-adopted")
    machine = Machine.from_dict(snapshot["machine"])
    manifest = Manifest(
        schema_version=SCHEMA_VERSION,
        point_id=point.point_id,
        machine_key=point.machine_key,
        repository_id=str(repository.identity()["repository_id"]),
        job_id=point.job_id,
        generation=point.generation,
        created_at=utc_text(snapshot["created_at"]),
        committed_at=utc_from_seconds(time.time()),
        level=INCREMENTAL if parent is not None else FULL,
        parent_id=point.parent_id,
        chain_depth=parent.chain_depth + 1 if parent is not None else 0,
        consistency={
            "reached": snapshot["consistency"],
            "wanted": snapshot["consistency_wanted"],
            "reason": snapshot["consistency_reason"],
        },
        machine=machine.to_dict(),
        native=native,
        nvram=nvram,
        tpm={"present": machine.tpm, "covered": False},
        not_covered=_not_covered(machine, nvram),
        skipped_disks=[dict(disk) for disk in snapshot.get("skipped_disks", [])],
        disks=disks,
        verified={
            "at": sealing.verified_at or utc_from_seconds(time.time()),
            "method": sealing.verified_method,
            "reason": sealing.verified_reason,
        },
        versions={"python": platform.python_version(), **sealing.versions},
    )
    return _checked(manifest)


def _require_complete(point: OpenPoint, sealing: Sealing) -> None:
    keys = [disk["key"] for disk in sealing.snapshot["disks"]]
    for what, found in (("the point", point.images), ("the copy", sealing.copied), ("the block hashes", sealing.hashes)):
        if sorted(found) != sorted(keys):
            raise InvalidInputError(
                f"Cannot commit point {point.point_id}: the snapshot has the disks {sorted(keys)}, but {what} has {sorted(found)}."
                " Nothing was committed; run the backup again.",
                details={"snapshot": sorted(keys), "other": sorted(found)},
            )


def _seal_disk(
    point: OpenPoint, sealing: Sealing, disk: Dict[str, Any], parent: Optional[Manifest], below: Dict[str, List[str]]
) -> ManifestDisk:
    key = disk["key"]
    hashes_path = os.path.join(point.path, f"{key}.hashes")
    _adopt(sealing.hashes[key], hashes_path)
    header = _hash_header(hashes_path, point, disk)
    parent_disk = _parent_disk(point, disk, parent)
    layers = below[parent_disk.key] if parent_disk is not None else []
    image = os.path.join(point.path, f"{key}.qcow2")
    copied = sealing.copied[key]
    return ManifestDisk(
        key=key,
        id=disk["disk_id"],
        size_bytes=disk["size_bytes"],
        level=disk["level"],
        reason=disk["reason"],
        change_id=disk["change_id"],
        parent_id=point.parent_id if parent_disk is not None else "",
        parent_root=_parent_root(parent_disk, layers, point),
        bytes_read=copied["bytes_read"],
        bytes_written=copied["bytes_written"],
        bytes_zeroed=copied["bytes_zeroed"],
        hash_algorithm=header.algorithm,
        block_bytes=header.block_size,
        root=composed([*layers, hashes_path]).root(),
        file=os.path.basename(image),
        file_size=files.file_size(image) or 0,
        file_digest=sealing.digests.get(key) or file_digest(image, header.algorithm),
        hashes_file=os.path.basename(hashes_path),
        hashes_size=header.file_size,
        hashes_sha256=sha256_of(hashes_path),
    )


def _adopt(source: str, path: str) -> None:
    """Bring a file of the job into the point; a copy of an earlier sealing is replaced."""
    if os.path.abspath(source) != os.path.abspath(path):
        files.remove_file(path)
        files.copy_file(source, path)


def _hash_header(path: str, point: OpenPoint, disk: Dict[str, Any]) -> HashHeader:
    try:
        with open_hashes(path) as hashes:
            header = hashes.header
    except PointDamagedError as error:
        raise _unfit(point, disk["key"], error.msg) from error
    if (header.disk_size, header.level) != (disk["size_bytes"], disk["level"]):
        raise _unfit(point, disk["key"], f"they are of a {header.level} of {header.disk_size} bytes")
    return header


def _unfit(point: OpenPoint, key: str, why: str) -> VerificationFailedError:
    return VerificationFailedError(
        f"Cannot commit point {point.point_id}: the block hashes of {key} are not of this copy: {why}. Nothing was committed; run the"
        " backup again.",
        details={"point_id": point.point_id, "disk": key},
    )


def _parent_disk(point: OpenPoint, disk: Dict[str, Any], parent: Optional[Manifest]) -> Optional[ManifestDisk]:
    if disk["level"] != INCREMENTAL:
        return None
    found = parent.disk(disk["disk_id"]) if parent is not None else None
    if found is None:
        raise InvalidInputError(f"Cannot commit point {point.point_id}: {disk['key']} is incremental, but no parent has this disk.")
    return found


def _parent_root(parent_disk: Optional[ManifestDisk], layers: List[str], point: OpenPoint) -> str:
    """The parent's root, computed anew: the point must not be built on anything else."""
    if parent_disk is None:
        return ""
    root = composed(layers).root()
    if root != parent_disk.root:
        raise PointDamagedError(
            f"Cannot commit point {point.point_id}: the block hashes of its parent {point.parent_id} have the root {root} for"
            f" {parent_disk.key}, not {parent_disk.root}. Verify the parent; the next backup is a full one.",
            details={"point_id": point.parent_id, "disk": parent_disk.key},
        )
    return root


def _native(point: OpenPoint, snapshot: Dict[str, Any]) -> Optional[Dict[str, Any]]:
    if not snapshot.get("native_config"):
        return None
    content = snapshot["native_config"].encode("utf-8", "surrogatepass")
    path = os.path.join(point.path, NATIVE_FILE)
    files.write_durable(path, content)
    return {"format": snapshot["native_format"], "file": NATIVE_FILE, "size": len(content), "sha256": sha256_of(path)}


def _nvram(point: OpenPoint, sealing: Sealing) -> Optional[Dict[str, Any]]:
    if not sealing.nvram_path:
        return None
    path = os.path.join(point.path, NVRAM_FILE)
    _adopt(sealing.nvram_path, path)
    return {"file": NVRAM_FILE, "size": files.file_size(path) or 0, "sha256": sha256_of(path)}


def _not_covered(machine: Machine, nvram: Optional[Dict[str, Any]]) -> List[str]:
    missing = ["tpm state"] if machine.tpm else []
    return missing + (["firmware variables"] if machine.firmware == "uefi" and nvram is None else [])


def _checked(manifest: Manifest) -> Manifest:
    """The same manifest as it will be read: what could not be read back must not be written."""
    try:
        return Manifest.from_dict(asdict(manifest), f"point {manifest.point_id}")
    except PointDamagedError as error:
        raise InvalidInputError(
            f"Cannot describe point {manifest.point_id}: {error.details['fault']}. Nothing was committed.", details=error.details
        ) from error
