# Copyright: (c) 2026, Sendense contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The libvirt description of a restored machine, built as a tree, so that any name is only ever text."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import Dict, List, Optional
from xml.etree import ElementTree

from ...model import Disk, Machine, Nic
from .._base import TargetDisk
from .discovery import AGENT_CHANNEL
from .firmware import Firmware
from .xmltext import NAMESPACE, PREFIX, parse, qualified

_BUS_PREFIX = {"virtio": "vd", "scsi": "sd", "sata": "sd", "usb": "sd", "ide": "hd"}
_DEVICE = re.compile(r"(vd|sd|hd)[a-z]{1,3}")

ElementTree.register_namespace(PREFIX, NAMESPACE)


@dataclass
class DomainPlan:
    """Everything that a definition is made of; ``machine`` is the source's description."""

    machine: Machine
    name: str
    uuid: str
    job_id: str
    point_id: str
    format: str
    domain_type: str
    machine_type: str
    disks: List[TargetDisk]
    nics: List[Nic] = field(default_factory=list)
    keep_mac: bool = False
    firmware: Optional[Firmware] = None
    nvram_path: str = ""
    console_log: str = ""


@dataclass(frozen=True)
class RestoreMark:
    """What a restored machine says of itself; ``disks`` are the keys that were restored, sorted, separated by spaces."""

    point_id: str
    job_id: str
    disks: str


def restore_mark(xml: str) -> Optional[RestoreMark]:
    """The mark in a domain's XML, or None if the machine is not the result of a restore."""
    element = parse(xml).find(f"./metadata/{qualified('machine')}/{qualified('restored')}")
    if element is None:
        return None
    return RestoreMark(element.get("point", ""), element.get("job", ""), element.get("disks", ""))


def build(plan: DomainPlan) -> str:
    """The domain XML."""
    machine = plan.machine
    root = ElementTree.Element("domain", type=plan.domain_type)
    _text(root, "name", plan.name)
    _text(root, "uuid", plan.uuid)
    _metadata(root, plan)
    _text(root, "memory", str(machine.memory_bytes), unit="b")
    _text(root, "vcpu", str(machine.cpus))
    _system(root, plan)
    features = ElementTree.SubElement(root, "features")
    ElementTree.SubElement(features, "acpi")
    if machine.architecture in ("x86_64", "i686"):
        ElementTree.SubElement(features, "apic")
    if plan.firmware is not None and plan.firmware.secure_boot:
        ElementTree.SubElement(features, "smm", state="on")
    if plan.domain_type == "kvm":
        ElementTree.SubElement(root, "cpu", mode="host-model")
    ElementTree.SubElement(root, "clock", offset="utc")
    for event, action in (("on_poweroff", "destroy"), ("on_reboot", "restart"), ("on_crash", "destroy")):
        _text(root, event, action)
    _devices(root, plan)
    return ElementTree.tostring(root, encoding="unicode")


def _metadata(root: ElementTree.Element, plan: DomainPlan) -> None:
    """libvirt keeps one element per namespace, so tags, policy and the mark of the restore share it."""
    marks = ElementTree.SubElement(ElementTree.SubElement(root, "metadata"), qualified("machine"))
    for tag in plan.machine.tags:
        ElementTree.SubElement(marks, qualified("tag")).text = tag
    if plan.machine.policy:
        ElementTree.SubElement(marks, qualified("policy")).text = plan.machine.policy
    keys = " ".join(sorted(disk.key for disk in plan.disks))
    ElementTree.SubElement(marks, qualified("restored"), point=plan.point_id, job=plan.job_id, disks=keys)


def _system(root: ElementTree.Element, plan: DomainPlan) -> None:
    system = ElementTree.SubElement(root, "os")
    kind = _text(system, "type", "hvm", arch=plan.machine.architecture)
    if plan.machine_type:
        kind.set("machine", plan.machine_type)
    if plan.firmware is not None:
        loader = _text(system, "loader", plan.firmware.loader, readonly="yes", type="pflash")
        if plan.firmware.secure_boot:
            loader.set("secure", "yes")
        _text(system, "nvram", plan.nvram_path)
    if not _boot_orders(plan):
        ElementTree.SubElement(system, "boot", dev="hd")


def _boot_orders(plan: DomainPlan) -> Dict[str, int]:
    """Boot order by key, made gapless: libvirt refuses duplicates and zero."""
    restored = {disk.key for disk in plan.disks}
    ordered = sorted(
        (disk.boot_order, position, disk.key)
        for position, disk in enumerate(plan.machine.disks)
        if disk.boot_order and disk.key in restored
    )
    return {key: position + 1 for position, (_order, _place, key) in enumerate(ordered)}


def _devices(root: ElementTree.Element, plan: DomainPlan) -> None:
    devices = ElementTree.SubElement(root, "devices")
    by_key = {disk.key: disk for disk in plan.machine.disks}
    orders = _boot_orders(plan)
    names = device_names([by_key[made.key] for made in plan.disks])
    for made, device in zip(plan.disks, names):
        _disk(devices, plan, by_key[made.key], made, device, orders.get(made.key))
    if any(_bus(by_key[made.key]) == "scsi" for made in plan.disks):
        ElementTree.SubElement(devices, "controller", type="scsi", index="0", model="virtio-scsi")
    for nic in plan.nics:
        _nic(devices, nic, plan.keep_mac)
    _console(devices, plan.console_log)
    channel = ElementTree.SubElement(devices, "channel", type="unix")
    ElementTree.SubElement(channel, "target", type="virtio", name=AGENT_CHANNEL)


def device_names(disks: List[Disk]) -> List[str]:
    """A name for each disk in the machine: its own where that is possible and free, else the next of its bus."""
    taken = [disk.device for disk in disks if _DEVICE.fullmatch(disk.device) and disk.device.startswith(_BUS_PREFIX[_bus(disk)])]
    names: List[str] = []
    for disk in disks:
        prefix = _BUS_PREFIX[_bus(disk)]
        if disk.device in taken and disk.device not in names:
            names.append(disk.device)
            continue
        letters = (prefix + _letters(number) for number in range(702))
        names.append(next(name for name in letters if name not in names and name not in taken))
    return names


def _letters(number: int) -> str:
    """a, b ... z, aa, ab ..."""
    first, second = divmod(number, 26)
    return (chr(96 + first) if first else "") + chr(97 + second)


def _bus(disk: Disk) -> str:
    return disk.bus if disk.bus in _BUS_PREFIX else "virtio"


def _disk(devices: ElementTree.Element, plan: DomainPlan, disk: Disk, made: TargetDisk, device: str, order: Optional[int]) -> None:
    element = ElementTree.SubElement(devices, "disk", type="file", device="disk")
    ElementTree.SubElement(element, "driver", name="qemu", type=plan.format, discard="unmap")
    ElementTree.SubElement(element, "source", file=made.path)
    ElementTree.SubElement(element, "target", dev=device, bus=_bus(disk))
    if disk.serial:
        _text(element, "serial", disk.serial)
    if order is not None:
        ElementTree.SubElement(element, "boot", order=str(order))


def _nic(devices: ElementTree.Element, nic: Nic, keep_mac: bool) -> None:
    element = ElementTree.SubElement(devices, "interface", type=nic.network_type)
    if keep_mac and nic.mac:
        ElementTree.SubElement(element, "mac", address=nic.mac)
    if nic.network_type in ("network", "bridge"):
        ElementTree.SubElement(element, "source", {nic.network_type: nic.network})
    if nic.model:
        ElementTree.SubElement(element, "model", type=nic.model)


def _console(devices: ElementTree.Element, log: str) -> None:
    serial = ElementTree.SubElement(devices, "serial", type="file" if log else "pty")
    if log:
        ElementTree.SubElement(serial, "source", path=log)
    ElementTree.SubElement(serial, "target", port="0")


def _text(parent: ElementTree.Element, tag: str, text: str, **attributes: str) -> ElementTree.Element:
    element = ElementTree.SubElement(parent, tag, attributes)
    element.text = text
    return element
