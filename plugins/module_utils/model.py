# Copyright: (c) 2026, Sendense contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The platform-neutral description of a machine: what discovery returns, a manifest stores and a restore needs.

All names in here come from the platform and are hostile: they are data, never part of a path, a command line or a
template. Only ``Machine.key`` and ``Disk.key`` may become part of a file name.
"""

from __future__ import annotations

import hashlib
import re
from dataclasses import asdict, dataclass, field
from typing import Any, Dict, List, Mapping, Optional

_SAFE_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9-]{0,63}")
_DISK_KEY = re.compile(r"(?<![\w/.-])disk\d+\b(?!\.\w)")
_SAFE_INVENTORY_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,62}")


def machine_key(platform: str, machine_id: str) -> str:
    """The name of a machine in paths and leases: ``<platform>-<id>``, or a digest where the id is not path-safe."""
    if _SAFE_ID.fullmatch(machine_id):
        return f"{platform}-{machine_id.lower()}"
    return f"{platform}-x{hashlib.sha256(machine_id.encode('utf-8', 'surrogateescape')).hexdigest()[:32]}"


def inventory_name(platform: str, machine_id: str, name: str, unique: bool) -> str:
    """The inventory name: the machine's own name where it is safe and unique, else ``<platform>-<12 hex>``."""
    if unique and _SAFE_INVENTORY_NAME.fullmatch(name):
        return name
    digits = re.sub(r"[^0-9a-f]", "", machine_id.lower())
    if len(digits) < 12:
        digits = hashlib.sha256(machine_id.encode("utf-8", "surrogateescape")).hexdigest()
    return f"{platform}-{digits[:12]}"


def device_names(machine: Mapping[str, Any], ids: Mapping[str, str]) -> Dict[str, str]:
    """What a machine, as described by its manifest or snapshot, itself calls its disks; ``ids`` are the disks' ids by key."""
    known = {disk["id"]: str(disk.get("device") or "") for disk in machine.get("disks", [])}
    return {key: known.get(disk_id, "") for key, disk_id in ids.items()}


def with_devices(text: str, names: Mapping[str, str]) -> str:
    """A message in which the machine's own name of a disk stands beside each key: ``disk0 (vda)``. Names of files stay."""
    return _DISK_KEY.sub(lambda found: f"{found[0]} ({names[found[0]]})" if names.get(found[0]) else found[0], text)


@dataclass
class Disk:
    """One disk. ``size_bytes`` is the virtual size; ``allocated_bytes`` an upper bound of its data, if known."""

    id: str
    """Stable identity across runs (serial, backing uuid); never its position."""
    size_bytes: int
    key: str = ""
    """``disk0``, ``disk1``... within one job: what exports and files are named after."""
    device: str = ""
    """The platform's own short name in the machine, for example ``vda``."""
    bus: str = "virtio"
    format: str = ""
    path: str = ""
    serial: str = ""
    boot_order: Optional[int] = None
    allocated_bytes: Optional[int] = None
    tracking: bool = True
    """Whether the platform can track changes of this disk."""
    tracking_reason: str = ""
    """Why not, if not."""
    excluded: str = ""
    """Why the platform cannot snapshot this disk; empty if it can."""


@dataclass
class Nic:
    """One network interface."""

    mac: str = ""
    model: str = "virtio"
    network_type: str = "network"
    network: str = ""


@dataclass
class Machine:
    """One machine as its platform describes it now."""

    platform: str
    id: str
    name: str
    power: str = "unknown"
    """``running``, ``paused``, ``off`` or ``unknown``."""
    cpus: int = 1
    memory_bytes: int = 0
    architecture: str = "x86_64"
    machine_type: str = ""
    firmware: str = "bios"
    """``bios`` or ``uefi``."""
    secure_boot: bool = False
    nvram_path: str = ""
    tpm: bool = False
    guest_agent: bool = False
    """Whether a guest agent is connected now."""
    disks: List[Disk] = field(default_factory=list)
    nics: List[Nic] = field(default_factory=list)
    tags: List[str] = field(default_factory=list)
    policy: str = ""
    snapshots: List[str] = field(default_factory=list)
    """Names of snapshots that are not ours."""
    persistent: bool = True

    @property
    def key(self) -> str:
        """The machine's name in paths and leases."""
        return machine_key(self.platform, self.id)

    def to_dict(self) -> Dict[str, Any]:
        """Plain data for JSON."""
        return asdict(self)

    @classmethod
    def from_dict(cls, data: Dict[str, Any]) -> "Machine":
        """The inverse of :meth:`to_dict`; unknown fields of a newer schema are ignored."""
        values = {name: data[name] for name in cls.__dataclass_fields__ if name in data}
        values["disks"] = [_known(Disk, disk) for disk in data.get("disks", [])]
        values["nics"] = [_known(Nic, nic) for nic in data.get("nics", [])]
        return cls(**values)


def _known(cls: Any, data: Dict[str, Any]) -> Any:
    return cls(**{name: data[name] for name in cls.__dataclass_fields__ if name in data})
