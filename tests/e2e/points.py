# Copyright: (c) 2026, Sendense contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Points of a repository as a person with qemu-img sees them: plain files, read without any code of the product."""

from __future__ import annotations

import json
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Dict, List, Mapping, Optional

import libvirt

from tests.lab import disks
from tests.lab.counters import read_counters
from tests.lab.disks import ImageFile
from tests.lab.guest import Guest
from tests.lab.host import LibvirtHost

from .site import Site


@dataclass(frozen=True)
class StoredPoint:
    """The directory of one committed point. Disks are found by their serial, which ends with the guest's target name."""

    directory: Path

    @property
    def manifest(self) -> Dict[str, Any]:
        """What the point says about itself."""
        return dict(json.loads((self.directory / "manifest.json").read_text()))

    def disk(self, target: str) -> Dict[str, Any]:
        """The manifest's entry of the disk that the guest has as ``target``."""
        (found,) = [disk for disk in self.manifest["disks"] if disk["id"].endswith(f"-{target}")]
        return dict(found)

    def image(self, target: str) -> ImageFile:
        """The disk's top layer; qemu follows the chain by the names that are written in it."""
        return ImageFile(str(self.directory / self.disk(target)["file"]), "qcow2")

    def images(self) -> List[ImageFile]:
        """All disks in the order of the machine."""
        return [ImageFile(str(self.directory / disk["file"]), "qcow2") for disk in self.manifest["disks"]]

    def counters(self) -> List[Optional[int]]:
        """What a writing guest had on its disks at the instant of the point, in the order of the machine."""
        return read_counters(self.images())

    def differing(self, references: Mapping[str, Path]) -> List[str]:
        """Targets of the disks that are not byte for byte what the raw reference of that target holds."""
        assert len(references) == len(self.manifest["disks"])
        return [target for target, path in references.items() if not disks.identical(self.image(target), ImageFile(str(path), "raw"))]

    def allocated_bytes(self, target: str) -> int:
        """What the disk's own layer occupies on the file system, whatever the manifest says."""
        return int(disks.info(self.image(target))["actual-size"])


def stored_point(repository: str, guest: Guest, point_id: str) -> StoredPoint:
    """A point of a libvirt machine in a repository directory."""
    return StoredPoint(Path(repository, "machines", f"libvirt-{guest.uuid}", "points", point_id))


def copied(point: StoredPoint, destination: Path) -> StoredPoint:
    """The same point in a copy of all points of its machine, to be damaged."""
    shutil.copytree(point.directory.parent, destination)
    return StoredPoint(destination / point.directory.name)


def plant(point: StoredPoint, target: str, other: StoredPoint) -> None:
    """Give one disk of a (copied) point the content that it has in another point: a snapshot taken too late."""
    destination = point.image(target).path
    disks.run(["qemu-img", "convert", "-f", "qcow2", "-O", "qcow2", "--", other.image(target).path, f"{destination}.new"])
    Path(f"{destination}.new").replace(destination)


def references(guest: Guest, directory: Path) -> Dict[str, Path]:
    """Copy every disk of a guest that is suspended or off to a raw file, by ``qemu-img convert -U``."""
    if guest.active:
        assert guest.domain.state()[0] == libvirt.VIR_DOMAIN_PAUSED, "a reference of a running guest is of no instant"
        guest.flush()
    directory.mkdir(parents=True)
    return {target: guest.copy_disk(target, directory / f"{target}.raw") for target in guest.disks}


def leftovers(site: Site, host: LibvirtHost) -> List[str]:
    """What jobs left behind that have all ended: in the state directories, the repositories and at the machines."""
    found = []
    for state in (site.hub_state, site.node_state):
        for name in ("jobs", "leases", "exports", "ports"):
            found += [str(path) for path in Path(state).glob(f"{name}/*") if path.name != "pool.lock"]
    found += [str(path) for path in site.directory.glob("*/machines/*/points/*") if "." in path.name]
    for domain in host.connection.listAllDomains():
        if domain.isActive() and domain.jobInfo()[0] != libvirt.VIR_DOMAIN_JOB_NONE:
            found.append(f"{domain.name()} has a running job")
    return found
