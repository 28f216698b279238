# Copyright: (c) 2026, Sendense contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Guests of the lab that boot from their own disk and write until they are stopped."""

from __future__ import annotations

import time

import pytest

from tests.lab import disks
from tests.lab.counters import one_instant
from tests.lab.processes import wait_gone


@pytest.fixture
def booting(guest_factory):
    """A BIOS, a UEFI and a quiet guest, started at the same time: booting one takes as long as booting three."""
    bios = guest_factory(boots=True, networks=["labnet"])
    uefi = guest_factory(boots=True, firmware="uefi", memory_mib=256)
    quiet = guest_factory(boots=True, quiet=True)
    return [guest.start() for guest in (bios, uefi, quiet)]


def test_guests_boot_from_their_own_disk_write_freeze_and_restart(booting):
    bios, uefi, quiet = booting
    for guest, firmware in ((bios, "bios"), (uefi, "uefi"), (quiet, "bios")):
        assert guest.wait_ready() == "none"
        assert guest.console.values("LAB FIRMWARE ") == [firmware]
        assert guest.console.values("LAB COUNTERS ") == ["- - -"]
        assert guest.console.values("LAB FILES ")[0].startswith("ok ")

    for guest in (bios, uefi):
        guest.wait_counter(5)
        check_one_instant(guest)
    check_freeze(bios)
    check_freeze(uefi)
    assert quiet.counters() == [None, None, None]
    assert quiet.console.values("LAB COUNTER ") == []

    check_power_cut(bios, "0123456789abcdef")
    check_shutdown(uefi, by_agent=True)
    check_shutdown(quiet, by_agent=False)


def check_one_instant(guest):
    """The counters of a suspended guest fit; one disk of a later instant does not."""
    guest.suspend()
    guest.flush()
    first = guest.counters()
    guest.resume()
    assert one_instant(first), first
    guest.wait_counter(first[0] + 3)
    guest.suspend()
    guest.flush()
    later = guest.counters()
    guest.resume()
    assert one_instant(later), later
    assert not one_instant([first[0], first[1], later[2]])
    assert not one_instant([later[0], first[1], first[2]])


def check_freeze(guest):
    """A frozen guest's file system stands still, byte by byte, and goes on when thawed; the counters never stop."""
    agent = guest.agent.wait()
    assert agent.freeze() == 1
    try:
        assert agent.freeze_status() == "frozen"
        before = superblock_and_log(guest)
        guest.wait_counter(guest.wait_counter() + 20)
        assert superblock_and_log(guest) == before
    finally:
        assert agent.thaw() == 1
    assert agent.freeze_status() == "thawed"
    assert wait_gone(lambda: superblock_and_log(guest) != before, 10), "nothing was written after the thaw"


def superblock_and_log(guest):
    """The first 32 MiB of the guest's file system: superblock, metadata, journal."""
    guest.flush("vda")
    return disks.read(guest.disks["vda"].image, 88064 * 512, 32 * disks.MIB)


def check_power_cut(guest, nonce):
    """What was flushed before the plug is pulled is there at the next boot."""
    guest.agent.write_file("/data/nonce", nonce.encode())
    assert guest.agent.read_file("/data/nonce") == nonce.encode()
    newest = guest.wait_counter()
    guest.destroy()
    left = guest.counters()
    assert one_instant(left) and left[-1] >= newest - 1
    guest.start()
    assert guest.wait_ready() == nonce
    assert guest.console.values("LAB NONCE ") == [nonce]
    assert guest.console.values("LAB COUNTERS ") == [" ".join(str(number) for number in left)]
    assert guest.wait_counter() > left[0]


def check_shutdown(guest, by_agent):
    """It switches itself off when asked by the agent or by the power button."""
    flags = 2 if by_agent else 1
    guest.domain.shutdownFlags(flags)
    deadline = time.monotonic() + 20
    while guest.active and time.monotonic() < deadline:
        time.sleep(0.1)
    assert not guest.active
