# Copyright: (c) 2026, Sendense contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""From libvirt's domain XML to the platform-neutral machine."""

from __future__ import annotations

from collections import Counter
from typing import Any, Dict, List
from xml.etree import ElementTree

from ...errors import ForeignJobError, MachineNotFoundError, PlatformUnreachableError
from ...model import Disk, Machine, Nic
from .client import Client, libvirt, mapped
from .xmltext import parse, qualified

AGENT_CHANNEL = "org.qemu.guest_agent.0"
#: Seconds in which a qemu that lives answers whatever libvirt asks, also on a busy host.
HANGS_SECONDS = 10
_MEMORY_UNITS = {"b": 1, "bytes": 1, "kb": 1000, "k": 1024, "kib": 1024, "mb": 1000**2, "m": 1024**2, "mib": 1024**2}
_MEMORY_UNITS.update({"gb": 1000**3, "g": 1024**3, "gib": 1024**3, "tb": 1000**4, "t": 1024**4, "tib": 1024**4})


def machine_from_xml(text: str) -> Machine:
    """The machine that a domain XML describes, without what only the host knows (power, sizes, snapshots).

    Disks come in the order of the XML. CD and floppy drives are no disks. InvalidInputError for XML that is none.
    """
    root = parse(text)
    machine = Machine(platform="libvirt", id=_text(root, "uuid").lower(), name=_text(root, "name"))
    machine.cpus = int(_text(root, "vcpu") or "1")
    memory = root.find("memory")
    if memory is not None:
        machine.memory_bytes = int(memory.text or "0") * _MEMORY_UNITS.get(memory.get("unit", "KiB").lower(), 1024)
    _read_system(root, machine)
    machine.tpm = root.find("./devices/tpm") is not None
    machine.guest_agent = any(
        target.get("name") == AGENT_CHANNEL and target.get("state") == "connected" for target in root.findall("./devices/channel/target")
    )
    machine.disks = _disks(root, machine.id)
    machine.nics = [_nic(element) for element in root.findall("./devices/interface")]
    marks = root.find(f"./metadata/{qualified('machine')}")
    if marks is not None:
        machine.tags = [tag.text.strip() for tag in marks.findall(qualified("tag")) if tag.text and tag.text.strip()]
        machine.policy = (marks.findtext(qualified("policy")) or "").strip()
    return machine


def describe(client: Client, domain: Any, measured: bool = True) -> Machine:
    """One machine with everything the host knows of it, sizes only if they are ``measured``. MachineNotFoundError if it vanishes.

    ForeignJobError (retryable) if the machine is busy for longer than libvirt waits.
    """
    with mapped("Cannot read the machine", PlatformUnreachableError):
        machine = machine_from_xml(domain.XMLDesc(0))
        machine.power = power_of(domain)
        machine.persistent = bool(domain.isPersistent())
        machine.snapshots = sorted(snapshot.getName() for snapshot in domain.listAllSnapshots())
        for disk in machine.disks:
            _resolve_volume(client, disk)
        if measured:
            _measure(domain, machine)
    return machine


def discover(client: Client) -> List[Machine]:
    """All machines, sorted by id; one that vanishes meanwhile is left out, and one that hangs has no sizes."""
    found = []
    with mapped("Cannot list the machines", PlatformUnreachableError):
        domains = client.handle.listAllDomains()
    for domain in domains:
        try:
            found.append(describe(client, domain, measured=not hangs(domain)))
        except MachineNotFoundError:
            continue
        except ForeignJobError:
            found.append(describe(client, domain, measured=False))
    return sorted(found, key=lambda machine: machine.id)


def hangs(domain: Any) -> bool:
    """Whether qemu has not answered somebody's request for so long that nobody else should wait for it. Never waits itself."""
    try:
        if not domain.isActive():
            return False
        state, _details, waited_ms = domain.controlInfo()
    except libvirt.libvirtError:
        return False  # it has just stopped or vanished, or it says so again when it is described
    occupied = state in (libvirt.VIR_DOMAIN_CONTROL_ERROR, libvirt.VIR_DOMAIN_CONTROL_OCCUPIED)
    return bool(occupied and waited_ms > HANGS_SECONDS * 1000)


def power_of(domain: Any) -> str:
    """``running``, ``paused`` or ``off``: off means that no qemu process holds the disks."""
    if not domain.isActive():
        return "off"
    state = domain.state()[0]
    running = (libvirt.VIR_DOMAIN_RUNNING, libvirt.VIR_DOMAIN_BLOCKED, libvirt.VIR_DOMAIN_SHUTDOWN)
    return "running" if state in running else "paused"


def current_snapshot(domain: Any) -> str:
    """The name of the snapshot that libvirt calls current, or an empty string."""
    with mapped("Cannot read the snapshots of the machine", PlatformUnreachableError):
        return str(domain.snapshotCurrent().getName()) if domain.hasCurrentSnapshot() else ""


def _read_system(root: ElementTree.Element, machine: Machine) -> None:
    system = root.find("os")
    if system is None:
        return
    kind = system.find("type")
    if kind is not None:
        machine.architecture = kind.get("arch", machine.architecture)
        machine.machine_type = kind.get("machine", "")
    loader = system.find("loader")
    uefi = system.get("firmware") == "efi" or (loader is not None and loader.get("type") == "pflash")
    machine.firmware = "uefi" if uefi else "bios"
    machine.secure_boot = loader is not None and loader.get("secure") == "yes"
    nvram = system.find("nvram")
    if nvram is not None:
        source = nvram.find("source")
        machine.nvram_path = (nvram.text or "").strip() or ("" if source is None else source.get("file", ""))


def _disks(root: ElementTree.Element, machine_id: str) -> List[Disk]:
    elements = [element for element in root.findall("./devices/disk") if element.get("device", "disk") in ("disk", "lun")]
    serials = Counter(_text(element, "serial") for element in elements)
    disks = [_disk(element, machine_id) for element in elements]
    for disk in disks:
        if disk.serial and serials[disk.serial] == 1:
            disk.id = disk.serial
    return disks


def _disk(element: ElementTree.Element, machine_id: str) -> Disk:
    target, driver, boot = element.find("target"), element.find("driver"), element.find("boot")
    device = "" if target is None else target.get("dev", "")
    disk = Disk(id=f"{machine_id}-{device}", size_bytes=0, device=device, serial=_text(element, "serial"))
    disk.bus = "virtio" if target is None else target.get("bus", "virtio")
    disk.format = "raw" if driver is None else driver.get("type", "raw")
    disk.boot_order = None if boot is None else int(boot.get("order", "0"))
    source = element.find("source")
    if source is not None:
        disk.path = source.get("file") or source.get("dev") or _volume_name(source)
    disk.excluded = _exclusion(element, source)
    if disk.format != "qcow2":
        disk.tracking, disk.tracking_reason = False, f"{disk.format} images cannot hold a persistent bitmap"
    elif element.find("readonly") is not None:
        disk.tracking, disk.tracking_reason = False, "read-only disks cannot hold a new bitmap"
    return disk


def _volume_name(source: ElementTree.Element) -> str:
    pool, volume = source.get("pool"), source.get("volume")
    return f"{pool}/{volume}" if pool and volume else ""


def _exclusion(element: ElementTree.Element, source: "ElementTree.Element | None") -> str:
    """Why this disk cannot be part of a snapshot; empty if it can."""
    kind = element.get("type", "")
    if element.get("device") == "lun":
        return "SCSI pass-through (device='lun'): the hypervisor does not see its writes"
    if element.find("shareable") is not None:
        return "shareable: other machines write to it without this hypervisor's knowledge"
    if element.find("transient") is not None:
        return "transient: its changes are discarded when the machine stops"
    if kind not in ("file", "block", "volume"):
        return f"source type {kind!r}: only files and block devices of the host can be read"
    if element.find("encryption") is not None or (source is not None and source.find("encryption") is not None):
        return "encrypted by qemu: a backup would store its plain text"
    return "" if source is not None else "it has no source"


def _resolve_volume(client: Client, disk: Disk) -> None:
    """The path behind ``pool/volume``."""
    if disk.excluded or disk.path.startswith("/"):
        return
    pool, _slash, volume = disk.path.partition("/")
    try:
        disk.path = client.handle.storagePoolLookupByName(pool).storageVolLookupByName(volume).path()
    except libvirt.libvirtError as exc:
        disk.excluded = f"its storage volume cannot be found: {exc}"
    else:
        if not disk.path.startswith("/"):
            disk.excluded = "its storage volume is not a file or block device of the host"


def _measure(domain: Any, machine: Machine) -> None:
    """The virtual sizes, from the hypervisor."""
    wanted = [disk for disk in machine.disks if not disk.excluded]
    # For each question about one disk libvirt makes qemu describe all of them.
    known = _capacities(domain) if machine.power != "off" and len(wanted) > 1 else {}
    for disk in wanted:
        disk.size_bytes = known.get(disk.device, 0)
        if not disk.size_bytes:
            _measure_one(domain, disk)


def _capacities(domain: Any) -> Dict[str, int]:
    """The virtual sizes of all disks of a running machine, by device. None of a machine that is busy with another request."""
    flags = libvirt.VIR_CONNECT_GET_ALL_DOMAINS_STATS_NOWAIT
    found: Dict[str, int] = {}
    for _domain, stats in domain.connect().domainListGetStats([domain], libvirt.VIR_DOMAIN_STATS_BLOCK, flags):
        for number in range(int(stats.get("block.count", 0))):
            found[str(stats.get(f"block.{number}.name"))] = int(stats.get(f"block.{number}.capacity", 0))
    return found


def _measure_one(domain: Any, disk: Disk) -> None:
    try:
        disk.size_bytes = int(domain.blockInfo(disk.device)[0])
    except libvirt.libvirtError as exc:
        if exc.get_error_code() in (libvirt.VIR_ERR_NO_DOMAIN, libvirt.VIR_ERR_OPERATION_TIMEOUT):
            raise
        disk.excluded = f"its size cannot be read: {exc}"


def _nic(element: ElementTree.Element) -> Nic:
    mac, model, source = element.find("mac"), element.find("model"), element.find("source")
    nic = Nic(network_type=element.get("type", "network"))
    nic.mac = "" if mac is None else mac.get("address", "")
    nic.model = "" if model is None else model.get("type", "")
    if source is not None:
        nic.network = source.get("network") or source.get("bridge") or source.get("dev") or ""
        if source.get("network"):
            # A running machine on a network that forwards to a bridge is shown with the type of what it was plugged into.
            nic.network_type = "network"
    return nic


def _text(element: ElementTree.Element, tag: str) -> str:
    return (element.findtext(tag) or "").strip()
