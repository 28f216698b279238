# Copyright: (c) 2026, Sendense contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""libvirt as a source against the contract, over qemu+ssh and a real sshd."""

from __future__ import annotations

from typing import Iterator

import pytest

from tests.contract.libvirt_lab import HOSTILE_NAME, tiny_disks
from tests.contract.libvirt_remote import RemoteHost, RemoteSourceLab, forbid_paths, remote_host
from tests.contract.source_contract import SourceContract
from tests.contract.source_doctor import SourceDoctorContract
from tests.lab.guest import Guest
from tests.lab.host import LibvirtHost


@pytest.fixture(scope="module")
def remote(libvirt_host: LibvirtHost) -> Iterator[RemoteHost]:
    with remote_host(libvirt_host) as remote:
        yield remote


@pytest.fixture(scope="module")
def guest(remote: RemoteHost) -> Iterator[Guest]:
    guest = Guest.create(remote.host, HOSTILE_NAME, disks=tiny_disks()).start(paused=True)
    yield guest
    guest.remove()


class TestLibvirtSourceOverSsh(SourceContract, SourceDoctorContract):
    """A guest with a hostile name, two disks that can be tracked and a raw one, none of which this place could open by path."""

    @pytest.fixture
    def lab(self, guest: Guest, remote: RemoteHost, monkeypatch: pytest.MonkeyPatch) -> Iterator[RemoteSourceLab]:
        forbid_paths(monkeypatch)
        lab = RemoteSourceLab(guest, remote)
        yield lab
        lab.remove()
