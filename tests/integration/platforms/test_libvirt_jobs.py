# Copyright: (c) 2026, Sendense contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Jobs of others, dead jobs of ours, and snapshots that fail midway, on a real libvirt."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
from pathlib import Path
from typing import Any, Callable, Dict

import libvirt
import libvirt_qemu
import pytest

from ansible_collections.sendense.platform.plugins.module_utils.errors import (
    CapabilityMissingError,
    DiskExcludedError,
    ForeignJobError,
    InvalidInputError,
    JobRunningError,
    MachineHasNoDisksError,
    PlatformAuthenticationError,
    PlatformJobLostError,
    PlatformUnreachableError,
    SnapshotFailedError,
)
from ansible_collections.sendense.platform.plugins.module_utils.platforms import registry
from ansible_collections.sendense.platform.plugins.module_utils.platforms._base import FULL, INCREMENTAL, Source
from tests.contract.libvirt_lab import LibvirtSourceLab, tiny_disks
from tests.contract.reading import read_all, served
from tests.contract.source_contract import BLOCK, OWNER, Runner, levels
from tests.e2e.site import ROOT
from tests.lab import disks as diskfiles
from tests.lab.disks import MIB
from tests.lab.guest import Guest
from tests.lab.host import LibvirtHost
from tests.lab.processes import wait_gone

_THEIR_BACKUP = """<domainbackup mode='pull'><server transport='unix' socket='{directory}/{socket}'/><disks>
<disk name='vda' backup='yes' type='file' exportname='{export}'><scratch file='{directory}/scratch'/></disk>
<disk name='vdb' backup='no'/><disk name='vdc' backup='no'/></disks></domainbackup>"""
_COPY = "<disk type='file'><source file='{path}'/><driver type='qcow2'/></disk>"


def end_theirs(lab: LibvirtSourceLab) -> None:
    lab.guest.domain.abortJob()
    assert wait_gone(lambda: not lab.guest.domain.blockJobInfo("vda", 0), 10)


@pytest.mark.parametrize(
    ("socket", "export"),
    [("theirs.sock", "vda"), ("sb-01234567-89abcdef.sock", "vda"), ("theirs.sock", "sendense-" + "0" * 32 + "-disk0")],
)
def test_a_backup_of_another_product_is_not_touched(
    lab: LibvirtSourceLab, source: Source, runner: Runner, tmp_path: Path, socket: str, export: str
) -> None:
    runner.backup(source)
    domain = lab.guest.domain
    domain.backupBegin(_THEIR_BACKUP.format(directory=tmp_path, socket=socket, export=export), None)
    theirs = domain.backupGetXMLDesc()
    with pytest.raises(ForeignJobError, match="another product's backup job") as refused:
        runner.plan(source)
    assert refused.value.retryable
    assert [entry["kind"] for entry in source.stale(lab.machine_id)] == ["checkpoint"]
    assert source.close_snapshot(lab.machine_id, "0" * 32, OWNER, False, []) == []
    assert domain.backupGetXMLDesc() == theirs
    end_theirs(lab)
    assert levels(runner.backup(source)) == [INCREMENTAL, INCREMENTAL]


def test_a_backup_that_begins_after_the_plan_is_not_touched(lab: LibvirtSourceLab, source: Source, runner: Runner, tmp_path: Path) -> None:
    request = runner.request()
    plan = source.plan(request)
    lab.guest.domain.backupBegin(_THEIR_BACKUP.format(directory=tmp_path, socket="t.sock", export="vda"), None)
    with pytest.raises(ForeignJobError):
        source.open_snapshot(request, plan)
    end_theirs(lab)
    assert source.stale(lab.machine_id) == []


def test_a_block_job_of_somebody_else_is_not_touched(lab: LibvirtSourceLab, source: Source, runner: Runner, tmp_path: Path) -> None:
    domain = lab.guest.domain
    domain.blockCopy("vda", _COPY.format(path=tmp_path / "copy.qcow2"), None, libvirt.VIR_DOMAIN_BLOCK_COPY_TRANSIENT_JOB)
    with pytest.raises(ForeignJobError, match="block job on vda"):
        runner.plan(source)
    assert domain.blockJobInfo("vda", 0)
    domain.blockJobAbort("vda", 0)
    runner.backup(source)


def test_our_dead_job_is_named_refused_and_ended(lab: LibvirtSourceLab, source: Source, runner: Runner) -> None:
    dead = runner.open(source)
    with pytest.raises(JobRunningError) as refused:
        runner.plan(source)
    assert refused.value.details == {"job_id": dead.job_id, "owner": OWNER}
    assert {entry["job_id"] for entry in source.stale(lab.machine_id)} == {dead.job_id}
    removed = source.close_snapshot(lab.machine_id, dead.job_id, OWNER, False, [])
    assert removed == [f"backup job {dead.job_id}", f"checkpoint {dead.token}"]
    runner.backup(source)


def test_a_living_job_keeps_its_checkpoint_when_another_one_cleans_up(lab: LibvirtSourceLab, source: Source, runner: Runner) -> None:
    living = runner.open(source)
    assert source.close_snapshot(lab.machine_id, "e" * 32, OWNER, True, []) == []
    assert lab.checkpoints() == [living.token]
    runner.take(source, living)
    runner.end(source, living)
    assert levels(runner.backup(source)) == [INCREMENTAL, INCREMENTAL]


def test_a_snapshot_that_fails_midway_leaves_nothing(lab: LibvirtSourceLab, source: Source, runner: Runner) -> None:
    """One scratch file cannot be made: it is a directory."""
    runner.backup(source)
    before = source.stale(lab.machine_id)
    request = runner.request()
    plan = source.plan(request)
    obstacle = lab.work_dir / f"sendense-scratch-{request.job_id[:8]}-disk1.qcow2"
    obstacle.mkdir()
    with pytest.raises(SnapshotFailedError, match=lab.machine_id) as failed:
        source.open_snapshot(request, plan)
    assert failed.value.retryable
    obstacle.rmdir()
    assert source.stale(lab.machine_id) == before and list(lab.work_dir.iterdir()) == []
    assert levels(runner.backup(source)) == [INCREMENTAL, INCREMENTAL]


def test_firmware_variables_are_saved_or_the_snapshot_is_undone(libvirt_host: LibvirtHost) -> None:
    guest = Guest.create(libvirt_host, "uefi", disks=tiny_disks(), firmware="uefi", memory_mib=64)
    guest.start(paused=True)
    lab = LibvirtSourceLab(guest)
    runner = Runner(lab)
    with lab.source() as source:
        obstacle = lab.work_dir / "nvram.fd"
        obstacle.mkdir()
        with pytest.raises(SnapshotFailedError, match="firmware variables"):
            runner.open(source)
        obstacle.rmdir()
        assert source.stale(lab.machine_id) == [] and list(lab.work_dir.iterdir()) == []
        for power in ("running", "off"):
            lab.power(power)
            snapshot = runner.open(source)
            assert snapshot.nvram_path == str(obstacle)
            assert obstacle.read_bytes() == Path(snapshot.machine.nvram_path).read_bytes()
            runner.end(source, snapshot, committed=False)
            obstacle.unlink()
    guest.remove()


def test_the_scratch_directory_is_used_and_cleaned(lab: LibvirtSourceLab, runner: Runner) -> None:
    scratch = lab.guest.host.dir / "scratch"
    scratch.mkdir()
    lab.connection["scratch_dir"] = str(scratch)
    with lab.source() as source:
        snapshot = runner.open(source)
        assert {path.name.partition("-")[0] for path in scratch.iterdir()} == {"sb", "sendense"} and len(list(scratch.iterdir())) == 4
        os.kill(lab.guest.qemu_pid, signal.SIGKILL)
        assert wait_gone(lambda: not lab.guest.active, 10)
        (scratch / "sendense-scratch-00000000-disk0.qcow2").touch()
        runner.end(source, snapshot, committed=False)
        assert [path.name for path in scratch.iterdir()] == ["sendense-scratch-00000000-disk0.qcow2"]
    (scratch / "sendense-scratch-00000000-disk0.qcow2").unlink()
    scratch.rmdir()


def test_a_restart_of_libvirtd_during_a_job_is_survived(host_factory: Callable[[], LibvirtHost]) -> None:
    host = host_factory()
    lab = LibvirtSourceLab(Guest.create(host, "survivor", disks=tiny_disks()).start(paused=True))
    runner = Runner(lab)
    with lab.source() as source:
        runner.backup(source)
        expected = runner.expected(source)
        snapshot = runner.open(source)
        host.kill()
        with pytest.raises(PlatformUnreachableError):
            source.stale(lab.machine_id)
        with pytest.raises(PlatformUnreachableError):
            lab.source().connect()
        assert read_all(snapshot.disks[0].uri) == expected[snapshot.disks[0].disk_id]
        host.start()
    with lab.source() as source:
        assert {entry["job_id"] for entry in source.stale(lab.machine_id) if entry["kind"] == "job"} == {snapshot.job_id}
        runner.take(source, snapshot)
        runner.end(source, snapshot)
        assert runner.content == expected
        assert levels(runner.backup(source)) == [INCREMENTAL, INCREMENTAL]


def test_an_image_that_is_served_cannot_be_changed_and_says_so(lab: LibvirtSourceLab, source: Source, runner: Runner) -> None:
    lab.power("off")
    runner.backup(source)
    snapshot = runner.open(source)
    with served(snapshot.disks[0], str(lab.work_dir)):
        with pytest.raises(ForeignJobError, match="in use by another program"):
            Runner(lab, "cccccccc").open(source)
        with pytest.raises(SnapshotFailedError) as failed:
            runner.end(source, snapshot, committed=False)
        assert failed.value.retryable
    assert [entry["owner"] for entry in source.stale(lab.machine_id)] == [OWNER, OWNER]
    assert runner.end(source, snapshot, committed=False) == [f"checkpoint {snapshot.token}"]


def test_backing_chains_are_read_without_trusting_headers(lab: LibvirtSourceLab, source: Source, runner: Runner) -> None:
    lab.power("off")
    path = lab.guest.disks["vda"].path
    base, middle = path.with_name("base.raw"), path.with_name("middle.qcow2")
    size = int(diskfiles.info(lab.guest.disks["vda"].image)["virtual-size"])
    base.write_bytes(b"\x5a" * 3 * BLOCK + bytes(size - 3 * BLOCK))
    kept = path.read_bytes()
    diskfiles.run(["qemu-img", "create", "-q", "-f", "qcow2", "-b", str(base), "-F", "raw", str(middle)])
    diskfiles.run(["qemu-img", "create", "-q", "-f", "qcow2", "-b", str(middle), "-F", "qcow2", str(path)])
    runner.backup(source)
    assert [content[: 3 * BLOCK] for content in runner.content.values()][0] == b"\x5a" * 3 * BLOCK
    lab.power("running")
    lab.write(0, 0x11, BLOCK, 512)
    assert levels(runner.backup(source)) == [INCREMENTAL, INCREMENTAL]
    lab.power("off")
    diskfiles.run(["qemu-img", "rebase", "-u", "-f", "qcow2", "-b", "nbd://127.0.0.1:1/x", "-F", "raw", str(path)])
    request = runner.request()
    with pytest.raises(SnapshotFailedError, match="not an absolute path"):
        source.open_snapshot(request, source.plan(request))
    path.write_bytes(kept)
    for disk in (base, middle):
        disk.unlink()


def test_disks_that_cannot_be_read_stop_the_job_or_are_left_out(libvirt_host: LibvirtHost, source: Source, runner: Runner) -> None:
    guest = Guest.create(libvirt_host, "shares", disks=tiny_disks())
    xml = guest.domain.XMLDesc(0)
    head, mark, tail = xml.rpartition("<serial>")
    guest.host.connection.defineXML(head + "<shareable/>" + mark + tail)
    with pytest.raises(DiskExcludedError, match="shareable"):
        runner.plan(source, machine_id=guest.uuid)
    plan = runner.plan(source, machine_id=guest.uuid, skip_excluded_disks=True)
    assert [disk.key for disk in plan.disks] == ["disk0", "disk1"] and len(plan.skipped_disks) == 1
    assert [disk.level for disk in plan.disks] == [FULL, FULL]
    diskless = Guest.create(libvirt_host, "diskless", disks=[])
    with pytest.raises(MachineHasNoDisksError):
        runner.plan(source, machine_id=diskless.uuid)
    guest.remove()
    diskless.remove()


def test_passwords_of_consoles_are_not_part_of_a_snapshot(libvirt_host: LibvirtHost) -> None:
    guest = Guest.create(libvirt_host, "secretive", disks=tiny_disks())
    console = "<graphics type='vnc' autoport='yes' listen='127.0.0.1' passwd='CANARY7'/></devices>"
    libvirt_host.connection.defineXML(guest.domain.XMLDesc(0).replace("</devices>", console))
    lab = LibvirtSourceLab(guest.start(paused=True))
    runner = Runner(lab)
    with lab.source() as source:
        for power in ("running", "off"):
            lab.power(power)
            snapshot = runner.open(source)
            runner.end(source, snapshot, committed=False)
            assert "<graphics" in snapshot.native_config and "CANARY7" not in repr(snapshot)
    lab.remove()
    guest.remove()


def test_a_read_only_connection_is_an_authentication_error(lab: LibvirtSourceLab, runner: Runner) -> None:
    uri = lab.connection["uri"] + "-ro"
    with registry.source("libvirt", {"uri": uri}) as source:
        assert source.machine(lab.machine_id).name == "shared"
        with pytest.raises(PlatformAuthenticationError):
            runner.open(source)


def test_over_another_transport_than_ssh_hosts_can_only_be_looked_at(runner: Runner) -> None:
    source = registry.source("libvirt", {"uri": "qemu+tls://user:secret@elsewhere.invalid/system"})
    with pytest.raises(CapabilityMissingError) as refused:
        source.plan(runner.request())
    assert "secret" not in refused.value.msg


@pytest.mark.parametrize(
    "uri", ["qemu:///system?socket=/nonexistent", "qemu+tcp://127.0.0.1:1/system", "qemu+ssh://nosuchhost.invalid/system"]
)
def test_a_host_that_does_not_answer_is_unreachable(uri: str) -> None:
    with pytest.raises(PlatformUnreachableError) as failed:
        registry.source("libvirt", {"uri": uri}).connect()
    assert failed.value.retryable


def test_bad_options_are_refused_before_anything_is_tried() -> None:
    with pytest.raises(InvalidInputError, match="'colour'"):
        registry.source("libvirt", {"colour": "red"})
    with pytest.raises(InvalidInputError, match="no source for platform 'abacus'"):
        registry.source("abacus", {})


def test_sizes_are_bounded_by_what_the_disks_hold(lab: LibvirtSourceLab, source: Source, runner: Runner) -> None:
    lab.write(0, 0x11, 0, MIB)
    lab.guest.flush()
    plan = runner.plan(source)
    assert MIB <= plan.disks[0].expected_bytes <= plan.disks[0].size_bytes
    assert plan.machine.disks[0].allocated_bytes == plan.disks[0].expected_bytes


def test_scratch_files_that_libvirt_forgot_are_closed_and_no_others(lab: LibvirtSourceLab, source: Source, tmp_path: Path) -> None:
    """What a libvirtd that dies while it begins a backup leaves in qemu: nodes that nothing uses, of files that are deleted."""
    job_id, theirs = "0123abcd" * 4, "sendense-scratch-89abcdef-disk0.qcow2"
    for number, name in enumerate((f"sendense-scratch-{job_id[:8]}-disk0.qcow2", theirs)):
        path = str(tmp_path / name)
        diskfiles.run(["qemu-img", "create", "-q", "-f", "qcow2", path, str(MIB)])
        _qmp(lab, "blockdev-add", {"node-name": f"storage{number}", "driver": "file", "filename": path})
        _qmp(lab, "blockdev-add", {"node-name": f"format{number}", "driver": "qcow2", "file": f"storage{number}"})
        os.unlink(path)
    removed = source.close_snapshot(lab.machine_id, job_id, "", False, [])
    left = {node["node-name"] for node in _qmp(lab, "query-named-block-nodes", {"flat": True})}
    assert [text for text in removed if "in qemu" in text] == [f"scratch file {tmp_path}/sendense-scratch-{job_id[:8]}-disk0.qcow2 in qemu"]
    assert {"storage1", "format1"} <= left
    assert {"storage0", "format0"}.isdisjoint(left)
    for name in ("format1", "storage1"):
        _qmp(lab, "blockdev-del", {"node-name": name})


def _qmp(lab: LibvirtSourceLab, command: str, arguments: Dict[str, Any]) -> Any:
    answer = json.loads(libvirt_qemu.qemuMonitorCommand(lab.guest.domain, json.dumps({"execute": command, "arguments": arguments}), 0))
    assert "return" in answer, answer
    return answer["return"]


def test_a_job_that_libvirt_has_lost_is_said_and_the_runbook_ends_it(host_factory: Callable[[], LibvirtHost]) -> None:
    """The record of a backup without its data is what a libvirtd leaves that is killed while it begins one."""
    host = host_factory()
    lab = LibvirtSourceLab(Guest.create(host, "forgetful", disks=tiny_disks()).start(paused=True))
    runner, record = Runner(lab), host.dir / "run" / "qemu" / "forgetful.xml"
    host.kill()
    text = record.read_text()
    record.write_text(text.replace("  <domain type=", "  <job type='none' async='backup' flags='0x0'/>\n  <domain type=", 1))
    host.start()
    with lab.source() as source, pytest.raises(PlatformJobLostError, match="libvirt-lost-job.md") as lost:
        runner.plan(source)
    assert not lost.value.retryable
    [command] = re.findall(r"^sed -i .*$", (ROOT / "docs" / "runbooks" / "libvirt-lost-job.md").read_text(), re.MULTILINE)
    host.kill()
    subprocess.run(["sh", "-c", command.replace("/run/libvirt/qemu/$MACHINE.xml", str(record))], check=True)
    host.start()
    with lab.source() as source:
        assert levels(runner.backup(source)) == [FULL, FULL]
    lab.remove()
