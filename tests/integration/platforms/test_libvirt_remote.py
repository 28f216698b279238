# Copyright: (c) 2026, Sendense contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A libvirt host over qemu+ssh: logins that are refused, links that die or fall silent, and files that only its own host has."""

from __future__ import annotations

import os
import shutil
import signal
import tempfile
import time
from pathlib import Path
from typing import Iterator

import pytest

from ansible_collections.sendense.platform.plugins.module_utils.errors import (
    CapabilityMissingError,
    PlatformAuthenticationError,
    PlatformUnreachableError,
    SnapshotFailedError,
)
from ansible_collections.sendense.platform.plugins.module_utils.hubstate.statedir import StateDir
from ansible_collections.sendense.platform.plugins.module_utils.jobs.cleanup import clean_machine
from ansible_collections.sendense.platform.plugins.module_utils.jobs.doctor.examination import examine_node
from ansible_collections.sendense.platform.plugins.module_utils.jobs.doctor.tracking import examine_source
from ansible_collections.sendense.platform.plugins.module_utils.model import Machine
from ansible_collections.sendense.platform.plugins.module_utils.platforms import registry
from ansible_collections.sendense.platform.plugins.module_utils.platforms.libvirt.client import Client
from ansible_collections.sendense.platform.plugins.module_utils.platforms.libvirt.records import save_nvram
from tests.contract.libvirt_lab import tiny_disks
from tests.contract.libvirt_remote import RemoteHost, RemoteSourceLab, forbid_paths, remote_host
from tests.contract.source_contract import OWNER, Runner, levels
from tests.lab.guest import Guest
from tests.lab.host import LibvirtHost
from tests.lab.processes import wait_gone
from tests.lab.sshd import make_key


@pytest.fixture(scope="module")
def remote(libvirt_host: LibvirtHost) -> Iterator[RemoteHost]:
    with remote_host(libvirt_host) as remote:
        yield remote


@pytest.fixture
def far(remote: RemoteHost, monkeypatch: pytest.MonkeyPatch) -> Iterator[RemoteSourceLab]:
    guest = Guest.create(remote.host, "far", disks=tiny_disks()).start(paused=True)
    with monkeypatch.context() as patch:
        forbid_paths(patch)
        yield RemoteSourceLab(guest, remote)
    guest.remove()
    assert remote.left() == []


@pytest.mark.parametrize("name", ["known_hosts", "k" * 250], ids=["", "more words of ssh than libvirt takes"])
def test_a_server_that_is_not_the_known_one_is_refused(remote: RemoteHost, tmp_path: Path, name: str) -> None:
    known = tmp_path / name
    known.write_text(f"[{remote.sshd.address}]:{remote.sshd.port} {make_key(tmp_path / 'other')}\n")
    with pytest.raises(PlatformAuthenticationError, match="Host key verification failed"):
        registry.source("libvirt", {"uri": remote.uri.replace(str(remote.known_hosts), str(known))}).connect()


def test_a_key_that_the_host_does_not_know_is_refused(remote: RemoteHost, tmp_path: Path) -> None:
    make_key(tmp_path / "id")
    with pytest.raises(PlatformAuthenticationError, match="Permission denied"):
        registry.source("libvirt", {"uri": remote.uri.replace(str(remote.key), str(tmp_path / "id"))}).connect()


def test_a_job_that_another_node_runs_for_another_repository_is_not_taken_for_dead(far: RemoteSourceLab, tmp_path: Path) -> None:
    runner = Runner(far)
    with far.source() as source:
        snapshot = runner.open(source)
        here = StateDir(str(tmp_path))
        assert clean_machine(source, far.machine_id, here, "0" * 8, [], check_mode=False) == []
        assert [found["kind"] for found in source.stale(far.machine_id)] == ["job", "checkpoint"]
        machine = {"platform": "libvirt", "machine_id": far.machine_id}
        for owner, kinds in (("0" * 8, []), (OWNER, ["backup_job_left"])):
            asked = {"owner": owner, "known_change_ids": {}, "known_at": 0}
            assert [found.kind for found in examine_source(source, machine, here, asked)] == kinds
        ended = clean_machine(source, far.machine_id, here, OWNER, [], check_mode=False)
        assert [found["kind"] for found in ended] == ["job", "checkpoint"] and source.stale(far.machine_id) == []
        runner.end(source, snapshot, committed=False)


def test_connecting_leaves_no_file(remote: RemoteHost, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    with registry.source("libvirt", {"uri": remote.uri}) as source:
        assert source.stale("00000000-0000-4000-8000-000000000000") == [] and list(tmp_path.iterdir()) == []
    with pytest.raises(PlatformUnreachableError):
        registry.source("libvirt", {"uri": remote.uri.replace(str(remote.sshd.port), "1")}).connect()
    assert list(tmp_path.iterdir()) == []


def test_firmware_variables_come_over_ssh_whatever_their_path_is(
    remote: RemoteHost, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    forbid_paths(monkeypatch)
    hostile = remote.scratch_dir / "-n $(touch pwned) 'x\".fd"
    hostile.write_bytes(bytes(range(256)) * 2048)
    client = Client({"uri": remote.uri})
    try:
        copy, warnings = save_nvram(client, Machine(platform="libvirt", id="x", name="x", nvram_path=str(hostile)), str(tmp_path))
        assert (Path(copy).read_bytes(), warnings) == (hostile.read_bytes(), [])
    finally:
        hostile.unlink()
    missing, warnings = save_nvram(client, Machine(platform="libvirt", id="x", name="x", nvram_path=str(hostile)), str(tmp_path))
    assert missing == "" and "never started" in warnings[0]
    with pytest.raises(SnapshotFailedError, match="Is a directory"):
        save_nvram(client, Machine(platform="libvirt", id="x", name="x", nvram_path=str(remote.scratch_dir)), str(tmp_path))


def test_what_a_killed_qemu_leaves_is_found_and_removed_at_its_host(far: RemoteSourceLab) -> None:
    runner = Runner(far)
    with far.source() as source:
        snapshot = runner.open(source)
        os.kill(far.guest.host.qemu_pid(far.guest.uuid), signal.SIGKILL)
        assert wait_gone(lambda: not far.guest.active, 10.0)
        files = far.remote.left()
        assert any(name.endswith(".sock") for name in files)
        found = [finding.name for finding in source.tracking_findings(far.machine_id, OWNER, []) if finding.kind == "scratch_left"]
        assert found == [str(far.remote.scratch_dir / name) for name in files]
        with pytest.raises(CapabilityMissingError, match="switched off"):
            runner.plan(source)
        assert source.close_snapshot(far.machine_id, snapshot.job_id, OWNER, False, []) == [f"file {name}" for name in files]
        assert source.close_snapshot(far.machine_id, snapshot.job_id, OWNER, False, []) == []
        # Its bitmaps are in images that nobody here can open: they wait until the machine runs.
        far.power("running")
        assert levels(runner.backup(source)) == ["full", "full"]
        (left,) = source.stale(far.machine_id)
        assert left["name"] in (runner.previous or [])[0].change_id


def test_a_link_that_falls_silent_is_given_up(far: RemoteSourceLab) -> None:
    sshd = far.remote.sshd
    with far.source() as source:
        sessions = sshd.sessions()
        for pid in sessions:
            os.kill(pid, signal.SIGSTOP)
        began = time.monotonic()
        try:
            with pytest.raises(PlatformUnreachableError):
                source.stale(far.machine_id)
        finally:
            for pid in sessions:
                os.kill(pid, signal.SIGCONT)
        assert time.monotonic() - began < 40.0
        source.connect()
        assert source.stale(far.machine_id) == []


def test_the_doctor_concludes_nothing_about_files_of_its_own_place(far: RemoteSourceLab, tmp_path: Path) -> None:
    state = StateDir(tempfile.mkdtemp(prefix="se-")).create()
    (tmp_path / f"sendense-{'a' * 32}-disk0.qcow2").write_text("of a machine of this place, about which nobody asked")
    machine = {"platform": "libvirt", "machine_id": far.machine_id, "connection": far.connection}
    given = {"state_dir": state.path, "machines": [machine], "storage": [str(tmp_path)], "mend": []}
    assert examine_node({**given, "owner": OWNER, "known_change_ids": {}, "known_at": 0.0}, False)["findings"] == []
    shutil.rmtree(state.path)
