# Copyright: (c) 2026, Sendense contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Manifests for unit tests, without any storage behind them."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import List

from ansible_collections.sendense.platform.plugins.module_utils.catalog.manifest import Manifest, ManifestDisk
from ansible_collections.sendense.platform.plugins.module_utils.model import Disk, Machine

MACHINE = Machine(platform="memory", id="a", name="web01", disks=[Disk(id="serial-a", size_bytes=131072)])


def point_id(number: int) -> str:
    """The id of the n-th point."""
    return f"20261120T12{number // 60:02d}{number % 60:02d}Z-{number:08x}"


def a_disk(
    key: str = "disk0", disk_id: str = "serial-a", root: str = "0" * 62 + "01", parent: str = "", parent_root: str = ""
) -> ManifestDisk:
    """A disk; incremental if it has a parent."""
    return ManifestDisk(
        key=key,
        id=disk_id,
        size_bytes=131072,
        level="incremental" if parent else "full",
        reason="change_tracking" if parent else "no_previous_backup",
        change_id=f"change-{root[-2:]}",
        parent_id=parent,
        parent_root=parent_root,
        bytes_read=65536,
        bytes_written=65536,
        bytes_zeroed=0,
        hash_algorithm="xxh3_128",
        block_bytes=65536,
        root=root,
        file=f"{key}.qcow2",
        file_size=262144,
        file_digest="ab" * 16,
        hashes_file=f"{key}.hashes",
        hashes_size=128,
        hashes_sha256="cd" * 32,
    )


def a_manifest(number: int = 1, parent: int = 0, generation: int = 0) -> Manifest:
    """The n-th point, full or standing on the point number ``parent``."""
    root, parent_root = f"{number:064x}", f"{parent:064x}" if parent else ""
    parent_id = point_id(parent) if parent else ""
    return Manifest(
        schema_version=1,
        point_id=point_id(number),
        machine_key=MACHINE.key,
        repository_id="7d0ff0a4-0d8c-4b57-9f0e-1f1f2d2a3b4c",
        job_id=f"{number:032x}",
        generation=generation or number,
        created_at=f"2026-11-20T12:{number // 60:02d}:{number % 60:02d}Z",
        committed_at="2026-11-20T13:00:00Z",
        level="incremental" if parent else "full",
        parent_id=parent_id,
        chain_depth=number - 1 if parent else 0,
        consistency={"reached": "crash", "wanted": "crash", "reason": ""},
        machine=MACHINE.to_dict(),
        native={"format": "memory-xml", "file": "machine.native", "size": 10, "sha256": "ef" * 32},
        nvram=None,
        tpm={"present": False, "covered": False},
        not_covered=[],
        skipped_disks=[{"disk_id": "serial-x", "reason": "shared"}],
        disks=[a_disk(root=root, parent=parent_id, parent_root=parent_root)],
        verified={"at": "2026-11-20T13:00:00Z", "method": "direct", "reason": ""},
        versions={"python": "3.11.2"},
    )


@dataclass
class ListedPoint:
    """A point as a repository lists it, as far as the decision looks."""

    manifest: Manifest
    status: str = "ok"
    distrusted: str = ""


def chain_of_points(length: int) -> List[ListedPoint]:
    """A full and its incrementals, oldest first."""
    return [ListedPoint(a_manifest(number, number - 1)) for number in range(1, length + 1)]


def reparented(manifest: Manifest, parent: str, parent_root: str) -> Manifest:
    """The same point, said to stand on another."""
    return replace(manifest, parent_id=parent, disks=[replace(manifest.disks[0], parent_id=parent, parent_root=parent_root)])
