# Copyright: (c) 2026, Sendense contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Freezing a guest that really runs: what is reached, and that it is thawed whatever happens."""

from __future__ import annotations

from typing import Iterator

import libvirt
import pytest

from ansible_collections.sendense.platform.plugins.module_utils.errors import QuiesceFailedError, SnapshotFailedError
from ansible_collections.sendense.platform.plugins.module_utils.platforms._base import APPLICATION, CRASH, FILE_SYSTEM, Source
from ansible_collections.sendense.platform.plugins.module_utils.platforms.libvirt import backup_job
from tests.contract.libvirt_lab import LibvirtSourceLab
from tests.contract.source_contract import OWNER, Runner
from tests.lab.agent import GuestAgent
from tests.lab.guest import Guest
from tests.lab.host import LibvirtHost
from tests.lab.processes import wait_gone


@pytest.fixture(scope="module")
def guest(libvirt_host: LibvirtHost) -> Iterator[Guest]:
    guest = Guest.bootable(libvirt_host, "quiesced").start()
    guest.wait_ready()
    guest.agent.wait()
    yield guest
    guest.remove()


@pytest.fixture
def running(guest: Guest) -> Iterator[LibvirtSourceLab]:
    lab = LibvirtSourceLab(guest, agent_timeout=3)
    yield lab
    assert guest.agent.freeze_status() == "thawed"
    lab.remove()


@pytest.fixture
def looking(running: LibvirtSourceLab) -> Iterator[Source]:
    with running.source() as source:
        yield source


def outcome(running: LibvirtSourceLab, source: Source, wanted: str, **policy: bool) -> "tuple[str, str, str]":
    """Wanted, reached and why, of a snapshot that is ended at once; the guest must be thawed while it is open."""
    runner = Runner(running)
    plan = runner.plan(source, consistency=wanted)
    snapshot = runner.open(source, consistency=wanted, **policy)
    if running.guest.domain.state()[0] == libvirt.VIR_DOMAIN_RUNNING:
        assert running.guest.agent.freeze_status() == "thawed"
    runner.end(source, snapshot, committed=False)
    assert plan.consistency == snapshot.consistency or snapshot.consistency_reason.startswith("agent_error")
    return snapshot.consistency_wanted, snapshot.consistency, snapshot.consistency_reason


def test_a_guest_with_an_agent_is_file_system_consistent(running: LibvirtSourceLab, looking: Source) -> None:
    assert looking.machine(running.machine_id).guest_agent
    assert outcome(running, looking, FILE_SYSTEM, allow_downgrade=False) == (FILE_SYSTEM, FILE_SYSTEM, "")
    assert outcome(running, looking, CRASH) == (CRASH, CRASH, "")
    assert outcome(running, looking, APPLICATION) == (APPLICATION, FILE_SYSTEM, "application_hooks_unknown")


def test_a_paused_guest_is_never_frozen(running: LibvirtSourceLab, looking: Source) -> None:
    running.guest.suspend()
    assert outcome(running, looking, FILE_SYSTEM) == (FILE_SYSTEM, CRASH, "paused")
    with pytest.raises(QuiesceFailedError, match="paused"):
        Runner(running).open(looking, consistency=FILE_SYSTEM, allow_downgrade=False)
    running.guest.resume()
    running.guest.agent.wait()


def test_a_snapshot_that_fails_leaves_the_guest_thawed(running: LibvirtSourceLab, looking: Source) -> None:
    runner = Runner(running)
    request = runner.request(consistency=FILE_SYSTEM)
    plan = looking.plan(request)
    obstacle = running.work_dir / f"sendense-scratch-{request.job_id[:8]}-disk0.qcow2"
    obstacle.mkdir()
    with pytest.raises(SnapshotFailedError):
        looking.open_snapshot(request, plan)
    obstacle.rmdir()
    assert running.guest.agent.freeze_status() == "thawed"
    assert looking.stale(running.machine_id) == []


def test_what_a_dead_job_left_frozen_is_thawed(running: LibvirtSourceLab, looking: Source) -> None:
    assert running.guest.agent.freeze() > 0
    removed = looking.close_snapshot(running.machine_id, "d" * 32, OWNER, False, [])
    assert removed == ["freeze of the guest's file systems"]
    assert running.guest.agent.freeze_status() == "thawed"
    assert looking.close_snapshot(running.machine_id, "d" * 32, OWNER, False, []) == []


def test_a_guest_is_thawed_also_if_its_job_cannot_be_ended(
    running: LibvirtSourceLab, looking: Source, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(_domain: libvirt.virDomain, job_id: str) -> None:
        raise SnapshotFailedError(f"Cannot end backup job {job_id}")

    monkeypatch.setattr(backup_job, "end", refuse)
    assert running.guest.agent.freeze() > 0
    with pytest.raises(SnapshotFailedError):
        looking.close_snapshot(running.machine_id, "d" * 32, OWNER, False, [])
    assert running.guest.agent.freeze_status() == "thawed"


def test_an_agent_that_does_not_answer_is_a_recorded_downgrade(running: LibvirtSourceLab, looking: Source) -> None:
    """A guest that froze itself refuses the next freeze: the agent answers with an error."""
    running.guest.agent.freeze()
    wanted, reached, reason = outcome(running, looking, FILE_SYSTEM)
    assert (wanted, reached) == (FILE_SYSTEM, CRASH) and reason.startswith("agent_error: ")
    running.guest.agent.freeze()
    with pytest.raises(QuiesceFailedError) as failed:
        Runner(running).open(looking, consistency=FILE_SYSTEM, allow_downgrade=False)
    assert failed.value.retryable and looking.stale(running.machine_id) == []


def test_an_agent_that_hangs_is_a_recorded_downgrade(running: LibvirtSourceLab, looking: Source) -> None:
    hang = ["-c", "sleep 1; kill -STOP $PPID; sleep 12; kill -CONT $PPID"]
    running.guest.agent.call("guest-exec", {"path": "/bin/sh", "arg": hang})
    impatient = GuestAgent(running.guest.domain, timeout_s=1)
    assert wait_gone(lambda: not impatient.ping(), 10)
    wanted, reached, reason = outcome_of_hang(running, looking)
    assert (wanted, reached) == (FILE_SYSTEM, CRASH) and reason.startswith("agent_error: ")
    assert wait_gone(impatient.ping, 60)


def outcome_of_hang(running: LibvirtSourceLab, source: Source) -> "tuple[str, str, str]":
    runner = Runner(running)
    snapshot = runner.open(source, consistency=FILE_SYSTEM)
    runner.end(source, snapshot, committed=False)
    return snapshot.consistency_wanted, snapshot.consistency, snapshot.consistency_reason
