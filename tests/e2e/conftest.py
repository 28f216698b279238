# Copyright: (c) 2026, Sendense contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Hosts, guests and installations that the end-to-end tests share."""

from __future__ import annotations

import shutil
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Iterator

import pytest

from tests.lab.fixtures import guest_factory, host_factory, lab_base, libvirt_host, paused_guest
from tests.lab.guest import Guest
from tests.lab.host import LibvirtHost

from .points import leftovers
from .site import Site

__all__ = ["guest_factory", "host_factory", "lab_base", "libvirt_host", "paused_guest"]


@dataclass
class Booted:
    """Two guests that have booted from their own disks and write; suspended while no test uses them."""

    bios: Guest
    uefi: Guest


@pytest.fixture(scope="session")
def e2e_host(lab_base: Path) -> Iterator[LibvirtHost]:
    """A libvirt host whose machines outlive single tests."""
    with LibvirtHost("e2e", lab_base) as host:
        yield host


@pytest.fixture(scope="session")
def booted(e2e_host: LibvirtHost) -> Booted:
    """Booted once, both at the same time: under TCG a boot takes longer than anything else here."""
    bios = Guest.bootable(e2e_host, "e2e-bios", networks=["labnet"]).start()
    uefi = Guest.bootable(e2e_host, "e2e-uefi", firmware="uefi", memory_mib=256).start()
    for guest in (bios, uefi):
        guest.wait_ready()
        guest.wait_counter(3)
        guest.agent.wait()
        guest.suspend()
    return Booted(bios, uefi)


@pytest.fixture(scope="module")
def module_directory() -> Iterator[Path]:
    """A directory with a path that is short enough for the sockets of jobs."""
    directory = Path(tempfile.mkdtemp(prefix="se-"))
    yield directory
    shutil.rmtree(directory)


@pytest.fixture(scope="module")
def e2e_site(e2e_host: LibvirtHost, module_directory: Path) -> Iterator[Site]:
    """An installation with an empty repository; after the tests nothing of any job may be left in it."""
    site = Site(module_directory, [e2e_host.uri])
    site.initialise()
    yield site
    assert leftovers(site, e2e_host) == []
