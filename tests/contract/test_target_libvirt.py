# Copyright: (c) 2026, Sendense contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""libvirt as a target against the contract, and what only libvirt has: firmware, networks, the shape of the definition."""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path
from typing import Any, Dict, Iterator, Set

import pytest

from ansible_collections.sendense.platform.plugins.module_utils.errors import InvalidInputError
from ansible_collections.sendense.platform.plugins.module_utils.model import Nic
from ansible_collections.sendense.platform.plugins.module_utils.platforms import registry
from ansible_collections.sendense.platform.plugins.module_utils.platforms._base import Target, TargetRequest
from ansible_collections.sendense.platform.plugins.module_utils.platforms.libvirt.firmware import choose
from ansible_collections.sendense.platform.plugins.module_utils.platforms.libvirt.xmltext import parse
from tests.contract.libvirt_lab import HOSTILE_NAME
from tests.contract.target_contract import TargetContract, TargetLab, known_names
from tests.lab import disks as diskfiles
from tests.lab.disks import ImageFile
from tests.lab.host import LibvirtHost

_FOREIGN = "<domain type='qemu'><name>{name}</name><memory>65536</memory><os><type>hvm</type></os></domain>"


class LibvirtTargetLab(TargetLab):
    """A libvirt host without machines."""

    hostile_name = HOSTILE_NAME

    def __init__(self, host: LibvirtHost, **connection: Any) -> None:
        self.host = host
        self.directory = Path(tempfile.mkdtemp(prefix="t-", dir=host.dir))
        self.storage, self.sockets = self.directory / "storage", self.directory / "s"
        self.storage.mkdir()
        self.sockets.mkdir()
        self.network = host.network("lab-lan")
        self.connection = {"uri": host.uri, "domain_type": "qemu", **connection}

    def target(self) -> Target:
        return registry.target("libvirt", self.connection)

    def names(self) -> Set[str]:
        return known_names([domain.name() for domain in self.host.connection.listAllDomains()])

    def add_machine(self, name: str) -> None:
        self.host.connection.defineXML(_FOREIGN.format(name=name))

    def content(self, machine_id: str) -> Dict[str, bytes]:
        found = {}
        for disk in self.xml(machine_id).findall("./devices/disk"):
            source, driver = disk.find("source"), disk.find("driver")
            assert source is not None and driver is not None
            copy = self.directory / "copy.raw"
            diskfiles.copy(ImageFile(source.get("file", ""), driver.get("type", "")), copy)
            found[disk.findtext("serial", "")] = copy.read_bytes()
            copy.unlink()
        return found

    def platform(self) -> str:
        return "libvirt"

    def xml(self, machine_id: str) -> Any:
        return parse(self.host.connection.lookupByUUIDString(machine_id).XMLDesc(0))

    def remove(self) -> None:
        for domain in self.host.connection.listAllDomains():
            if domain.isActive():
                domain.destroy()
            domain.undefineFlags(4)
        shutil.rmtree(self.directory)


class TestLibvirtTarget(TargetContract):
    """A host of the lab; what is special to libvirt comes after the contract."""

    @pytest.fixture
    def lab(self, libvirt_host: LibvirtHost) -> Iterator[LibvirtTargetLab]:
        lab = LibvirtTargetLab(libvirt_host)
        yield lab
        lab.remove()

    def test_the_definition_is_the_source_machine(self, lab: LibvirtTargetLab, target: Target, wanted: TargetRequest) -> None:
        wanted.machine.machine_type, wanted.machine.cpus = "pc-q35-5.2", 2
        machine = self.restore(lab, target, wanted)
        assert (machine.cpus, machine.memory_bytes, machine.machine_type) == (2, 64 << 20, "pc-q35-5.2")
        assert [(disk.id, disk.device, disk.boot_order) for disk in machine.disks] == [("serial-0", "vda", 1), ("serial-1", "vdb", 2)]
        assert (machine.tags, machine.policy) == (wanted.machine.tags, "gold")
        (nic,) = machine.nics
        assert (nic.network, nic.model) == (lab.network, "virtio") and nic.mac != wanted.machine.nics[0].mac
        channels = [channel.get("name") for channel in lab.xml(machine.id).findall("./devices/channel/target")]
        assert channels == ["org.qemu.guest_agent.0"]

    def test_a_mac_is_kept_when_asked(self, lab: LibvirtTargetLab, target: Target, wanted: TargetRequest) -> None:
        wanted.keep_mac = True
        assert self.restore(lab, target, wanted).nics[0].mac == wanted.machine.nics[0].mac

    def test_networks_are_mapped_one_by_one(self, lab: LibvirtTargetLab, target: Target, wanted: TargetRequest) -> None:
        dmz = lab.host.network("lab-dmz")
        wanted.machine.nics = [Nic(network="a"), Nic(network="b"), Nic(network="c"), Nic(network_type="user")]
        wanted.networks = {"a": dmz, "b": "none", "c": lab.network}
        machine = self.restore(lab, target, wanted)
        assert [(nic.network_type, nic.network) for nic in machine.nics] == [("network", dmz), ("network", lab.network), ("user", "")]

    @pytest.mark.parametrize("bridge", ["bridge:nosuchbr0", "bridge:../../etc", "bridge:lo"])
    def test_a_bridge_must_exist(self, lab: LibvirtTargetLab, target: Target, wanted: TargetRequest, bridge: str) -> None:
        wanted.networks = {"*": bridge}
        with pytest.raises(InvalidInputError):
            target.check(wanted)

    def test_an_unknown_machine_type_becomes_the_newest_of_its_family(
        self, lab: LibvirtTargetLab, target: Target, wanted: TargetRequest
    ) -> None:
        wanted.machine.machine_type = "pc-q35-99.0"
        assert self.restore(lab, target, wanted).machine_type.startswith("pc-q35-")

    @pytest.mark.parametrize("with_variables", [True, False])
    def test_uefi_machines_get_their_variables_and_start(
        self, lab: LibvirtTargetLab, target: Target, wanted: TargetRequest, with_variables: bool
    ) -> None:
        template = Path(choose("x86_64", "pc-q35-7.2", False).template).read_bytes()
        wanted.machine.machine_type, wanted.machine.firmware = "pc-q35-7.2", "uefi"
        saved = lab.directory / "saved.fd"
        saved.write_bytes(template[:-16] + b"our own variable")
        if with_variables:
            wanted.nvram_path = str(saved)
        machine = self.restore(lab, target, wanted)
        assert machine.firmware == "uefi" and not machine.secure_boot
        assert Path(machine.nvram_path).parent == lab.storage
        assert Path(machine.nvram_path).read_bytes() == (saved.read_bytes() if with_variables else template)
        assert target.power_on(machine.id)

    def test_raw_disks_and_a_console_log(self, lab: LibvirtTargetLab, wanted: TargetRequest) -> None:
        lab.connection["console_log"] = str(lab.directory / "console.log")
        wanted.format = "raw"
        with lab.target() as target:
            machine = self.restore(lab, target, wanted)
        assert [disk.format for disk in machine.disks] == ["raw", "raw"]
        console = lab.xml(machine.id).find("./devices/serial[@type='file']/source")
        assert console.get("path") == lab.connection["console_log"]

    @pytest.mark.parametrize("name", ["a/b", "", "..", " x", "x\n", "\x1b[2J"])
    def test_names_that_libvirt_cannot_take_are_refused(self, target: Target, wanted: TargetRequest, name: str) -> None:
        wanted.name = name
        with pytest.raises(InvalidInputError):
            target.check(wanted)

    def test_scsi_sata_and_colliding_device_names(self, lab: LibvirtTargetLab, target: Target, wanted: TargetRequest) -> None:
        first, second = wanted.machine.disks
        first.bus, first.device, second.bus, second.device = "scsi", "sda", "sata", "sda"
        wanted.machine.machine_type = "pc-q35-7.2"
        machine = self.restore(lab, target, wanted)
        assert {(disk.bus, disk.device) for disk in machine.disks} == {("scsi", "sda"), ("sata", "sdb")}
        assert target.power_on(machine.id)

    def test_an_accelerator_that_the_host_lacks_is_refused(self, lab: LibvirtTargetLab, wanted: TargetRequest) -> None:
        lab.connection["domain_type"] = "xen"
        with lab.target() as target, pytest.raises(InvalidInputError, match="xen"):
            target.check(wanted)
