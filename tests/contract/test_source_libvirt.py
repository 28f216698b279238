# Copyright: (c) 2026, Sendense contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""libvirt as a source against the contract."""

from __future__ import annotations

from typing import Iterator

import pytest

from tests.contract.libvirt_lab import HOSTILE_NAME, LibvirtSourceLab, tiny_disks
from tests.contract.source_contract import SourceContract
from tests.contract.source_doctor import SourceDoctorContract
from tests.lab.guest import Guest
from tests.lab.host import LibvirtHost


@pytest.fixture(scope="module")
def guest(libvirt_host: LibvirtHost) -> Iterator[Guest]:
    guest = Guest.create(libvirt_host, HOSTILE_NAME, disks=tiny_disks()).start(paused=True)
    yield guest
    guest.remove()


class TestLibvirtSource(SourceContract, SourceDoctorContract):
    """A guest with a hostile name, two disks that can be tracked and a raw one; the tests share it, stopping qemu is slow."""

    @pytest.fixture
    def lab(self, guest: Guest) -> Iterator[LibvirtSourceLab]:
        lab = LibvirtSourceLab(guest)
        yield lab
        lab.remove()
