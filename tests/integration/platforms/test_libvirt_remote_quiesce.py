# Copyright: (c) 2026, Sendense contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A guest that really runs, frozen over qemu+ssh, and a link that dies before it can be thawed."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Callable, Iterator

import pytest

from ansible_collections.sendense.platform.plugins.module_utils.agent import release
from ansible_collections.sendense.platform.plugins.module_utils.errors import SendenseError
from ansible_collections.sendense.platform.plugins.module_utils.hubstate.undo import UNREACHABLE
from ansible_collections.sendense.platform.plugins.module_utils.platforms._base import FILE_SYSTEM
from ansible_collections.sendense.platform.plugins.module_utils.platforms.libvirt import online
from tests.contract.libvirt_remote import RemoteHost, RemoteSourceLab, forbid_paths, remote_host
from tests.contract.source_contract import OWNER, Runner
from tests.lab.guest import Guest
from tests.lab.host import LibvirtHost
from tests.lab.processes import wait_gone


@pytest.fixture(scope="module")
def remote(libvirt_host: LibvirtHost) -> Iterator[RemoteHost]:
    with remote_host(libvirt_host) as remote:
        yield remote


@pytest.fixture(scope="module")
def guest(remote: RemoteHost) -> Iterator[Guest]:
    guest = Guest.bootable(remote.host, "far-running").start()
    guest.wait_ready()
    guest.agent.wait()
    yield guest
    guest.remove()


@pytest.fixture
def far(guest: Guest, remote: RemoteHost) -> Iterator[RemoteSourceLab]:
    lab = RemoteSourceLab(guest, remote, agent_timeout=5)
    with pytest.MonkeyPatch.context() as patch:
        forbid_paths(patch)
        yield lab
    assert guest.agent.freeze_status() == "thawed"
    lab.remove()


def at_the_freeze(monkeypatch: pytest.MonkeyPatch, act: Callable[[], None]) -> None:
    """Do something between freeze and thaw."""
    monkeypatch.setattr(online, "reached", lambda step: act() if step == "libvirt:frozen" else None)


def test_a_guest_is_frozen_and_thawed_over_ssh(far: RemoteSourceLab) -> None:
    runner = Runner(far)
    with far.source() as source:
        snapshot = runner.open(source, consistency=FILE_SYSTEM, allow_downgrade=False)
        assert (snapshot.consistency, snapshot.consistency_reason) == (FILE_SYSTEM, "")
        assert far.guest.agent.freeze_status() == "thawed"
        runner.end(source, snapshot, committed=False)
    assert wait_gone(lambda: "timeout" not in far.remote.sshd.processes().values(), 10.0)  # the guard has gone


def test_a_guest_thaws_by_itself_if_the_link_is_cut_while_it_is_frozen(far: RemoteSourceLab, monkeypatch: pytest.MonkeyPatch) -> None:
    states = []

    def cut() -> None:
        states.append(far.guest.agent.freeze_status())
        far.remote.sshd.cut()

    at_the_freeze(monkeypatch, cut)
    source = far.source()
    source.connect()
    with pytest.raises(SendenseError):
        Runner(far).open(source, consistency=FILE_SYSTEM)
    assert states == ["frozen"]
    assert wait_gone(lambda: far.guest.agent.freeze_status() == "thawed", 20.0)
    source.close()


def test_the_undo_thaws_when_the_link_is_back_at_a_host_that_has_no_virsh(
    far: RemoteSourceLab, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(online, "_guard", lambda *_arguments: None)
    at_the_freeze(monkeypatch, far.remote.sshd.stop)
    runner = Runner(far)
    request = runner.request(consistency=FILE_SYSTEM)
    order = {"kind": "snapshot", "platform": "libvirt", "connection": far.connection, "machine_id": far.machine_id}
    path = tmp_path / "undo.json"
    path.write_text(json.dumps(dict(order, job_id=request.job_id, owner=OWNER, repository=None)))
    with far.source() as source, pytest.raises(SendenseError) as failed:
        source.open_snapshot(request, source.plan(request))
    began = time.monotonic()
    assert far.guest.agent.freeze_status() == "frozen", failed.value.msg
    assert "FROZEN" in failed.value.msg and release.main(["--file", str(path)]) == UNREACHABLE
    far.remote.sshd.start()
    assert release.main(["--file", str(path)]) == 0
    assert far.guest.agent.freeze_status() == "thawed" and time.monotonic() - began < 60.0
