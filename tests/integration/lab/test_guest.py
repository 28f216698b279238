# Copyright: (c) 2026, Sendense contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Guests of the lab without booting: block I/O from outside, names, descriptions."""

from __future__ import annotations

import os
import xml.etree.ElementTree as ET

import pytest

from tests.lab import disks
from tests.lab.guest import Guest
from tests.lab.paths import LabError

HOSTILE = """{{ lookup('pipe','touch pwned') }}; rm -rf "$HOME" <&>"""


def test_writes_from_outside_reach_the_image(paused_guest):
    guest = paused_guest
    odd = guest.disks["vdb"].size_bytes
    assert odd % 512 == 0 and odd % 65536 != 0
    guest.write("vda", 0xAB, 65536, 131072)
    guest.zero("vda", 65536, 4096)
    guest.discard("vda", 131072, 65536)
    guest.write("vdb", 7, odd - 512, 512)
    guest.write("vdc", 9, 0, 512)
    guest.flush()
    assert disks.read(guest.disks["vda"].image, 65536, 8192) == bytes(4096) + b"\xab" * 4096
    assert disks.read(guest.disks["vda"].image, 131072, 65536) == bytes(65536)
    assert disks.read(guest.disks["vdb"].image, odd - 1024, 1024) == bytes(512) + b"\x07" * 512
    assert disks.read(guest.disks["vdc"].image, 0, 1024) == b"\x09" * 512 + bytes(512)


def test_a_reference_copy_is_identical_until_the_next_write(paused_guest, tmp_path):
    paused_guest.write("vda", 1, 0, 1 << 20)
    paused_guest.flush()
    copied = disks.ImageFile(str(paused_guest.copy_disk("vda", tmp_path / "vda.raw")), "raw")
    assert disks.identical(paused_guest.disks["vda"].image, copied)
    paused_guest.write("vda", 2, 512, 512)
    paused_guest.flush()
    assert not disks.identical(paused_guest.disks["vda"].image, copied)


@pytest.mark.parametrize("offset, length", [(1, 512), (0, 100), (0, 0), (-512, 512), (64 << 20, 512)])
def test_a_range_outside_the_disk_is_refused(paused_guest, offset, length):
    with pytest.raises(LabError, match="no range of whole sectors"):
        paused_guest.write("vda", 1, offset, length)


def test_a_hostile_name_is_only_a_name(guest_factory, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    guest = guest_factory(HOSTILE).start(paused=True)
    guest.write("vda", 3, 0, 512)
    assert guest.domain.name() == HOSTILE
    assert HOSTILE not in str(guest.dir)
    assert guest.qemu_pid in guest.host.processes()
    assert os.listdir(tmp_path) == []


def test_every_disk_can_discard_and_has_a_serial(guest_factory):
    root = ET.fromstring(guest_factory(networks=["labnet"]).domain.XMLDesc(0))
    assert root.get("type") == "qemu"
    found = root.findall("./devices/disk")
    assert [disk.find("driver").get("type") for disk in found] == ["qcow2", "qcow2", "raw"]
    assert {disk.find("driver").get("discard") for disk in found} == {"unmap"}
    assert len({disk.findtext("serial") for disk in found}) == 3
    assert root.find("./devices/interface/source").get("network") == "labnet"


def test_a_machine_made_by_others_can_be_adopted(guest_factory):
    made = guest_factory()
    root = ET.fromstring(made.domain.XMLDesc(0))
    devices = root.find("devices")
    for console in devices.findall("serial") + devices.findall("console"):
        devices.remove(console)
    made.host.connection.defineXML(ET.tostring(root, encoding="unicode"))

    adopted = Guest.adopt(made.host, made.name)

    assert adopted.uuid == made.uuid
    assert adopted.disks == made.disks
    adopted.start(paused=True)
    assert adopted.console.log.exists()
    assert adopted.console.lines() == []


def test_a_removed_guest_is_gone(guest_factory):
    guest = guest_factory().start(paused=True)
    guest.remove()
    assert guest.host.connection.listAllDomains() == []
    assert not guest.dir.exists()
    guest.remove()
