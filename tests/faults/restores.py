# Copyright: (c) 2026, Sendense contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What restores have made: machines and files are either complete and right, or not there."""

from __future__ import annotations

import tempfile
import xml.etree.ElementTree as ET
from pathlib import Path
from typing import Any, Dict, List, Optional

import libvirt

from ansible_collections.sendense.platform.plugins.module_utils.repositories._base import PointFilter
from tests.lab import disks as diskfiles
from tests.lab.disks import ImageFile
from tests.lab.host import remove_domain

from .fleet import Fleet
from .oracle import sha256

SUFFIX = "-restored"


class Restores:
    """Restores of a fleet to machines and to files in a directory of its own (or one that is given), seen from outside."""

    def __init__(self, fleet: Fleet, directory: Optional[Path] = None) -> None:
        self._fleet = fleet
        self.directory = directory or fleet.directory / "restored"
        self.directory.mkdir(exist_ok=True)

    def to_machines(self) -> Dict[str, Any]:
        """Variables of a restore of every machine to a new one that stays switched off."""
        return {
            "restore_vm_name": "{{ inventory_hostname }}" + SUFFIX,
            "restore_vm_storage": str(self.directory),
            "restore_vm_power_on": False,
        }

    def to_files(self) -> Dict[str, Any]:
        """Variables of a restore of every machine to files."""
        return {"restore_vm_directory": str(self.directory) + "/{{ inventory_hostname }}"}

    def missing(self, names: List[str]) -> List[str]:
        """O5: machines of these names that were not restored to a machine."""
        there = {domain.name() for domain in self._fleet.host.connection.listAllDomains()}
        return [f"O5 {name}: not restored" for name in names if name + SUFFIX not in there]

    def check(self) -> List[str]:
        """O1 for everything that was restored, O3 for everything that was left of a restore that did not end."""
        found: List[str] = []
        belongs: List[Path] = []
        for domain in self._domains():
            paths = self._disks(domain)
            belongs += [path for path, _format in paths]
            found += self._compare(domain.name().removesuffix(SUFFIX), paths)
        for name in self._fleet.guests:
            files = sorted((self.directory / name).glob("disk*.qcow2"))
            belongs += files
            found += self._compare(name, [(path, "qcow2") for path in files]) if files else []
        left = [path for path in self.directory.rglob("*") if path.is_file() and path not in belongs]
        return found + [f"O3 {path} was left by a restore" for path in left]

    def remove(self) -> None:
        """Delete what was restored, so that it can be restored again."""
        for domain in self._domains():
            remove_domain(domain)
        for path in sorted(self.directory.rglob("*"), reverse=True):
            path.rmdir() if path.is_dir() else path.unlink()

    def _domains(self) -> List[libvirt.virDomain]:
        known = {guest.uuid for guest in self._fleet.guests.values()}
        return [domain for domain in self._fleet.host.connection.listAllDomains() if domain.UUIDString() not in known]

    def _disks(self, domain: libvirt.virDomain) -> List[Any]:
        found = []
        for disk in ET.fromstring(domain.XMLDesc(0)).findall("./devices/disk"):
            source, driver = disk.find("source"), disk.find("driver")
            if source is not None and driver is not None:
                found.append((Path(source.get("file", "")), driver.get("type", "raw")))
        return found

    def _compare(self, name: str, paths: List[Any]) -> List[str]:
        """The disks, in order, against what the machine's last sound point holds."""
        repository, key = self._fleet.oracle.repository, self._fleet.key(name)
        # By generation: a clock that was set back makes later points look older.
        newest = max(repository.list(PointFilter(machine_key=key, status="ok")), key=lambda point: point.manifest.generation)
        held = self._fleet.oracle.references.get(newest.manifest.point_id, {})
        if len(paths) != len(newest.manifest.disks):
            return [f"O3 {name}: {len(paths)} disks were restored, {len(newest.manifest.disks)} were backed up"]
        found = []
        for number, (path, image_format) in enumerate(paths):
            with tempfile.TemporaryDirectory(prefix="sendense-restored-") as folder:
                raw = diskfiles.copy(ImageFile(str(path), image_format), Path(folder) / "raw")
                if held and sha256(raw) != held[f"disk{number}"]:
                    found.append(f"O1 {name}: restored disk{number} is not what was backed up")
        return found
