# Copyright: (c) 2026, Sendense contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A virtual machine of the lab: made, started, written to and watched through one host."""

from __future__ import annotations

import os
import shutil
import uuid as uuids
import xml.etree.ElementTree as ET
from dataclasses import replace
from pathlib import Path
from typing import Any, Dict, List, Optional, Sequence

import libvirt
import libvirt_qemu

from . import disks as diskfiles
from .agent import GuestAgent
from .console import Console
from .counters import CONTROL_OFFSET, control_record, read_counters
from .disks import DiskSpec, LabDisk
from .domainxml import GuestSpec, domain_xml, serial_file
from .host import LibvirtHost, remove_domain
from .image import guest_image
from .paths import LabError

_SECTOR = 512


class Guest:
    """One guest. Its files lie in ``<host>/guests/<uuid>``; its name is never part of a path."""

    def __init__(self, host: LibvirtHost, uuid: str, name: str, disks: Sequence[LabDisk], serial_log: Path) -> None:
        self.host = host
        self.uuid = uuid
        self.name = name
        self.dir = host.guests_dir / uuid
        self.disks: Dict[str, LabDisk] = {disk.target: disk for disk in disks}
        self.console = Console(serial_log, name)

    @classmethod
    def create(
        cls, host: LibvirtHost, name: str, disks: Optional[Sequence[DiskSpec]] = None, *, firmware: str = "bios",
        memory_mib: int = 192, vcpus: int = 1, networks: Sequence[str] = (), agent: bool = True, uuid: Optional[str] = None,
    ) -> "Guest":  # fmt: skip
        """Make the disks and define the machine (switched off). ``disks`` defaults to three small empty ones.

        LabError if a disk cannot be made, libvirtError if libvirt refuses (a name that exists, for example).
        """
        uuid = uuid or str(uuids.uuid4())
        directory = host.guests_dir / uuid
        directory.mkdir()
        made = [_make_disk(spec, directory) for spec in (disks if disks is not None else diskfiles.small_disks())]
        log = directory / "serial.log"
        for network in networks:
            host.network(network)
        spec = GuestSpec(name, uuid, firmware, memory_mib, vcpus, tuple(networks), agent, directory / "nvram.fd", log)
        host.connection.defineXML(domain_xml(spec, made))
        return cls(host, uuid, name, made, log)

    @classmethod
    def bootable(
        cls, host: LibvirtHost, name: str, *, firmware: str = "bios", quiet: bool = False, interval_ms: int = 50,
        size_mib: int = 256, files_mib: int = 8, odd_mib: int = 64, raw_mib: int = 32, **options: Any,
    ) -> "Guest":  # fmt: skip
        """A guest that boots from its own first disk, with a second qcow2 disk of an odd size and a third, raw one.

        ``quiet`` boots without writing anything by itself. Options are those of :meth:`create`.
        """
        image = guest_image(size_mib, files_mib)
        disks = [DiskSpec("vda", image.size_bytes, template=image.path), *diskfiles.data_disks(odd_mib, raw_mib)]
        guest = cls.create(host, name, disks, firmware=firmware, **options)
        record = control_record(writer=not quiet, churn=not quiet, interval_ms=interval_ms)
        diskfiles.write(guest.disks["vda"].image, CONTROL_OFFSET, record)
        return guest

    @classmethod
    def adopt(cls, host: LibvirtHost, name: str) -> "Guest":
        """Watch a machine that somebody else defined (a restored one), by name; it must be switched off or have a log.

        Its serial console is redirected to a file, so that what the guest prints at boot can be read.
        """
        domain = host.connection.lookupByName(name)
        root = ET.fromstring(domain.XMLDesc(libvirt.VIR_DOMAIN_XML_INACTIVE))
        directory = host.guests_dir / domain.UUIDString()
        source = root.find("./devices/serial[@type='file']/source")
        log = Path(source.get("path", "")) if source is not None else directory / "serial.log"
        if source is None:
            directory.mkdir(exist_ok=True)
            devices = root.find("devices")
            assert devices is not None
            for old in devices.findall("serial") + devices.findall("console"):
                devices.remove(old)
            devices.append(serial_file(log))
            host.connection.defineXML(ET.tostring(root, encoding="unicode"))
        return cls(host, domain.UUIDString(), name, _disks_of(root), log)

    # --- power -----------------------------------------------------------------------------------------------------

    @property
    def domain(self) -> libvirt.virDomain:
        """The libvirt domain, looked up afresh: it survives restarts of libvirtd."""
        return self.host.connection.lookupByUUIDString(self.uuid)

    @property
    def active(self) -> bool:
        """Whether its qemu runs (also when suspended)."""
        return bool(self.domain.isActive())

    def start(self, paused: bool = False) -> "Guest":
        """Switch on; ``paused`` starts qemu without running a single instruction: enough for block I/O."""
        self.domain.createWithFlags(libvirt.VIR_DOMAIN_START_PAUSED if paused else 0)
        return self

    def wait_ready(self, timeout_s: float = 120.0) -> str:
        """Wait for ``LAB READY`` on the console; returns the nonce that it names, or ``none``."""
        return self.console.wait("LAB READY ", timeout_s, lambda: self.active)

    def wait_counter(self, minimum: int = 1, timeout_s: float = 60.0) -> int:
        """Wait until it has printed a counter of at least ``minimum``; returns the newest printed one."""
        self.console.wait("LAB COUNTER ", timeout_s, lambda: self.active, lambda value: int(value) >= minimum)
        return int(self.console.values("LAB COUNTER ")[-1])

    def suspend(self) -> None:
        """Stop its processors; disks and agent channel stay as they are."""
        self.domain.suspend()

    def resume(self) -> None:
        """Let it run again."""
        self.domain.resume()

    def destroy(self) -> None:
        """Pull the plug. Repetition is a no-op."""
        if self.active:
            self.domain.destroy()

    def remove(self) -> None:
        """Pull the plug, forget the machine with its checkpoints, and delete its files. Repetition is a no-op."""
        try:
            domain = self.domain
        except libvirt.libvirtError as exc:
            if exc.get_error_code() != libvirt.VIR_ERR_NO_DOMAIN:
                raise
        else:
            remove_domain(domain)
        shutil.rmtree(self.dir, ignore_errors=True)

    @property
    def qemu_pid(self) -> int:
        """The pid of its qemu: for faults."""
        return self.host.qemu_pid(self.uuid)

    # --- block I/O through the running qemu ------------------------------------------------------------------------

    def io(self, target: str, *commands: str) -> None:
        """Run qemu-io commands on the device's own backend, so that dirty bitmaps see them; works when paused too.

        qemu reports their failure nowhere but on its own output, so callers compare what they wrote.
        """
        domain = self.domain
        device = self._device(domain, target)
        for command in commands:
            line = f'qemu-io -d {device} "{command}"'
            answer = libvirt_qemu.qemuMonitorCommand(domain, line, libvirt_qemu.VIR_DOMAIN_QEMU_MONITOR_COMMAND_HMP)
            if answer.strip():
                raise LabError(f"qemu refused {command!r} on {target} of {self.name!r}: {answer.strip()}")

    def write(self, target: str, pattern: int, offset: int, length: int) -> None:
        """Fill a range with one byte value (1-255)."""
        self._check(target, offset, length)
        self.io(target, f"write -P {pattern} {offset} {length}")

    def zero(self, target: str, offset: int, length: int) -> None:
        """Write zeros (the range stays allocated)."""
        self._check(target, offset, length)
        self.io(target, f"write -z {offset} {length}")

    def discard(self, target: str, offset: int, length: int) -> None:
        """Trim a range; dropped by qemu while a backup job is active."""
        self._check(target, offset, length)
        self.io(target, f"discard {offset} {length}")

    def flush(self, *targets: str) -> None:
        """Flush some disks (all by default): needed before another program reads the files."""
        for target in targets or tuple(self.disks):
            self.io(target, "flush")

    def copy_disk(self, target: str, destination: "os.PathLike[str] | str") -> Path:
        """Copy a flushed disk of a suspended or stopped guest to a raw file: the reference of a comparison."""
        return diskfiles.copy(self.disks[target].image, Path(destination))

    def _check(self, target: str, offset: int, length: int) -> None:
        size = self.disks[target].size_bytes
        if offset % _SECTOR or length % _SECTOR or length <= 0 or offset < 0 or offset + length > size:
            raise LabError(f"{offset}+{length} is no range of whole sectors on {target} of {size} bytes")

    def _device(self, domain: libvirt.virDomain, target: str) -> str:
        for disk in ET.fromstring(domain.XMLDesc(0)).findall("./devices/disk"):
            where, alias = disk.find("target"), disk.find("alias")
            if where is not None and alias is not None and where.get("dev") == target:
                backend = "/virtio-backend" if where.get("bus") == "virtio" else ""
                return f"/machine/peripheral/{alias.get('name')}{backend}"
        raise LabError(f"{self.name!r} has no running disk {target}")

    def counters(self) -> List[Optional[int]]:
        """The counters on its disks now, in machine order; suspend and flush first, or each is of another instant."""
        return read_counters([disk.image for disk in self.disks.values()])

    # --- guest agent -----------------------------------------------------------------------------------------------

    @property
    def agent(self) -> GuestAgent:
        """The guest agent; ``agent.wait()`` first after a boot."""
        return GuestAgent(self.domain)


def _make_disk(spec: DiskSpec, directory: Path) -> LabDisk:
    path = directory / f"{spec.target}.{spec.format}"
    diskfiles.create(spec, path)
    serial = f"lab-{directory.name[:8]}-{spec.target}"
    disk = LabDisk(spec.target, path, spec.format, spec.size_bytes, serial, spec.bus)
    return replace(disk, size_bytes=int(diskfiles.info(disk.image)["virtual-size"])) if spec.template else disk


def _disks_of(root: ET.Element) -> List[LabDisk]:
    found = []
    for element in root.findall("./devices/disk[@device='disk']"):
        target, source, driver = element.find("target"), element.find("source"), element.find("driver")
        if target is None or source is None or driver is None or not source.get("file"):
            continue
        image = diskfiles.ImageFile(source.get("file", ""), driver.get("type", "raw"))
        size = int(diskfiles.info(image)["virtual-size"])
        serial, bus = element.findtext("serial", ""), target.get("bus", "virtio")
        found.append(LabDisk(target.get("dev", ""), Path(image.path), image.format, size, serial, bus))
    return found
