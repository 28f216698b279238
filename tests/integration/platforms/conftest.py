# Copyright: (c) 2026, Sendense contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A libvirt guest for tests of the platform: shared by a module, as new for every test."""

from __future__ import annotations

from typing import Iterator

import pytest

from ansible_collections.sendense.platform.plugins.module_utils.platforms._base import Source
from tests.contract.libvirt_lab import LibvirtSourceLab, tiny_disks
from tests.contract.source_contract import Runner
from tests.lab.fixtures import guest_factory, host_factory, lab_base, libvirt_host
from tests.lab.guest import Guest
from tests.lab.host import LibvirtHost

__all__ = ["guest_factory", "host_factory", "lab_base", "libvirt_host"]


@pytest.fixture(scope="module")
def stopped_processor(libvirt_host: LibvirtHost) -> Iterator[Guest]:
    guest = Guest.create(libvirt_host, "shared", disks=tiny_disks()).start(paused=True)
    yield guest
    guest.remove()


@pytest.fixture
def lab(stopped_processor: Guest) -> Iterator[LibvirtSourceLab]:
    lab = LibvirtSourceLab(stopped_processor)
    yield lab
    lab.remove()


@pytest.fixture
def source(lab: LibvirtSourceLab) -> Iterator[Source]:
    with lab.source() as source:
        yield source


@pytest.fixture
def runner(lab: LibvirtSourceLab) -> Runner:
    return Runner(lab)
