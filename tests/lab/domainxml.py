# Copyright: (c) 2026, Sendense contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The libvirt description of a lab guest, built as a tree so that any name is only ever text."""

from __future__ import annotations

import xml.etree.ElementTree as ET
from dataclasses import dataclass
from pathlib import Path
from typing import Optional, Sequence

from .disks import LabDisk
from .paths import LabError

_MACHINES = {"bios": "pc", "uefi": "q35"}
_OVMF = "/usr/share/OVMF"
_OVMF_PAIRS = (("OVMF_CODE_4M.fd", "OVMF_VARS_4M.fd"), ("OVMF_CODE.fd", "OVMF_VARS.fd"))
AGENT_CHANNEL = "org.qemu.guest_agent.0"
#: How many disks libvirt puts on one virtio-scsi controller; without scsi disks a machine has place for some twenty disks.
DISKS_PER_CONTROLLER = 15


@dataclass(frozen=True)
class GuestSpec:
    """What a guest is made of, apart from its disks. ``networks`` get one virtio NIC each."""

    name: str
    uuid: str
    firmware: str = "bios"
    memory_mib: int = 192
    vcpus: int = 1
    networks: Sequence[str] = ()
    agent: bool = True
    nvram: Optional[Path] = None
    serial_log: Optional[Path] = None


def firmware_files() -> "tuple[Path, Path]":
    """The distribution's UEFI code and the template of its variables. LabError if it is not installed."""
    for code, variables in _OVMF_PAIRS:
        if Path(_OVMF, code).is_file() and Path(_OVMF, variables).is_file():
            return Path(_OVMF, code), Path(_OVMF, variables)
    raise LabError("UEFI firmware is not installed; run ./scripts/bootstrap.sh")


def domain_xml(spec: GuestSpec, disks: Sequence[LabDisk]) -> str:
    """The domain XML: TCG only, no graphics, serial console to a file, guest-agent channel."""
    root = ET.Element("domain", type="qemu")
    _text(root, "name", spec.name)
    _text(root, "uuid", spec.uuid)
    _text(root, "memory", str(spec.memory_mib), unit="MiB")
    _text(root, "vcpu", str(spec.vcpus))
    _operating_system(root, spec)
    features = ET.SubElement(root, "features")
    ET.SubElement(features, "acpi")
    ET.SubElement(root, "clock", offset="utc")
    for event, action in (("on_poweroff", "destroy"), ("on_reboot", "restart"), ("on_crash", "destroy")):
        _text(root, event, action)
    devices = ET.SubElement(root, "devices")
    _scsi_controllers(devices, disks)
    for disk in disks:
        _disk(devices, disk)
    for network in spec.networks:
        nic = ET.SubElement(devices, "interface", type="network")
        ET.SubElement(nic, "source", network=network)
        ET.SubElement(nic, "model", type="virtio")
    _consoles(devices, spec)
    return ET.tostring(root, encoding="unicode")


def _operating_system(root: ET.Element, spec: GuestSpec) -> None:
    system = ET.SubElement(root, "os")
    _text(system, "type", "hvm", arch="x86_64", machine=_MACHINES[spec.firmware])
    if spec.firmware == "uefi":
        code, variables = firmware_files()
        _text(system, "loader", str(code), readonly="yes", type="pflash")
        _text(system, "nvram", str(spec.nvram), template=str(variables))
    ET.SubElement(system, "boot", dev="hd")


def _scsi_controllers(devices: ET.Element, disks: Sequence[LabDisk]) -> None:
    """Enough of them that libvirt need not add any of its own, which would be of another model."""
    scsi = sum(disk.bus == "scsi" for disk in disks)
    for index in range(-(-scsi // DISKS_PER_CONTROLLER)):
        ET.SubElement(devices, "controller", type="scsi", index=str(index), model="virtio-scsi")


def _disk(devices: ET.Element, disk: LabDisk) -> None:
    element = ET.SubElement(devices, "disk", type="file", device="disk")
    ET.SubElement(element, "driver", name="qemu", type=disk.format, discard="unmap")
    ET.SubElement(element, "source", file=str(disk.path))
    ET.SubElement(element, "target", dev=disk.target, bus=disk.bus)
    _text(element, "serial", disk.serial)


def _consoles(devices: ET.Element, spec: GuestSpec) -> None:
    if spec.serial_log is not None:
        devices.append(serial_file(spec.serial_log))
    if spec.agent:
        channel = ET.SubElement(devices, "channel", type="unix")
        ET.SubElement(channel, "target", type="virtio", name=AGENT_CHANNEL)
    ET.SubElement(devices, "memballoon", model="none")


def serial_file(log: Path) -> ET.Element:
    """A serial port whose output goes to a file, emptied at every start."""
    serial = ET.Element("serial", type="file")
    ET.SubElement(serial, "source", path=str(log))
    ET.SubElement(serial, "target", port="0")
    return serial


def _text(parent: ET.Element, tag: str, text: str, **attributes: str) -> None:
    ET.SubElement(parent, tag, attributes).text = text
