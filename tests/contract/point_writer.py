# Copyright: (c) 2026, Sendense contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Backups for the contract suite: a guest in memory whose blocks are written into real images by qemu-io.

The block hashes come from the guest's own bytes, never from what was stored, and what was stored is read by qemu-img.
"""

from __future__ import annotations

import hashlib
import os
import subprocess
import tempfile
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Dict, List, Optional, Set

from ansible_collections.sendense.platform.plugins.module_utils.datapath.blockhashes import BlockHashWriter
from ansible_collections.sendense.platform.plugins.module_utils.datapath.extents import Run
from ansible_collections.sendense.platform.plugins.module_utils.datapath.hashing import BLOCK_BYTES, DEFAULT_ALGORITHM, algorithm
from ansible_collections.sendense.platform.plugins.module_utils.datapath.images import node_filename
from ansible_collections.sendense.platform.plugins.module_utils.model import Disk, Machine
from ansible_collections.sendense.platform.plugins.module_utils.repositories._base import NewDisk, NewPoint, OpenPoint, Point, Repository
from ansible_collections.sendense.platform.plugins.module_utils.repositories.seal import Sealing, seal

MACHINE_ID = "6c9ce2d5-4f5e-4b7f-9a49-8c6f0ab1a001"
OTHER_MACHINE_ID = "6c9ce2d5-4f5e-4b7f-9a49-8c6f0ab1a002"
#: One disk of whole blocks, one whose last block is short, as real disks are.
SIZES = {"serial-a": 8 * BLOCK_BYTES, "serial-b": 3 * BLOCK_BYTES + 512}
NVRAM = b"firmware variables\x00" * 100


@dataclass
class GuestDisk:
    """A disk of the guest: every block is one repeated byte, 0 for a hole; ``changed`` since the last backup."""

    id: str
    size: int
    blocks: List[int] = field(default_factory=list)
    changed: Set[int] = field(default_factory=set)

    def __post_init__(self) -> None:
        self.blocks = self.blocks or [0] * -(-self.size // BLOCK_BYTES)

    def write(self, block: int, value: int) -> None:
        """The guest overwrites one block; value 0 is a trim or a write of zeros."""
        self.blocks[block] = value
        self.changed.add(block)

    def length(self, block: int) -> int:
        """Bytes of a block: the last one may be short."""
        return min(BLOCK_BYTES, self.size - block * BLOCK_BYTES)

    def content(self) -> bytes:
        """All bytes of the disk."""
        return b"".join(bytes([value]) * self.length(block) for block, value in enumerate(self.blocks))


class Guest:
    """A machine with disks, and the backups that are made of it."""

    def __init__(self, machine_id: str = MACHINE_ID, sizes: Optional[Dict[str, int]] = None, name: str = "web01") -> None:
        self.disks = [GuestDisk(disk_id, size) for disk_id, size in (sizes or SIZES).items()]
        self.machine = Machine(
            platform="memory",
            id=machine_id,
            name=name,
            firmware="uefi",
            tpm=True,
            disks=[Disk(id=disk.id, size_bytes=disk.size, key=f"disk{at}") for at, disk in enumerate(self.disks)],
        )
        self.key = self.machine.key
        self.jobs = 0
        self.contents: Dict[str, Dict[str, bytes]] = {}

    def unplug(self, disk_id: str) -> GuestDisk:
        """Take a disk out of the machine; the keys of the others move up, as they do in real machines."""
        disk = next(one for one in self.disks if one.id == disk_id)
        self.disks.remove(disk)
        self._describe()
        return disk

    def plug(self, disk_id: str, size: int) -> GuestDisk:
        """Put a new disk into the machine."""
        self.disks.append(GuestDisk(disk_id, size))
        self._describe()
        return self.disks[-1]

    def _describe(self) -> None:
        self.machine.disks = [Disk(id=disk.id, size_bytes=disk.size, key=f"disk{at}") for at, disk in enumerate(self.disks)]

    def scribble(self, seed: int) -> None:
        """Write somewhere on every disk: data, and zeros over data."""
        for disk in self.disks:
            disk.write(seed % len(disk.blocks), 1 + seed % 255)
            disk.write((seed * 3 + 1) % len(disk.blocks), 1 + (seed * 7) % 255)
            disk.write((seed + 2) % len(disk.blocks), 0)
            disk.write(len(disk.blocks) - 1, 1 + (seed * 11) % 255)

    def next_job(self) -> "Job":
        """A job like no other; its snapshot is one minute after the last."""
        self.jobs += 1
        job_id = f"{self.jobs:08x}{hashlib.sha256(self.key.encode()).hexdigest()[:24]}"
        return Job(self, job_id, f"2026-11-20T{12 + self.jobs // 60:02d}:{self.jobs % 60:02d}:00Z")

    def backup(self, repository: Repository, parent_id: str = "", fulls: Optional[Set[str]] = None) -> Point:
        """One whole backup. ``fulls`` are ids of disks that are read in full although there is a parent."""
        return self.next_job().run(repository, parent_id, fulls or set())


class Job:
    """One backup, step by step."""

    def __init__(self, guest: Guest, job_id: str, created_at: str) -> None:
        self.guest = guest
        self.job_id = job_id
        self.created_at = created_at
        self.generation = 0
        self.parent_id = ""
        self.levels: Dict[str, str] = {}
        self.contents = {disk.id: disk.content() for disk in guest.disks}

    def run(self, repository: Repository, parent_id: str = "", fulls: Optional[Set[str]] = None) -> Point:
        """All steps."""
        point = self.open(repository, parent_id, fulls)
        return self.finish(repository, point)

    def open(self, repository: Repository, parent_id: str = "", fulls: Optional[Set[str]] = None) -> OpenPoint:
        """Raise the generation and create the point."""
        self.generation = repository.raise_generation(self.guest.key)
        return self.create(repository, parent_id, fulls)

    def new_point(self, parent_id: str = "", fulls: Optional[Set[str]] = None) -> NewPoint:
        """What is about to be written."""
        self.parent_id = parent_id
        self.levels = {disk.id: "incremental" if parent_id and disk.id not in (fulls or set()) else "full" for disk in self.guest.disks}
        disks = [
            NewDisk(f"disk{at}", disk.id, disk.size, self.levels[disk.id], "change_tracking" if parent_id else "no_previous_backup")
            for at, disk in enumerate(self.guest.disks)
        ]
        return NewPoint(self.guest.key, self.job_id, self.generation, self.created_at, disks, parent_id, 1 << 20)

    def create(self, repository: Repository, parent_id: str = "", fulls: Optional[Set[str]] = None) -> OpenPoint:
        """Create the point with the generation that the job has."""
        return repository.create(self.new_point(parent_id, fulls))

    def finish(self, repository: Repository, point: OpenPoint) -> Point:
        """Write, make durable, seal, commit."""
        self.write(point)
        repository.reread_images(point)
        with tempfile.TemporaryDirectory() as work:
            manifest = seal(repository, point, self.sealing(Path(work)))
        committed = repository.commit(point, manifest)
        self.guest.contents[committed.manifest.point_id] = self.contents
        for disk in self.guest.disks:
            disk.changed.clear()
        return committed

    def held(self, disk: GuestDisk) -> List[int]:
        """Blocks that this point holds: all data of a full; of an incremental what was written since its parent."""
        if self.levels[disk.id] == "incremental":
            before = self.guest.contents[self.parent_id][disk.id]
            now = self.contents[disk.id]
            differing = {at // BLOCK_BYTES for at in range(0, disk.size, BLOCK_BYTES) if before[at] != now[at]}
            return sorted(disk.changed | differing)
        return [block for block, value in enumerate(disk.blocks) if value]

    def write(self, point: OpenPoint) -> None:
        """Put the held blocks into the images, with real qemu."""
        for at, disk in enumerate(self.guest.disks):
            commands: List[str] = []
            for block in self.held(disk):
                value = disk.blocks[block]
                order = f"-P {value}" if value else "-z"
                commands += ["-c", f"write {order} {block * BLOCK_BYTES} {disk.length(block)}"]
            argv = ["qemu-io", "-t", "unsafe", *(commands or ["-c", "flush"]), node_filename(point.images[f"disk{at}"])]
            subprocess.run(argv, check=True, capture_output=True, timeout=60)

    def sealing(self, work: Path) -> Sealing:
        """What a job knows at its end, with the hash files in ``work``."""
        (work / "nvram").write_bytes(NVRAM)
        hashes = {f"disk{at}": self.hashes(disk, str(work / f"disk{at}.hashes")) for at, disk in enumerate(self.guest.disks)}
        return Sealing(
            snapshot=self.snapshot(),
            copied={key: {"bytes_read": 65536, "bytes_written": 65536, "bytes_zeroed": 0} for key in hashes},
            hashes=hashes,
            nvram_path=str(work / "nvram"),
        )

    def snapshot(self) -> Dict[str, Any]:
        """As a source describes what it opened."""
        return {
            "machine": self.guest.machine.to_dict(),
            "job_id": self.job_id,
            "created_at": self.created_at,
            "consistency": "crash",
            "consistency_wanted": "filesystem",
            "consistency_reason": "no guest agent",
            "native_format": "memory-xml",
            "native_config": f"<domain><name>{self.guest.machine.name}</name></domain>",
            "skipped_disks": [],
            "disks": [
                {
                    "key": f"disk{at}",
                    "disk_id": disk.id,
                    "size_bytes": disk.size,
                    "level": self.levels[disk.id],
                    "reason": "change_tracking" if self.levels[disk.id] == "incremental" else "no_previous_backup",
                    "change_id": f"{self.guest.jobs}-{disk.id}",
                }
                for at, disk in enumerate(self.guest.disks)
            ],
        }

    def hashes(self, disk: GuestDisk, path: str) -> str:
        """The hash file of what this point holds, from the guest's own bytes."""
        hasher = algorithm(DEFAULT_ALGORITHM)
        held = self.held(disk)
        runs: List[Run] = []
        for block in held:
            if runs and runs[-1].first + runs[-1].blocks == block:
                runs[-1] = Run(runs[-1].first, runs[-1].blocks + 1)
            else:
                runs.append(Run(block, 1))
        writer = BlockHashWriter(path, DEFAULT_ALGORITHM, disk.size, self.levels[disk.id], runs)
        for position, block in enumerate(held):
            writer.put(position, hasher.digest_of(bytes([disk.blocks[block]]) * disk.length(block)))
        return writer.finish()


def read_disks(repository: Repository, point: Point) -> Dict[str, bytes]:
    """The content of every disk of a committed point by disk id, read by qemu-img through the nodes of the repository."""
    manifest = point.manifest
    nodes = repository.open_for_read(manifest.machine_key, manifest.point_id)
    return {disk.id: read_node(nodes[disk.key]) for disk in manifest.disks}


def read_node(node: Dict[str, Any]) -> bytes:
    """All bytes of a block node."""
    with tempfile.TemporaryDirectory() as work:
        path = os.path.join(work, "raw")
        subprocess.run(["qemu-img", "convert", "-O", "raw", node_filename(node), path], check=True, capture_output=True, timeout=60)
        return Path(path).read_bytes()
