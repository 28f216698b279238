# Copyright: (c) 2026, Sendense contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Domain XML to machine: what is no disk, what cannot be backed up and why, identity, and hostile text."""

from __future__ import annotations

import pytest

from ansible_collections.sendense.platform.plugins.module_utils.errors import InvalidInputError
from ansible_collections.sendense.platform.plugins.module_utils.platforms.libvirt.discovery import machine_from_xml
from ansible_collections.sendense.platform.plugins.module_utils.platforms.libvirt.xmltext import parse

UUID = "0a6f2c1e-0000-4000-8000-00000000000a"
HEAD = f"<domain type='kvm'><name>web &amp; {{{{ x }}}}</name><uuid>{UUID.upper()}</uuid><memory unit='MiB'>512</memory><vcpu>3</vcpu>"


def disk(inner: str, kind: str = "file", device: str = "disk") -> str:
    return f"<disk type='{kind}' device='{device}'><driver name='qemu' type='qcow2'/>{inner}</disk>"


def machine(devices: str = "", rest: str = ""):
    return machine_from_xml(f"{HEAD}{rest}<devices>{devices}</devices></domain>")


def test_what_a_machine_is() -> None:
    system = "<os firmware='efi'><type arch='aarch64' machine='virt-7.2'>hvm</type><loader secure='yes'/><nvram>/v.fd</nvram></os>"
    found = machine("<tpm model='tpm-crb'/>", system)
    assert (found.id, found.name, found.cpus, found.memory_bytes) == (UUID, "web & {{ x }}", 3, 512 << 20)
    assert (found.architecture, found.machine_type, found.firmware) == ("aarch64", "virt-7.2", "uefi")
    assert (found.secure_boot, found.nvram_path, found.tpm, found.guest_agent) == (True, "/v.fd", True, False)
    plain = machine(rest="<os><type arch='x86_64' machine='pc'>hvm</type></os>")
    assert (plain.firmware, plain.secure_boot, plain.nvram_path, plain.tpm) == ("bios", False, "", False)
    flash = machine(rest="<os><type>hvm</type><loader type='pflash'>/c</loader><nvram type='file'><source file='/n'/></nvram></os>")
    assert (flash.firmware, flash.nvram_path) == ("uefi", "/n")


@pytest.mark.parametrize(("unit", "size"), [("b", 4096), ("KiB", 4096 << 10), ("GB", 4096 * 10**9), ("MiB", 4096 << 20)])
def test_units_of_memory(unit: str, size: int) -> None:
    text = f"<domain><uuid>{UUID}</uuid><memory unit='{unit}'>4096</memory></domain>"
    assert machine_from_xml(text).memory_bytes == size


def test_drives_are_no_disks_and_order_is_kept() -> None:
    found = machine(
        disk("<source file='/b'/><target dev='vdb' bus='virtio'/>")
        + disk("<source file='/cd'/><target dev='sda'/>", device="cdrom")
        + disk("<target dev='fda'/>", device="floppy")
        + disk("<source file='/a'/><target dev='vda' bus='virtio'/><boot order='1'/>")
    )
    assert [(entry.device, entry.path, entry.boot_order) for entry in found.disks] == [("vdb", "/b", None), ("vda", "/a", 1)]


def test_identity_is_the_serial_where_it_is_unique() -> None:
    serials = ["one", "two", "two", ""]
    found = machine(
        "".join(disk(f"<source file='/{at}'/><target dev='vd{at}'/><serial>{text}</serial>") for at, text in enumerate(serials))
    )
    assert [entry.id for entry in found.disks] == ["one", f"{UUID}-vd1", f"{UUID}-vd2", f"{UUID}-vd3"]


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        (disk("<source file='/a'/><target dev='vda'/><shareable/>"), "shareable"),
        (disk("<source file='/a'/><target dev='vda'/><transient/>"), "transient"),
        (disk("<source dev='/dev/x'/><target dev='sda' bus='scsi'/>", "block", "lun"), "pass-through"),
        (disk("<source protocol='rbd' name='pool/x'/><target dev='vda'/>", "network"), "source type 'network'"),
        (disk("<source type='unix' path='/s'/><target dev='vda'/>", "vhostuser"), "source type 'vhostuser'"),
        (disk("<source file='/a'><encryption format='luks'/></source><target dev='vda'/>"), "encrypted"),
        (disk("<target dev='vda'/>"), "no source"),
    ],
)
def test_what_cannot_be_backed_up_says_why(text: str, reason: str) -> None:
    (found,) = machine(text).disks
    assert reason in found.excluded


def test_what_can_be_tracked() -> None:
    raw = disk("<source dev='/dev/vg/lv'/><target dev='vdb'/>", "block").replace("qcow2", "raw")
    unnamed = "<disk type='file' device='disk'><source file='/c'/><target dev='vdc'/></disk>"
    read_only = disk("<source file='/d'/><target dev='vdd'/><readonly/>")
    found = machine(disk("<source file='/a'/><target dev='vda'/>") + raw + unnamed + read_only)
    assert [(entry.format, entry.tracking, entry.path) for entry in found.disks] == [
        ("qcow2", True, "/a"),
        ("raw", False, "/dev/vg/lv"),
        ("raw", False, "/c"),
        ("qcow2", False, "/d"),
    ]
    assert not any(entry.excluded for entry in found.disks)
    assert all(entry.tracking_reason for entry in found.disks[1:])


def test_tags_and_policy_come_from_our_own_metadata() -> None:
    marks = (
        "<metadata><sendense:machine xmlns:sendense='urn:sendense:machine:1'><sendense:tag> web </sendense:tag>"
        "<sendense:tag>{{ 7 * 7 }}</sendense:tag><sendense:tag/><sendense:policy>gold</sendense:policy></sendense:machine>"
        "<other:machine xmlns:other='urn:other'><other:tag>theirs</other:tag></other:machine></metadata>"
    )
    found = machine(rest=marks)
    assert (found.tags, found.policy) == (["web", "{{ 7 * 7 }}"], "gold")


def test_networks_and_the_agent() -> None:
    found = machine(
        "<interface type='network'><mac address='52:54:00:00:00:01'/><source network='lan'/><model type='e1000e'/></interface>"
        "<interface type='bridge'><source network='lan' bridge='br0'/></interface>"
        "<interface type='bridge'><source bridge='br1'/></interface><interface type='user'/>"
        "<channel type='unix'><target type='virtio' name='org.qemu.guest_agent.0' state='connected'/></channel>"
    )
    assert [(nic.network_type, nic.network) for nic in found.nics] == [
        ("network", "lan"),
        ("network", "lan"),
        ("bridge", "br1"),
        ("user", ""),
    ]
    assert (found.nics[0].mac, found.nics[0].model, found.guest_agent) == ("52:54:00:00:00:01", "e1000e", True)


@pytest.mark.parametrize("text", ["", "<a", "<!DOCTYPE a [<!ENTITY b 'c'>]><a>&b;</a>", "<?xml version='1.0'?><!DOCTYPE x><a/>"])
def test_bad_and_dangerous_xml_is_refused(text: str) -> None:
    with pytest.raises(InvalidInputError):
        parse(text)
