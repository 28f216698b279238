# Copyright: (c) 2026, Sendense contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Every way in which a checkpoint stops being valid, on a real libvirt: always a full with its reason, never an error."""

from __future__ import annotations

import os
import signal
from typing import List, Tuple

import libvirt
import pytest

from ansible_collections.sendense.platform.plugins.module_utils.errors import SnapshotFailedError
from ansible_collections.sendense.platform.plugins.module_utils.platforms._base import FULL, INCREMENTAL, Source
from tests.contract.libvirt_lab import LibvirtSourceLab, tiny_disks
from tests.contract.source_contract import BLOCK, OTHER_OWNER, Runner, levels
from tests.lab import disks as diskfiles
from tests.lab.guest import Guest
from tests.lab.host import LibvirtHost
from tests.lab.processes import wait_gone

_SNAPSHOT = "<domainsnapshot><name>{name}</name></domainsnapshot>"
_FORGET = libvirt.VIR_DOMAIN_UNDEFINE_CHECKPOINTS_METADATA | libvirt.VIR_DOMAIN_UNDEFINE_NVRAM


def reasons(source: Source, runner: Runner) -> List[Tuple[str, str]]:
    """Level and reason of the two disks that can be tracked, as planned."""
    return [(disk.level, disk.reason) for disk in runner.plan(source).disks[:2]]


def define_anew(lab: LibvirtSourceLab) -> None:
    """Undefined and defined again from the same description, and started: libvirt knows no checkpoint any more."""
    lab.power("off")
    xml = lab.guest.domain.XMLDesc(libvirt.VIR_DOMAIN_XML_INACTIVE)
    lab.guest.domain.undefineFlags(_FORGET)
    lab.guest.host.connection.defineXML(xml)
    lab.power("running")


def kill_qemu(lab: LibvirtSourceLab) -> None:
    os.kill(lab.guest.qemu_pid, signal.SIGKILL)
    assert wait_gone(lambda: not lab.guest.active, 10)


def test_a_raw_disk_is_full_beside_incrementals_and_says_why(source: Source, runner: Runner) -> None:
    runner.backup(source)
    snapshot = runner.backup(source)
    raw = snapshot.disks[2]
    assert levels(snapshot) == [INCREMENTAL, INCREMENTAL]
    assert (raw.level, raw.reason, raw.change_id, raw.changed_context) == (FULL, "tracking_unsupported", "", "")
    assert any("raw images" in warning for warning in snapshot.warnings)


def test_a_clean_stop_and_start_keeps_the_chain(lab: LibvirtSourceLab, source: Source, runner: Runner) -> None:
    runner.backup(source)
    lab.power("off")
    lab.power("running")
    lab.write(0, 0x31, BLOCK, 512)
    assert levels(runner.backup(source)) == [INCREMENTAL, INCREMENTAL]


@pytest.mark.parametrize("restart_before", [False, True], ids=["bitmap never stored", "bitmap in use"])
def test_a_killed_qemu_is_full_and_then_incremental_again(
    lab: LibvirtSourceLab, source: Source, runner: Runner, restart_before: bool
) -> None:
    runner.backup(source)
    if restart_before:
        lab.power("off")
        lab.power("running")
    kill_qemu(lab)
    assert reasons(source, runner) == [(FULL, "tracking_inconsistent")] * 2
    lab.power("running")
    assert reasons(source, runner) == [(FULL, "tracking_inconsistent")] * 2
    runner.backup(source)
    lab.write(0, 0x32, 0, 512)
    assert levels(runner.backup(source)) == [INCREMENTAL, INCREMENTAL]
    assert len(lab.checkpoints()) == 1


def test_a_killed_machine_is_backed_up_while_it_is_off(lab: LibvirtSourceLab, source: Source, runner: Runner) -> None:
    runner.backup(source)
    lab.power("off")
    lab.power("running")
    kill_qemu(lab)
    snapshot = runner.backup(source)
    assert [(disk.level, disk.reason) for disk in snapshot.disks[:2]] == [(FULL, "tracking_inconsistent")] * 2
    assert levels(runner.backup(source)) == [INCREMENTAL, INCREMENTAL]
    assert lab.bitmaps("vda") == [name for name in lab.bitmaps("vdb") if name in str(runner.previous)] and len(lab.bitmaps("vda")) == 1


def test_a_machine_that_was_defined_anew_stays_incremental(lab: LibvirtSourceLab, source: Source, runner: Runner) -> None:
    runner.backup(source)
    define_anew(lab)
    assert lab.checkpoints() == []
    before = lab.bitmaps("vda")
    assert reasons(source, runner) == [(INCREMENTAL, "change_tracking")] * 2
    assert (lab.checkpoints(), lab.bitmaps("vda")) == ([], before)
    lab.write(0, 0x33, 2 * BLOCK, 512)
    assert runner.plan(source).disks[0].expected_bytes == BLOCK
    assert levels(runner.backup(source)) == [INCREMENTAL, INCREMENTAL]


def test_a_machine_that_was_defined_anew_and_killed_is_full(lab: LibvirtSourceLab, source: Source, runner: Runner) -> None:
    runner.backup(source)
    define_anew(lab)
    kill_qemu(lab)
    lab.power("running")
    assert reasons(source, runner) == [(FULL, "tracking_inconsistent")] * 2
    runner.backup(source)
    assert len(lab.checkpoints()) == 1


def test_a_bitmap_that_somebody_removed_is_full_for_its_disk_only(lab: LibvirtSourceLab, source: Source, runner: Runner) -> None:
    snapshot = runner.backup(source)
    lab.power("off")
    lab.remove_bitmap("vda", snapshot.token)
    lab.power("running")
    assert reasons(source, runner) == [(FULL, "tracking_inconsistent"), (INCREMENTAL, "change_tracking")]
    assert levels(runner.backup(source)) == [FULL, INCREMENTAL]
    assert levels(runner.backup(source)) == [INCREMENTAL, INCREMENTAL]
    assert len(lab.checkpoints()) == 1 and lab.checkpoints()[0] in str(runner.previous)


def test_a_checkpoint_that_somebody_deleted_is_full(lab: LibvirtSourceLab, source: Source, runner: Runner) -> None:
    snapshot = runner.backup(source)
    lab.guest.domain.checkpointLookupByName(snapshot.token).delete()
    assert reasons(source, runner) == [(FULL, "tracking_missing")] * 2
    runner.backup(source)


def test_what_breaks_after_the_plan_is_full_in_the_snapshot(lab: LibvirtSourceLab, source: Source, runner: Runner) -> None:
    token = runner.backup(source).token
    request = runner.request()
    plan = source.plan(request)
    assert [disk.level for disk in plan.disks[:2]] == [INCREMENTAL, INCREMENTAL]
    lab.guest.domain.checkpointLookupByName(token).delete()
    snapshot = source.open_snapshot(request, plan)
    assert [(disk.level, disk.reason) for disk in snapshot.disks[:2]] == [(FULL, "tracking_missing")] * 2
    runner.end(source, snapshot, committed=False)


def test_a_machine_that_was_switched_off_after_the_plan_is_refused(lab: LibvirtSourceLab, source: Source, runner: Runner) -> None:
    request = runner.request()
    plan = source.plan(request)
    lab.power("off")
    with pytest.raises(SnapshotFailedError, match="not as it was planned") as refused:
        source.open_snapshot(request, plan)
    assert refused.value.retryable and source.stale(lab.machine_id) == []


def test_a_renamed_image_is_full(lab: LibvirtSourceLab, source: Source, runner: Runner) -> None:
    runner.backup(source)
    lab.power("off")
    disk = lab.guest.disks["vda"]
    moved = disk.path.with_name("moved.qcow2")
    xml = lab.guest.domain.XMLDesc(libvirt.VIR_DOMAIN_XML_INACTIVE)
    os.rename(disk.path, moved)
    lab.guest.host.connection.defineXML(xml.replace(str(disk.path), str(moved)))
    assert reasons(source, runner) == [(FULL, "disk_path_changed"), (INCREMENTAL, "change_tracking")]
    os.rename(moved, disk.path)
    lab.guest.host.connection.defineXML(xml)
    assert reasons(source, runner) == [(INCREMENTAL, "change_tracking")] * 2


def test_a_resized_disk_is_full(lab: LibvirtSourceLab, source: Source, runner: Runner) -> None:
    runner.backup(source)
    old = lab.guest.disks["vda"].size_bytes
    lab.guest.domain.blockResize("vda", old + BLOCK, libvirt.VIR_DOMAIN_BLOCK_RESIZE_BYTES)
    assert reasons(source, runner) == [(FULL, "disk_size_changed"), (INCREMENTAL, "change_tracking")]
    assert levels(runner.backup(source)) == [FULL, INCREMENTAL]
    assert levels(runner.backup(source)) == [INCREMENTAL, INCREMENTAL]


def test_a_replaced_image_is_full(lab: LibvirtSourceLab, source: Source, runner: Runner) -> None:
    runner.backup(source)
    lab.power("off")
    path, size = lab.guest.disks["vda"].path, diskfiles.info(lab.guest.disks["vda"].image)["virtual-size"]
    os.unlink(path)
    diskfiles.run(["qemu-img", "create", "-q", "-f", "qcow2", str(path), str(size)])
    lab.power("running")
    assert reasons(source, runner)[0] == (FULL, "tracking_inconsistent")
    assert levels(runner.backup(source)) == [FULL, INCREMENTAL]


def test_snapshots_of_others_are_noticed_and_never_touched(libvirt_host: LibvirtHost) -> None:
    lab = LibvirtSourceLab(Guest.create(libvirt_host, "snapped", disks=tiny_disks()[:2], memory_mib=16).start(paused=True))
    domain, runner = lab.guest.domain, Runner(lab)
    with lab.source() as source:
        runner.backup(source)
        domain.snapshotCreateXML(_SNAPSHOT.format(name="theirs"))
        assert source.machine(lab.machine_id).snapshots == ["theirs"]
        assert reasons(source, runner) == [(FULL, "foreign_snapshot")] * 2
        runner.backup(source)
        assert reasons(source, runner) == [(INCREMENTAL, "change_tracking")] * 2
        domain.snapshotCreateXML(_SNAPSHOT.format(name="second"))
        runner.backup(source)
        domain.snapshotLookupByName("second").delete()
        assert reasons(source, runner) == [(FULL, "foreign_snapshot")] * 2
        assert [snapshot.getName() for snapshot in domain.listAllSnapshots()] == ["theirs"]
    domain.snapshotLookupByName("theirs").delete()
    lab.remove()
    lab.guest.remove()


def test_qemu_itself_refuses_to_revert_a_tracked_image(libvirt_host: LibvirtHost) -> None:
    """What the fingerprint of snapshots cannot see (the same snapshot twice) cannot happen: see the platform's page."""
    lab = LibvirtSourceLab(Guest.create(libvirt_host, "reverted", disks=tiny_disks()[:2], memory_mib=16).start(paused=True))
    runner = Runner(lab)
    with lab.source() as source:
        lab.guest.domain.snapshotCreateXML(_SNAPSHOT.format(name="theirs"))
        runner.backup(source)
    with pytest.raises(libvirt.libvirtError, match="active dirty bitmaps"):
        lab.guest.domain.revertToSnapshot(lab.guest.domain.snapshotLookupByName("theirs"))
    lab.guest.destroy()
    for snapshot in lab.guest.domain.listAllSnapshots():
        snapshot.delete(libvirt.VIR_DOMAIN_SNAPSHOT_DELETE_METADATA_ONLY)
    lab.remove()
    lab.guest.remove()


def test_checkpoints_of_others_survive_ours(lab: LibvirtSourceLab, source: Source, runner: Runner) -> None:
    domain = lab.guest.domain
    names = ["hub-RUN", "x-backup-2026-01-01-00-00-00-zzzzzzzz-00000000", f"x-backup-2026-01-01-00-00-00-{OTHER_OWNER}-00000000"]
    for name in names:
        xml = f"<domaincheckpoint><name>{name}</name><disks><disk name='vda' checkpoint='bitmap'/></disks></domaincheckpoint>"
        domain.checkpointCreateXML(xml)
    runner.backup(source)
    lab.write(0, 0x34, 0, 512)
    assert levels(runner.backup(source)) == [INCREMENTAL, INCREMENTAL]
    snapshot = runner.open(source)
    runner.end(source, snapshot, committed=False)
    assert set(names) < set(lab.checkpoints()) and len(lab.checkpoints()) == 4


def test_what_libvirt_forgot_is_removed_from_a_running_machine(lab: LibvirtSourceLab, source: Source, runner: Runner) -> None:
    lab.power("off")
    dead = runner.open(source)
    assert lab.bitmaps("vda") == [dead.token]
    lab.power("running")
    assert lab.checkpoints() == [] and [entry["name"] for entry in source.stale(lab.machine_id)] == [dead.token]
    assert source.close_snapshot(lab.machine_id, dead.job_id, runner.owner, False, []) == [f"checkpoint {dead.token}"]
    assert lab.bitmaps("vda") == lab.checkpoints() == source.stale(lab.machine_id) == []


def test_the_old_image_version_holds_no_bitmap(lab: LibvirtSourceLab, source: Source, runner: Runner) -> None:
    lab.power("off")
    path = str(lab.guest.disks["vda"].path)
    diskfiles.run(["qemu-img", "amend", "-f", "qcow2", "-o", "compat=0.10", path])
    for power in ("off", "running"):
        lab.power(power)
        runner.previous = None
        runner.backup(source)
        snapshot = runner.backup(source)
        assert [(disk.level, disk.reason) for disk in snapshot.disks[:2]] == [
            (FULL, "tracking_unsupported"),
            (INCREMENTAL, "change_tracking"),
        ]
    lab.power("off")
    for name in lab.bitmaps("vdb"):
        lab.remove_bitmap("vdb", name)
    lab.guest.domain.checkpointLookupByName(lab.checkpoints()[0]).delete(libvirt.VIR_DOMAIN_CHECKPOINT_DELETE_METADATA_ONLY)
    diskfiles.run(["qemu-img", "amend", "-f", "qcow2", "-o", "compat=1.1", path])
