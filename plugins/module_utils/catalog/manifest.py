# Copyright: (c) 2026, Sendense contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The manifest: what a committed backup says about itself, in one strict, schema-versioned JSON file.

A manifest is written once and never changed. Reading is strict in every byte: the file must be exactly what
:meth:`Manifest.to_text` would write, so that any flipped bit is damage. The fields are described in
docs/reference/manifest.md.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, dataclass
from typing import Any, Dict, List, Optional

from ..errors import PointDamagedError, SchemaUnknownError
from ..model import Machine, machine_key
from . import fields as f
from .fields import FULL, INCREMENTAL

SCHEMA_VERSION = 1
#: Bytes; a manifest with hundreds of disks stays far below.
MAXIMUM_BYTES = 16 << 20
_DIGEST_FIELD = "manifest_sha256"


@dataclass
class ManifestDisk:
    """One disk of a committed point. Sizes in bytes; digests in lower-case hexadecimal."""

    key: str
    id: str
    size_bytes: int
    """Virtual size."""
    level: str
    reason: str
    change_id: str
    """The platform's token that the next incremental starts from; empty if this disk has none."""
    parent_id: str
    parent_root: str
    """Root of the parent's disk: identifies the parent by content. Empty for a full, as ``parent_id``."""
    bytes_read: int
    bytes_written: int
    bytes_zeroed: int
    hash_algorithm: str
    block_bytes: int
    root: str
    """Over the digests of all blocks as seen through the chain."""
    file: str
    file_size: int
    file_digest: str
    """Of the whole image file, by ``hash_algorithm``."""
    hashes_file: str
    hashes_size: int
    hashes_sha256: str


@dataclass
class Manifest:
    """One committed point. Its field order is the order in the file."""

    schema_version: int
    point_id: str
    machine_key: str
    repository_id: str
    job_id: str
    generation: int
    created_at: str
    """The instant of the snapshot."""
    committed_at: str
    level: str
    """``incremental`` if any disk is."""
    parent_id: str
    chain_depth: int
    """Parents below this point when it was committed; a later merge may leave fewer."""
    consistency: Dict[str, str]
    """``reached``, ``wanted``, ``reason``."""
    machine: Dict[str, Any]
    native: Optional[Dict[str, Any]]
    """The platform's own description: ``format``, ``file``, ``size``, ``sha256``."""
    nvram: Optional[Dict[str, Any]]
    """Firmware variables: ``file``, ``size``, ``sha256``."""
    tpm: Dict[str, bool]
    """``present``, ``covered`` (always false in this schema)."""
    not_covered: List[str]
    skipped_disks: List[Dict[str, str]]
    disks: List[ManifestDisk]
    verified: Dict[str, str]
    """The re-read before the commit: ``at``, ``method`` (``direct`` past the page cache, or ``cached``), ``reason``."""
    versions: Dict[str, str]

    def disk(self, disk_id: str) -> Optional[ManifestDisk]:
        """The disk with this stable id, if the point has it."""
        return next((disk for disk in self.disks if disk.id == disk_id), None)

    def machine_model(self) -> Machine:
        """The machine as it was at the instant."""
        return Machine.from_dict(self.machine)

    def to_dict(self) -> Dict[str, Any]:
        """Plain data for JSON, without the file's own digest."""
        return asdict(self)

    def to_text(self) -> str:
        """The file's exact content (ASCII), ending in its own digest."""
        data = self.to_dict()
        return _spell({**data, _DIGEST_FIELD: _digest(data)})

    @classmethod
    def from_dict(cls, data: Dict[str, Any], where: str) -> "Manifest":
        """The strict inverse of :meth:`to_dict`. PointDamagedError names the first wrong field of ``where``."""
        fault = _fault(data)
        if fault:
            raise _damaged(where, fault)
        return cls(**{**data, "disks": [ManifestDisk(**disk) for disk in data["disks"]]})

    @classmethod
    def from_bytes(cls, content: bytes, where: str) -> "Manifest":
        """Read a stored manifest. ``where`` names the point in errors.

        PointDamagedError unless it is byte by byte what was written; SchemaUnknownError if a newer version wrote it.
        """
        data = _parse(content, where)
        _require_known_schema(data, where)
        stored = data.pop(_DIGEST_FIELD, None)
        if stored != _digest(data):
            raise _damaged(where, "its content does not match its own digest")
        manifest = cls.from_dict(data, where)
        if manifest.to_text().encode("ascii") != content:
            raise _damaged(where, "it is not spelled as this product writes it")
        return manifest


_DISK = {
    "key": f.matching(f.DISK_KEY, "a disk key"),
    "id": f.text,
    "size_bytes": f.number(1),
    "level": f.one_of(FULL, INCREMENTAL),
    "reason": f.text,
    "change_id": f.text,
    "parent_id": f.matching(f.POINT_ID, "a point id", empty=True),
    "parent_root": f.digest(empty=True),
    "bytes_read": f.number(),
    "bytes_written": f.number(),
    "bytes_zeroed": f.number(),
    "hash_algorithm": f.algorithm(),
    "block_bytes": f.block_bytes,
    "root": f.digest(),
    "file": f.file_name,
    "file_size": f.number(1),
    "file_digest": f.digest(),
    "hashes_file": f.file_name,
    "hashes_size": f.number(),
    "hashes_sha256": f.sha256(),
}
_CONSISTENCY = {"reached": f.text, "wanted": f.text, "reason": f.text}
_NATIVE = {"format": f.text, "file": f.file_name, "size": f.number(), "sha256": f.sha256()}
_NVRAM = {"file": f.file_name, "size": f.number(), "sha256": f.sha256()}
_VERIFIED = {"at": f.time, "method": f.one_of("direct", "cached"), "reason": f.text}


def _disks(value: Any) -> str:
    if not isinstance(value, list) or not value:
        return "is not a list with at least one disk"
    for position, disk in enumerate(value):
        fault = f.first_fault(disk, _DISK)
        if fault:
            return f"[{position}] {fault}"
    return ""


_POINT = {
    "schema_version": f.number(1),
    "point_id": f.matching(f.POINT_ID, "a point id"),
    "machine_key": f.matching(f.MACHINE_KEY, "a machine key"),
    "repository_id": f.matching(f.REPOSITORY_ID, "a repository id"),
    "job_id": f.matching(f.JOB_ID, "a job id"),
    "generation": f.number(1),
    "created_at": f.time,
    "committed_at": f.time,
    "level": f.one_of(FULL, INCREMENTAL),
    "parent_id": f.matching(f.POINT_ID, "a point id", empty=True),
    "chain_depth": f.number(),
    "consistency": f.record(_CONSISTENCY),
    "machine": f.machine,
    "native": f.record(_NATIVE, nullable=True),
    "nvram": f.record(_NVRAM, nullable=True),
    "tpm": f.record({"present": f.boolean, "covered": f.exactly_false}),
    "not_covered": f.texts,
    "skipped_disks": f.list_of_text_by_text,
    "disks": _disks,
    "verified": f.record(_VERIFIED),
    "versions": f.text_by_text,
}


def _fault(data: Any) -> str:
    return f.first_fault(data, _POINT) or _contradiction(data)


def _contradiction(data: Dict[str, Any]) -> str:
    """What the fields, each good by itself, say against each other."""
    disks = data["disks"]
    names = [disk["file"] for disk in disks] + [disk["hashes_file"] for disk in disks]
    names += [data[part]["file"] for part in ("native", "nvram") if data[part] is not None]
    for what, values in (("file", names), ("disk key", [d["key"] for d in disks]), ("disk id", [d["id"] for d in disks])):
        if len(set(values)) != len(values):
            return f"names one {what} twice"
    if machine_key(data["machine"]["platform"], data["machine"]["id"]) != data["machine_key"]:
        return "has a machine_key that is not its machine's"
    incremental = [disk for disk in disks if disk["level"] == INCREMENTAL]
    if (data["level"] == INCREMENTAL) != bool(incremental):
        return f"is {data['level']} but its disks are not"
    if bool(data["parent_id"]) != bool(incremental) or bool(data["chain_depth"]) != bool(incremental):
        return "has a parent without an incremental disk, or an incremental disk without a parent"
    if data["parent_id"] == data["point_id"]:
        return "is its own parent"
    for disk in disks:
        wanted = data["parent_id"] if disk["level"] == INCREMENTAL else ""
        if disk["parent_id"] != wanted or bool(disk["parent_root"]) != bool(wanted):
            return f"has a disk {disk['key']} whose parent is not the point's"
    return ""


def _parse(content: bytes, where: str) -> Dict[str, Any]:
    if len(content) > MAXIMUM_BYTES:
        raise _damaged(where, f"it is larger than {MAXIMUM_BYTES} bytes")
    try:
        data = json.loads(content.decode("ascii"))
    except (ValueError, RecursionError) as error:
        raise _damaged(where, f"it is not JSON ({error})") from error
    if not isinstance(data, dict):
        raise _damaged(where, "it is not a JSON object")
    return data


def _require_known_schema(data: Dict[str, Any], where: str) -> None:
    version = data.get("schema_version")
    if isinstance(version, int) and version > SCHEMA_VERSION:
        raise SchemaUnknownError(
            f"Cannot read the manifest of {where}: a newer version of this product wrote it (schema {version}, this one knows up to"
            f" {SCHEMA_VERSION}). Upgrade this place; the backup was not touched.",
            details={"schema_version": version, "known": SCHEMA_VERSION},
        )


def _digest(data: Dict[str, Any]) -> str:
    return hashlib.sha256(json.dumps(data, sort_keys=True, separators=(",", ":")).encode("ascii")).hexdigest()


def _spell(data: Dict[str, Any]) -> str:
    return json.dumps(data, indent=1) + "\n"


def _damaged(where: str, fault: str) -> PointDamagedError:
    return PointDamagedError(
        f"Cannot use the manifest of {where}: {fault}. The backup is damaged; see docs/runbooks/damaged-point.md.",
        details={"fault": fault},
    )


def unreadable_manifest(machine_key_: str, point_id: str) -> Manifest:
    """What stands in a list for a manifest that cannot be read: only its place is known; generation and schema are 0."""
    day, clock = point_id[:8], point_id[9:15]
    created_at = f"{day[:4]}-{day[4:6]}-{day[6:]}T{clock[:2]}:{clock[2:4]}:{clock[4:]}Z"
    return Manifest(
        schema_version=0,
        point_id=point_id,
        machine_key=machine_key_,
        repository_id="",
        job_id="",
        generation=0,
        created_at=created_at,
        committed_at="",
        level="unknown",
        parent_id="",
        chain_depth=0,
        consistency={"reached": "", "wanted": "", "reason": ""},
        machine={},
        native=None,
        nvram=None,
        tpm={"present": False, "covered": False},
        not_covered=[],
        skipped_disks=[],
        disks=[],
        verified={},
        versions={},
    )
