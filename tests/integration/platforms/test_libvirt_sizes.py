# Copyright: (c) 2026, Sendense contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Sizes of disks: for each question about one disk libvirt makes qemu describe all disks, so there is one question for all."""

from __future__ import annotations

from typing import Any, Dict, List

import libvirt
import pytest

from ansible_collections.sendense.platform.plugins.module_utils.platforms.libvirt.client import Client
from ansible_collections.sendense.platform.plugins.module_utils.platforms.libvirt.discovery import describe
from tests.contract.libvirt_lab import tiny_disks
from tests.lab.guest import Guest


@pytest.fixture
def asked(monkeypatch) -> List[str]:
    """The disks about which libvirt is asked one by one."""
    devices: List[str] = []
    ask = libvirt.virDomain.blockInfo

    def noted(domain: libvirt.virDomain, device: str, flags: int = 0) -> Any:
        devices.append(device)
        return ask(domain, device, flags)

    monkeypatch.setattr(libvirt.virDomain, "blockInfo", noted)
    return devices


@pytest.fixture
def guest(guest_factory) -> Guest:
    return guest_factory(disks=tiny_disks())


def sizes(guest: Guest) -> Dict[str, int]:
    client = Client({"uri": guest.host.uri, "domain_type": "qemu"})
    client.connect()
    try:
        return {disk.device: disk.size_bytes for disk in describe(client, client.domain(guest.uuid)).disks}
    finally:
        client.close()


def test_a_running_machine_is_asked_once_for_all_its_disks(guest, asked):
    guest.start(paused=True)
    assert sizes(guest) == {target: disk.size_bytes for target, disk in guest.disks.items()}
    assert len(guest.disks) > 1 and asked == []


def test_a_disk_that_grew_has_its_new_size_at_once(guest):
    guest.start(paused=True)
    target, disk = next(iter(guest.disks.items()))
    guest.domain.blockResize(target, 2 * disk.size_bytes, libvirt.VIR_DOMAIN_BLOCK_RESIZE_BYTES)
    assert sizes(guest)[target] == 2 * disk.size_bytes


def test_disks_of_a_machine_that_is_off_are_asked_for_one_by_one(guest, asked):
    assert sizes(guest) == {target: disk.size_bytes for target, disk in guest.disks.items()}
    assert asked == list(guest.disks)
