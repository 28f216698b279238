# Copyright: (c) 2026, Sendense contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The definition of a restored machine, and what of the host it stands on."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from ansible_collections.sendense.platform.plugins.module_utils.errors import DependencyMissingError, InvalidInputError
from ansible_collections.sendense.platform.plugins.module_utils.model import Disk, Machine, Nic
from ansible_collections.sendense.platform.plugins.module_utils.platforms._base import TargetDisk
from ansible_collections.sendense.platform.plugins.module_utils.platforms.libvirt.domain_xml import (
    DomainPlan,
    build,
    device_names,
    restore_mark,
)
from ansible_collections.sendense.platform.plugins.module_utils.platforms.libvirt.firmware import Firmware, choose
from ansible_collections.sendense.platform.plugins.module_utils.platforms.libvirt.host import HostGuests, map_nic
from ansible_collections.sendense.platform.plugins.module_utils.platforms.libvirt.xmltext import parse

HOSTILE = "</name><devices/>&x; {{ 7 * 7 }} \"'"


def plan(*disks: Disk, **changes: object) -> DomainPlan:
    machine = Machine("libvirt", "id", "source", cpus=2, memory_bytes=1 << 30, disks=list(disks), tags=[HOSTILE], policy=HOSTILE)
    made = [TargetDisk(disk.key, disk.id, 512, f"/s/{disk.key}") for disk in disks]
    values = {"name": HOSTILE, "uuid": "u", "job_id": "j", "point_id": "p", "format": "qcow2", "domain_type": "qemu"}
    return DomainPlan(**{"machine": machine, "machine_type": "pc", "disks": made, **values, **changes})  # type: ignore[arg-type]


def numbered(*devices: str, bus: str = "virtio") -> "list[Disk]":
    return [Disk(str(at), 512, f"disk{at}", device, bus) for at, device in enumerate(devices)]


def test_hostile_text_is_only_text() -> None:
    disk = Disk("0", 512, "disk0", HOSTILE, serial=HOSTILE)
    text = build(plan(disk, nics=[Nic(HOSTILE, HOSTILE, "network", HOSTILE)], keep_mac=True))
    root = parse(text)
    assert root.findtext("name") == HOSTILE and root.findtext("./devices/disk/serial") == HOSTILE
    assert root.find("./devices/interface/source").get("network") == HOSTILE
    assert len(root.findall("devices")) == 1 and root.find("./devices/disk/target").get("dev") == "vda"


def test_the_mark_of_a_restore_returns() -> None:
    mark = restore_mark(build(plan(*numbered("vda", "vdb"))))
    assert mark is not None and (mark.point_id, mark.job_id, mark.disks) == ("p", "j", "disk0 disk1")
    assert restore_mark("<domain/>") is None
    assert restore_mark("<domain><metadata><restored point='p'/></metadata></domain>") is None


@pytest.mark.parametrize(
    ("disks", "names"),
    [
        (numbered("vda", "vdb"), ["vda", "vdb"]),
        (numbered("vdb", "", "vda"), ["vdb", "vdc", "vda"]),
        (numbered("vda", "vda"), ["vda", "vdb"]),
        (numbered("sda", "xvda"), ["vda", "vdb"]),
        (numbered("sda", "sdb", bus="unheard-of"), ["vda", "vdb"]),
        (numbered("vda", bus="ide"), ["hda"]),
        (numbered(*[""] * 30)[26:], ["vda", "vdb", "vdc", "vdd"]),
    ],
)
def test_device_names(disks: "list[Disk]", names: "list[str]") -> None:
    assert device_names(disks) == names


def test_many_disks_get_two_letters() -> None:
    assert device_names(numbered(*[""] * 28))[-3:] == ["vdz", "vdaa", "vdab"]


def test_boot_orders_are_gapless_or_left_to_the_first_disk() -> None:
    disks = numbered("vda", "vdb", "vdc")
    assert parse(build(plan(*disks))).find("./os/boot").get("dev") == "hd"
    disks[0].boot_order, disks[2].boot_order = 7, 2
    root = parse(build(plan(*disks)))
    orders = [boot.get("order") for boot in root.findall("./devices/disk/boot")]
    assert root.find("./os/boot") is None and orders == ["2", "1"]
    without_first = plan(*disks)
    without_first.disks = without_first.disks[1:]
    assert [boot.get("order") for boot in parse(build(without_first)).findall("./devices/disk/boot")] == ["1"]


def test_secure_boot_needs_smm_and_kvm_gets_the_host_s_processor() -> None:
    firmware = Firmware("/code.fd", "/vars.fd", True)
    root = parse(build(plan(*numbered("vda"), firmware=firmware, nvram_path="/n", domain_type="kvm")))
    assert root.find("./os/loader").attrib == {"readonly": "yes", "type": "pflash", "secure": "yes"}
    assert root.find("./features/smm") is not None and root.find("cpu").get("mode") == "host-model"
    assert parse(build(plan(*numbered("vda")))).find("cpu") is None


# --- the host --------------------------------------------------------------------------------------------------------


def guests() -> HostGuests:
    known = {"pc": "pc-i440fx-7.2", "pc-i440fx-5.2": "pc-i440fx-5.2", "q35": "pc-q35-7.2"}
    return HostGuests({"x86_64": ["qemu", "kvm"], "aarch64": ["qemu"]}, {"x86_64": known, "aarch64": {"virt": "virt-7.2"}})


def test_accelerators() -> None:
    assert [guests().domain_type("x86_64", wanted) for wanted in ("auto", "qemu", "kvm")] == ["kvm", "qemu", "kvm"]
    assert guests().domain_type("aarch64", "auto") == "qemu"
    for architecture, wanted in (("aarch64", "kvm"), ("s390x", "auto"), ("x86_64", "xen")):
        with pytest.raises(InvalidInputError):
            guests().domain_type(architecture, wanted)


@pytest.mark.parametrize(
    ("architecture", "wanted", "found"),
    [
        ("x86_64", "pc-i440fx-5.2", "pc-i440fx-5.2"),
        ("x86_64", "q35", "pc-q35-7.2"),
        ("x86_64", "pc-q35-99.0", "pc-q35-7.2"),
        ("x86_64", "pc-i440fx-99.0", "pc-i440fx-7.2"),
        ("x86_64", "", "pc-i440fx-7.2"),
        ("aarch64", "virt-99", "virt-7.2"),
        ("s390x", "x", ""),
    ],
)
def test_machine_types(architecture: str, wanted: str, found: str) -> None:
    assert guests().machine_type(architecture, wanted) == found


@pytest.mark.parametrize(
    ("nic", "mapping", "found"),
    [
        (Nic(network="lan"), {}, ("network", "lan")),
        (Nic(network="x"), {"*": "lan"}, ("network", "lan")),
        (Nic(network="x"), {"x": "none", "*": "lan"}, ("", "")),
        (Nic(network="br0", network_type="bridge"), {"br0": "lan"}, ("network", "lan")),
        (Nic(network_type="user"), {}, ("user", "")),
        (Nic(network_type="user"), {"*": "lan"}, ("network", "lan")),
    ],
)
def test_networks_are_mapped(nic: Nic, mapping: "dict[str, str]", found: "tuple[str, str]") -> None:
    target = map_nic(nic, mapping, {"lan"})
    assert (target.network_type, target.network) == found


@pytest.mark.parametrize("wanted", ["", "wan", "bridge:", "bridge:..", "bridge:../x", "bridge:lo", "None", "{{ lan }}"])
def test_networks_that_do_not_exist_are_refused(wanted: str) -> None:
    with pytest.raises(InvalidInputError, match="There is no network"):
        map_nic(Nic(network="x"), {"*": wanted}, {"lan"})


def descriptor(directory: Path, name: str, size: int, features: "list[str]", machine: str = "pc-q35-*", **mapping: object) -> None:
    code, template = directory / f"{name}.code", directory / f"{name}.vars"
    code.write_bytes(b"code")
    template.write_bytes(bytes(size))
    described = {"device": "flash", "executable": {"filename": str(code)}, "nvram-template": {"filename": str(template)}, **mapping}
    target = {"architecture": "x86_64", "machines": [machine]}
    text = json.dumps({"interface-types": ["uefi"], "mapping": described, "targets": [target], "features": features})
    (directory / f"{name}.json").write_text(text)


def test_firmware_is_chosen_by_machine_security_and_size(tmp_path: Path) -> None:
    descriptor(tmp_path, "10-secure", 100, ["requires-smm", "secure-boot"])
    descriptor(tmp_path, "20-small", 100, [])
    descriptor(tmp_path, "30-large", 200, [])
    descriptor(tmp_path, "05-other", 100, [], machine="pc-i440fx-*")
    descriptor(tmp_path, "06-memory", 100, [], device="memory")
    (tmp_path / "07-broken.json").write_text("{")
    (tmp_path / "08-list.json").write_text("[]")
    directories = [str(tmp_path / "missing"), str(tmp_path)]

    def chosen(secure: bool, size: "int | None") -> str:
        return Path(choose("x86_64", "pc-q35-7.2", secure, size, directories).template).name

    assert [chosen(False, None), chosen(False, 200), chosen(True, None)] == ["20-small.vars", "30-large.vars", "10-secure.vars"]
    for architecture, machine, size in (("aarch64", "virt", None), ("x86_64", "isapc", None), ("x86_64", "pc-q35-7.2", 300)):
        with pytest.raises(DependencyMissingError, match="ovmf"):
            choose(architecture, machine, False, size, directories)
