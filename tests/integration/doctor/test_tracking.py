# Copyright: (c) 2026, Sendense contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What the doctor finds at real libvirt machines: planted, found, mended, gone; foreign checkpoints and running jobs stay."""

from __future__ import annotations

import os
import shutil
import signal
import tempfile
import time
from pathlib import Path
from typing import Any, Callable, Dict, Iterator, List, Tuple

import libvirt
import pytest

from ansible_collections.sendense.platform.plugins.module_utils.hubstate.jobs import JobDir
from ansible_collections.sendense.platform.plugins.module_utils.hubstate.statedir import StateDir
from ansible_collections.sendense.platform.plugins.module_utils.jobs.doctor.examination import examine_node
from ansible_collections.sendense.platform.plugins.module_utils.jobs.doctor.kinds import MENDABLE, Diagnosis
from ansible_collections.sendense.platform.plugins.module_utils.jobs.doctor.tracking import (
    choose,
    examine_disks,
    examine_source,
    mend_source,
)
from ansible_collections.sendense.platform.plugins.module_utils.platforms._base import FULL, INCREMENTAL, Source
from tests.contract.libvirt_lab import LibvirtSourceLab, tiny_disks
from tests.contract.source_contract import OTHER_OWNER, OWNER, Runner, levels
from tests.contract.source_doctor import known
from tests.integration.platforms.conftest import guest_factory, host_factory, lab, lab_base, libvirt_host, runner, source, stopped_processor
from tests.lab import disks as diskfiles
from tests.lab.guest import Guest
from tests.lab.host import LibvirtHost
from tests.lab.processes import wait_gone

__all__ = ["guest_factory", "host_factory", "lab", "lab_base", "libvirt_host", "runner", "source", "stopped_processor"]


@pytest.fixture
def state() -> Iterator[StateDir]:
    path = tempfile.mkdtemp(prefix="sdd")
    yield StateDir(path)
    shutil.rmtree(path)


def asked(runner: Runner) -> Dict[str, object]:
    """What the hub would have answered a second from now: nothing of the test is newer."""
    return {"owner": OWNER, "known_change_ids": {runner.lab.machine_id: known(runner)}, "known_at": time.time() + 1}


def machine(runner: Runner) -> Dict[str, str]:
    return {"platform": "libvirt", "machine_id": runner.lab.machine_id}


def look(source: Source, runner: Runner, state: StateDir) -> List[Diagnosis]:
    return examine_source(source, machine(runner), state, asked(runner))


def mended(source: Source, runner: Runner, state: StateDir) -> List[Tuple[str, bool]]:
    found = look(source, runner, state)
    mend_source(source, machine(runner), state, asked(runner), choose(found, MENDABLE, f"libvirt-{runner.lab.machine_id}"))
    assert all(one.mended or not one.mendable for one in found), [one.why_not for one in found]
    return [(one.kind, one.mended) for one in found]


def kill_qemu(lab: LibvirtSourceLab) -> None:
    os.kill(lab.guest.qemu_pid, signal.SIGKILL)
    assert wait_gone(lambda: not lab.guest.active, 10)


@pytest.mark.parametrize("power", ["off", "running"])
def test_a_bitmap_in_use_is_found_and_removed(lab: LibvirtSourceLab, source: Source, runner: Runner, state: StateDir, power: str) -> None:
    token = runner.backup(source).token
    lab.power("off")
    lab.power("running")
    kill_qemu(lab)
    lab.power(power)
    (found,) = look(source, runner, state)
    assert (found.kind, found.object, found.machine_id) == ("tracking_inconsistent", token, lab.machine_id) and "vda, vdb" in found.found
    assert mended(source, runner, state) == [("tracking_inconsistent", True)]
    assert lab.checkpoints() == lab.bitmaps("vda") == []
    assert mended(source, runner, state) == [("tracking_lost", False)]
    lab.power("running")
    assert levels(runner.backup(source)) == [FULL, FULL]
    assert look(source, runner, state) == []
    assert levels(runner.backup(source)) == [INCREMENTAL, INCREMENTAL]


def test_a_checkpoint_whose_bitmap_was_wiped(lab: LibvirtSourceLab, source: Source, runner: Runner, state: StateDir) -> None:
    token = runner.backup(source).token
    lab.power("off")
    lab.remove_bitmap("vda", token)
    lab.power("running")
    (found,) = look(source, runner, state)
    assert (found.kind, found.object) == ("checkpoint_without_bitmap", token) and found.found.endswith("of vda is gone")
    assert mended(source, runner, state) == [("checkpoint_without_bitmap", True)]
    assert lab.checkpoints() == []
    runner.backup(source)
    assert look(source, runner, state) == []


@pytest.mark.parametrize("power", ["off", "running"])
def test_a_bitmap_that_libvirt_does_not_know(lab: LibvirtSourceLab, source: Source, runner: Runner, state: StateDir, power: str) -> None:
    lab.power("off")
    dead = runner.open(source)
    lab.power(power)
    (found,) = look(source, runner, state)
    assert (found.kind, found.object) == ("bitmap_without_checkpoint", dead.token)
    assert mended(source, runner, state) == [("bitmap_without_checkpoint", True)]
    assert mended(source, runner, state) == [] and lab.bitmaps("vda") == lab.bitmaps("vdb") == []
    lab.power("running")


def test_a_sound_bitmap_that_libvirt_forgot_is_no_finding(lab: LibvirtSourceLab, source: Source, runner: Runner, state: StateDir) -> None:
    runner.backup(source)
    lab.power("off")
    for checkpoint in lab.guest.domain.listAllCheckpoints():
        checkpoint.delete(libvirt.VIR_DOMAIN_CHECKPOINT_DELETE_METADATA_ONLY)
    assert look(source, runner, state) == []
    lab.power("running")
    assert look(source, runner, state) == []
    assert levels(runner.backup(source)) == [INCREMENTAL, INCREMENTAL]


def test_a_lost_parent_of_a_checkpoint(host_factory: Callable[[], LibvirtHost], state: StateDir) -> None:
    host = host_factory()
    lab = LibvirtSourceLab(Guest.create(host, "orphaned", disks=tiny_disks()[:2]).start(paused=True))
    runner = Runner(lab)
    theirs = "<domaincheckpoint><name>theirs</name><disks><disk name='vdb' checkpoint='bitmap'/></disks></domaincheckpoint>"
    lab.guest.domain.checkpointCreateXML(theirs)
    with lab.source() as source:
        token = runner.backup(source).token
    (file,) = Path(host.dir).rglob("theirs.xml")
    host.kill()
    file.unlink()
    host.restart()
    with lab.source() as source:
        (found,) = look(source, runner, state)
        assert (found.kind, found.object) == ("checkpoint_chain_broken", token) and "'theirs'" in found.found
        assert mended(source, runner, state) == [("checkpoint_chain_broken", True)]
        assert mended(source, runner, state) == []
        assert levels(runner.backup(source)) == [INCREMENTAL, INCREMENTAL]


def test_a_backup_job_whose_job_is_dead_is_ended_and_that_of_a_living_one_goes_on(
    lab: LibvirtSourceLab, source: Source, runner: Runner, state: StateDir
) -> None:
    runner.backup(source)
    snapshot = runner.open(source)
    living = JobDir.create(state.create(), snapshot.job_id, "node", {"machine_key": f"libvirt-{lab.machine_id}"})
    assert look(source, runner, state) == []
    living.remove()
    assert living.lock is not None
    living.lock.release()
    (found,) = look(source, runner, state)
    assert (found.kind, found.details["job_id"]) == ("backup_job_left", snapshot.job_id)
    assert mended(source, runner, state) == [("backup_job_left", True)]
    assert mended(source, runner, state) == [("tracking_unneeded", True)]
    assert mended(source, runner, state) == []
    assert levels(runner.backup(source)) == [INCREMENTAL, INCREMENTAL]


def test_nothing_is_mended_while_a_job_works_on_the_machine(lab: LibvirtSourceLab, source: Source, runner: Runner, state: StateDir) -> None:
    snapshot = runner.open(source)
    source.close_snapshot(lab.machine_id, snapshot.job_id, "", False, [])
    found = look(source, runner, state)
    living = JobDir.create(state.create(), "ab" * 16, "node", {"machine_key": f"libvirt-{lab.machine_id}"})
    mend_source(source, machine(runner), state, asked(runner), found)
    assert [(one.kind, one.mended) for one in found] == [("tracking_unneeded", False)] and "at work" in found[0].why_not
    living.remove()
    assert living.lock is not None
    living.lock.release()
    assert mended(source, runner, state) == [("tracking_unneeded", True)]


def test_what_a_job_made_after_the_hub_looked_is_not_judged(lab: LibvirtSourceLab, source: Source, runner: Runner, state: StateDir) -> None:
    before = dict(asked(runner), known_at=time.time() - 60)
    runner.backup(source)
    assert examine_source(source, machine(runner), state, before) == []


@pytest.mark.parametrize("asked_of", [{"owner": ""}, {"known_change_ids": {}}])
def test_without_the_repositorys_answer_tracking_is_not_judged(
    lab: LibvirtSourceLab, source: Source, runner: Runner, state: StateDir, asked_of: Dict[str, object]
) -> None:
    runner.backup(source)
    runner.previous = None
    assert examine_source(source, machine(runner), state, {**asked(runner), **asked_of}) == []
    assert mended(source, runner, state) == [("tracking_unneeded", True)]


def test_what_is_not_ours_is_no_finding(lab: LibvirtSourceLab, source: Source, runner: Runner, state: StateDir) -> None:
    other = Runner(lab, OTHER_OWNER)
    other.backup(source)
    for name in ("theirs", "x-backup-2026-01-01-00-00-00-zzzzzzzz-00000000"):
        xml = f"<domaincheckpoint><name>{name}</name><disks><disk name='vda' checkpoint='bitmap'/></disks></domaincheckpoint>"
        lab.guest.domain.checkpointCreateXML(xml)
    before = lab.checkpoints()
    assert mended(source, runner, state) == [] and lab.checkpoints() == before


def test_an_image_whose_chain_cannot_be_read(lab: LibvirtSourceLab, source: Source, runner: Runner, state: StateDir) -> None:
    runner.backup(source)
    lab.power("off")
    path = str(lab.guest.disks["vda"].path)
    diskfiles.run(["qemu-img", "rebase", "-u", "-f", "qcow2", "-b", path, "-F", "qcow2", path])
    found = look(source, runner, state)
    diskfiles.run(["qemu-img", "rebase", "-u", "-f", "qcow2", "-b", "", path])
    assert "source_image_unreadable" in [one.kind for one in found]
    assert look(source, runner, state) == []
    lab.power("running")


def test_scratch_files_of_dead_jobs(lab: LibvirtSourceLab, runner: Runner, state: StateDir) -> None:
    scratch = lab.work_dir / "scratch"
    scratch.mkdir()
    lab.connection["scratch_dir"] = str(scratch)
    with lab.source() as source:
        snapshot = runner.open(source)
        for name in ("sendense-scratch-0badcafe-disk0.qcow2", "sb-0badcafe-aaaaaaaa.sock", "notes.txt", "sendense-scratch-x.qcow2"):
            (scratch / name).write_text("")
        assert {"scratch_left"} <= {kind for kind, _mended in mended_files(source, runner, state)}
        left = sorted(path.name for path in scratch.iterdir())
        assert "notes.txt" in left and "sendense-scratch-x.qcow2" in left and not any("0badcafe" in name for name in left)
        assert any(name.startswith(f"sendense-scratch-{snapshot.job_id[:8]}") for name in left)
        runner.end(source, snapshot, committed=False)
        assert mended(source, runner, state) == []
    shutil.rmtree(scratch)


def mended_files(source: Source, runner: Runner, state: StateDir) -> List[Tuple[str, bool]]:
    """Mend scratch files only: the lab's own job runs without a job directory, so it would count as dead."""
    found = look(source, runner, state)
    mend_source(
        source, machine(runner), state, asked(runner), choose(found, frozenset({"scratch_left"}), f"libvirt-{runner.lab.machine_id}")
    )
    return [(one.kind, one.mended) for one in found]


def test_a_machine_that_is_gone(source: Source, runner: Runner, state: StateDir) -> None:
    gone = {"platform": "libvirt", "machine_id": "00000000-0000-4000-8000-000000000000"}
    (found,) = examine_source(source, gone, state, asked(runner))
    assert (found.kind, found.mendable) == ("source_gone", False)


def test_a_platform_that_does_not_answer_is_an_error_of_each_machine_and_hides_nothing_else(
    host_factory: Callable[[], LibvirtHost], tmp_path: Path, state: StateDir
) -> None:
    host = host_factory()
    (tmp_path / f"sendense-{'d' * 32}-disk0.qcow2").write_text("")
    Path(state.create().leases, "stale.lease").write_text("{}")
    machines = [{"platform": "libvirt", "machine_id": f"m-{number}", "connection": {"uri": host.uri}} for number in (1, 2)]
    given = {"state_dir": state.path, "machines": machines, "storage": [str(tmp_path)], "mend": [], **asked_nothing()}
    assert kinds_of(examine_node(given, False)) == ["restore_leftover", "source_gone", "source_gone", "stale_lease"]
    host.kill()
    assert kinds_of(examine_node(given, False)) == ["platform_unreadable", "platform_unreadable", "stale_lease"]


def asked_nothing() -> Dict[str, object]:
    return {"owner": "", "known_change_ids": {}, "known_at": 0.0}


def kinds_of(answer: Dict[str, Any]) -> List[str]:
    return sorted(one["kind"] for one in answer["findings"])


def test_the_images_that_a_disk_stands_on_are_in_use(lab: LibvirtSourceLab, source: Source) -> None:
    lab.power("off")
    disk = lab.guest.disks["vda"]
    below = disk.path.with_name("below.qcow2")
    disk.path.rename(below)
    diskfiles.run(["qemu-img", "create", "-q", "-f", "qcow2", "-b", str(below), "-F", "qcow2", str(disk.path)])
    used = source.files_in_use() or []
    below.replace(disk.path)
    assert {str(disk.path), str(below), *(str(other.path) for other in lab.guest.disks.values())} <= set(used)
    lab.power("running")


def test_disks_of_restores_that_no_machine_has(tmp_path: Path, state: StateDir) -> None:
    living = JobDir.create(state.create(), "a" * 32, "node", {})
    names = {job: tmp_path / f"sendense-{job * 32}-disk0.qcow2" for job in "abcd"}
    for path in [*names.values(), tmp_path / "other.qcow2"]:
        path.write_text("")
    used = {str(names["b"]), str(names["c"])}
    found = examine_disks([str(tmp_path), "/nonexistent"], used, state)
    assert [(one.kind, one.object, one.mendable) for one in found] == [("restore_leftover", str(names["d"]), False)]
    living.remove()
    assert living.lock is not None
    living.lock.release()
