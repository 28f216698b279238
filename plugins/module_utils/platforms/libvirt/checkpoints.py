# Copyright: (c) 2026, Sendense contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Checkpoints of one machine: libvirt's register of them, the bitmaps behind them, and how to get rid of our own."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Dict, Iterable, List, Optional, Set
from xml.etree import ElementTree

from ...errors import CapabilityMissingError, SendenseError, SnapshotFailedError
from ...model import Disk, Machine
from . import monitor, qemu_img
from .client import Client, libvirt, mapped
from .naming import CheckpointName
from .xmltext import parse

MISSING, INCONSISTENT, ERROR = "tracking_missing", "tracking_inconsistent", "tracking_error"


@dataclass(frozen=True)
class Tracking:
    """The state of one disk's bitmap: ``problem`` is empty or the reason for a full; ``dirty_bytes`` None if unknown."""

    problem: str = ""
    dirty_bytes: Optional[int] = None


def listed(domain: Any) -> Set[str]:
    """The names of all checkpoints that libvirt knows, ours and others'."""
    with mapped("Cannot list the checkpoints of the machine"):
        return {checkpoint.getName() for checkpoint in domain.listAllCheckpoints()}


def holders(client: Client, domain: Any, machine: Machine) -> Dict[str, List[Disk]]:
    """Which disks have a bitmap of ours, by its name. The images say so: libvirt may have forgotten it. An unreadable one has none.

    At a remote host only libvirt can be asked, so that a bitmap which it has forgotten is not found.
    """
    if client.remote:
        return {name: _registered_disks(domain, machine, name) for name in listed(domain) if CheckpointName.parse(name) is not None}
    found: Dict[str, List[Disk]] = {}
    for disk in machine.disks:
        if disk.excluded or disk.format != "qcow2":
            continue
        try:
            names = qemu_img.info(disk.path, disk.format).bitmaps
        except SendenseError:
            continue
        for name in names:
            if CheckpointName.parse(name) is not None:
                found.setdefault(name, []).append(disk)
    return found


def devices_of(domain: Any, name: str) -> Set[str]:
    """The devices that have a bitmap in this checkpoint, as libvirt recorded it."""
    with mapped(f"Cannot read checkpoint {name}"):
        root = parse(domain.checkpointLookupByName(name).getXMLDesc(libvirt.VIR_DOMAIN_CHECKPOINT_XML_NO_DOMAIN))
    return {disk.get("name", "") for disk in root.findall("./disks/disk") if disk.get("checkpoint") == "bitmap"}


def _registered_disks(domain: Any, machine: Machine, name: str) -> List[Disk]:
    devices = devices_of(domain, name)
    return [disk for disk in machine.disks if disk.device in devices and not disk.excluded]


def can_drop(client: Client, machine: Machine) -> bool:
    """Whether bitmaps can be removed now: those of a machine that is off are in its images, which a remote host keeps to itself."""
    return not (client.remote and machine.power == "off")


def inspect(client: Client, domain: Any, machine: Machine, name: str, disks: List[Disk]) -> Dict[str, Tracking]:
    """The tracking state since checkpoint ``name`` by device. Reads only; every doubt is a problem, never an error."""
    try:
        if not can_drop(client, machine):
            return {disk.device: Tracking(ERROR) for disk in disks}
        if machine.power == "off":
            registered = name in listed(domain)
            return {disk.device: _stored(disk, name, registered) for disk in disks}
        if name in listed(domain):
            return _registered(domain, name, disks)
        return _live(domain, name, disks)
    except (SendenseError, libvirt.libvirtError):
        return {disk.device: Tracking(ERROR) for disk in disks}


def redefine(domain: Any, name: str, devices: Iterable[str], validate: bool = True) -> None:
    """Tell libvirt of a checkpoint that it forgot. SnapshotFailedError if a bitmap is missing or broken."""
    parsed = CheckpointName.parse(name)
    root = ElementTree.Element("domaincheckpoint")
    ElementTree.SubElement(root, "name").text = name
    # libvirt demands a time; no <parent>, which it would refuse unless it knows that one too.
    ElementTree.SubElement(root, "creationTime").text = str(parsed.created if parsed else 0)
    disks = ElementTree.SubElement(root, "disks")
    for device in devices:
        ElementTree.SubElement(disks, "disk", name=device, checkpoint="bitmap", bitmap=name)
    flags = libvirt.VIR_DOMAIN_CHECKPOINT_CREATE_REDEFINE
    if validate:
        flags |= libvirt.VIR_DOMAIN_CHECKPOINT_CREATE_REDEFINE_VALIDATE
    with mapped(f"Cannot redefine checkpoint {name}"):
        domain.checkpointCreateXML(ElementTree.tostring(root, encoding="unicode"), flags)


def drop(client: Client, domain: Any, machine: Machine, name: str, held: List[Disk]) -> None:
    """Remove a checkpoint of ours with its bitmaps; ``held`` are the disks that hold one.

    SnapshotFailedError (retryable) if an image is in use by something else; CapabilityMissingError unless :func:`can_drop`. What is
    already gone is no error.
    """
    if not can_drop(client, machine):
        raise CapabilityMissingError(f"Cannot remove checkpoint {name} of machine {machine.id}: it is off, and its host is remote.")
    if CheckpointName.parse(name) is None:
        raise SnapshotFailedError(f"Refused to remove checkpoint {name!r}: its name is not one of ours.", retryable=False)
    if machine.power == "off":
        for disk in held:
            qemu_img.remove_bitmap(disk.path, name)
        _forget(domain, name)
    elif name not in listed(domain) or not _delete(domain, name, 0):
        # libvirt does not know it, or one of its bitmaps is gone, which makes libvirt keep them all: disk by disk then.
        _forget(domain, name)
        for disk in held:
            redefine(domain, name, [disk.device], validate=False)
            if not _delete(domain, name, 0):
                _forget(domain, name)


def _delete(domain: Any, name: str, flags: int) -> bool:
    try:
        domain.checkpointLookupByName(name).delete(flags)
    except libvirt.libvirtError as exc:
        if exc.get_error_code() == libvirt.VIR_ERR_NO_DOMAIN_CHECKPOINT:
            return True
        if exc.get_error_code() in (libvirt.VIR_ERR_INTERNAL_ERROR, libvirt.VIR_ERR_CHECKPOINT_INCONSISTENT):
            return False
        with mapped(f"Cannot delete checkpoint {name}"):
            raise
    return True


def _forget(domain: Any, name: str) -> None:
    if name in listed(domain):
        _delete(domain, name, libvirt.VIR_DOMAIN_CHECKPOINT_DELETE_METADATA_ONLY)


def _stored(disk: Disk, name: str, registered: bool) -> Tracking:
    """Of an image that no qemu holds. A checkpoint without its bitmap is what a qemu leaves that never closed the image."""
    image = qemu_img.info(disk.path, disk.format)
    if name not in image.bitmaps:
        return Tracking(INCONSISTENT if registered else MISSING)
    return Tracking() if image.bitmap_usable(name) else Tracking(INCONSISTENT)


def _registered(domain: Any, name: str, disks: List[Disk]) -> Dict[str, Tracking]:
    """Of a checkpoint that libvirt knows: it states the size of a disk's changes only where the bitmap is sound."""
    flags = libvirt.VIR_DOMAIN_CHECKPOINT_XML_NO_DOMAIN | libvirt.VIR_DOMAIN_CHECKPOINT_XML_SIZE
    root = parse(domain.checkpointLookupByName(name).getXMLDesc(flags))
    states: Dict[str, Tracking] = {}
    for disk in disks:
        element = next((found for found in root.findall("./disks/disk") if found.get("name") == disk.device), None)
        if element is None or element.get("checkpoint") != "bitmap":
            states[disk.device] = Tracking(MISSING)
        elif element.get("size") is None:
            states[disk.device] = Tracking(INCONSISTENT)
        else:
            states[disk.device] = Tracking("", int(element.get("size", "0")))
    return states


def _live(domain: Any, name: str, disks: List[Disk]) -> Dict[str, Tracking]:
    """Of a bitmap that libvirt has forgotten while qemu may still have it: only qemu itself knows."""
    if not monitor.available():
        return {disk.device: Tracking(ERROR) for disk in disks}
    nodes = monitor.block_nodes(domain)
    states: Dict[str, Tracking] = {}
    for disk in disks:
        bitmaps = [
            bitmap
            for block_node in nodes
            if block_node.get("drv") == disk.format and block_node.get("file") == disk.path
            for bitmap in block_node.get("dirty-bitmaps", [])
            if bitmap.get("name") == name
        ]
        if not bitmaps:
            states[disk.device] = Tracking(MISSING)
        elif bitmaps[0].get("inconsistent") or not bitmaps[0].get("recording"):
            states[disk.device] = Tracking(INCONSISTENT)
        else:
            states[disk.device] = Tracking("", int(bitmaps[0]["count"]))
    return states
