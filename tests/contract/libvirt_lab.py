# Copyright: (c) 2026, Sendense contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The lab's libvirt guest as the contract suites want it: small disks, written to through its running qemu."""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path
from typing import Any, Dict, List

import libvirt

from ansible_collections.sendense.platform.plugins.module_utils.platforms import registry
from ansible_collections.sendense.platform.plugins.module_utils.platforms._base import Source
from tests.contract.source_contract import SourceLab
from tests.lab import disks as diskfiles
from tests.lab.disks import MIB, ODD_BYTES, DiskSpec
from tests.lab.guest import Guest

#: libvirt refuses a slash in a name; everything else that hurts is in here.
HOSTILE_NAME = "{{ lookup('pipe','touch pwned') }}; rm -rf \"$HOME\" -- <&>'"


def tiny_disks() -> "list[DiskSpec]":
    """Two that can be tracked, one of them of an odd size, and a raw one."""
    return [DiskSpec("vda", 2 * MIB), DiskSpec("vdb", MIB + ODD_BYTES), DiskSpec("vdc", MIB, "raw")]


class LibvirtSourceLab(SourceLab):
    """A guest whose processor is stopped, so that only the test writes. ``work_dir`` is short: sockets lie in it."""

    def __init__(self, guest: Guest, **connection: Any) -> None:
        self.guest = guest
        self.machine_id = guest.uuid
        self.work_dir = Path(tempfile.mkdtemp(prefix="w-", dir=guest.host.dir))
        self.connection: Dict[str, Any] = {"uri": guest.host.uri, "domain_type": "qemu", "agent_timeout": 5, **connection}
        # The lab's own way to write taints the domain; what the product does must not.
        guest.flush()

    def source(self) -> Source:
        return registry.source("libvirt", self.connection)

    def write(self, disk: int, pattern: int, offset: int, length: int) -> None:
        target = list(self.guest.disks)[disk]
        if pattern:
            self.guest.write(target, pattern, offset, length)
        else:
            self.guest.zero(target, offset, length)

    def content(self, disk: int) -> bytes:
        if self.guest.active:
            self.guest.flush()
        target = list(self.guest.disks)[disk]
        copy = self.guest.copy_disk(target, self.guest.dir / f"copy-{target}.raw")
        try:
            return copy.read_bytes()
        finally:
            copy.unlink()

    def power(self, state: str) -> None:
        if state == "off":
            self.guest.destroy()
        elif not self.guest.active:
            self.guest.start(paused=True)

    def state(self) -> str:
        domain = self.guest.domain
        xml = domain.XMLDesc(0)
        names = sorted(checkpoint.getName() for checkpoint in domain.listAllCheckpoints())
        bitmaps = [str(diskfiles.info(disk.image).get("format-specific")) for disk in self.guest.disks.values()]
        messages = domain.messages(libvirt.VIR_DOMAIN_MESSAGE_TAINTING) if domain.isActive() else []
        files = sorted(path.name for path in self.work_dir.iterdir())
        return repr((xml, names, bitmaps, messages, files))

    def remove(self) -> None:
        """Forget all tracking, so that the guest is as new, and check that no job left anything in the work directory."""
        domain = self.guest.domain
        orphan = not domain.isActive()
        if orphan:
            self.guest.start(paused=True)
        for checkpoint in domain.listAllCheckpoints():
            checkpoint.delete(libvirt.VIR_DOMAIN_CHECKPOINT_DELETE_METADATA_ONLY if orphan else 0)
        if any(self.bitmaps(target) for target in self.guest.disks):
            self._remove_orphans()
        left = sorted(path.name for path in self.work_dir.iterdir())
        shutil.rmtree(self.work_dir)
        assert left == []

    def bitmaps(self, target: str) -> List[str]:
        """The bitmaps that an image file lists."""
        data = diskfiles.info(self.guest.disks[target].image).get("format-specific", {}).get("data", {})
        return [bitmap["name"] for bitmap in data.get("bitmaps", [])]

    def checkpoints(self) -> List[str]:
        """The checkpoints that libvirt knows."""
        return sorted(checkpoint.getName() for checkpoint in self.guest.domain.listAllCheckpoints())

    def remove_bitmap(self, target: str, name: str) -> None:
        """Behind everybody's back; the guest must be off."""
        diskfiles.run(["qemu-img", "bitmap", "--remove", "-f", "qcow2", "--", str(self.guest.disks[target].path), name])

    def _remove_orphans(self) -> None:
        self.guest.destroy()
        for target in self.guest.disks:
            for name in self.bitmaps(target):
                self.remove_bitmap(target, name)
        self.guest.start(paused=True)
