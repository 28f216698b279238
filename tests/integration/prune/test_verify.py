# Copyright: (c) 2026, Sendense contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""``backup_verify`` at a hub: what it says of a disk names the device that the machine's operator knows, and the mark does, too."""

from __future__ import annotations

import os

import pytest

from .conftest import Hub


@pytest.mark.parametrize("damage", ["cut", "flip"])
def test_a_finding_names_the_device_of_the_disk(hub: Hub, damage: str) -> None:
    for number, disk in enumerate(hub.guest.machine.disks):
        disk.device = f"vd{'abc'[number]}"
    base, top = hub.backups(2)
    image = hub.directory / "r" / "machines" / hub.guest.key / "points" / base / "disk1.qcow2"
    if damage == "cut":  # shows without reading data
        os.truncate(image, image.stat().st_size - 512)
    else:
        content = bytearray(image.read_bytes())
        content[-1024] ^= 4
        image.write_bytes(content)
    result = hub.verify()
    assert not result["ok"] and result["marked"] == [base, top]
    assert "disk1 (vdb)" in result["points"][0]["damage"] and "disk0" not in result["points"][0]["damage"]
    assert "disk1 (vdb)" in hub.repository.get(hub.guest.key, base).damage
