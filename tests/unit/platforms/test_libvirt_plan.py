# Copyright: (c) 2026, Sendense contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What decides between full and incremental before bitmaps are asked for: pure, one reason per doubt."""

from __future__ import annotations

from dataclasses import replace
from typing import Optional

import pytest

from ansible_collections.sendense.platform.plugins.module_utils.errors import (
    DiskExcludedError,
    MachineHasNoDisksError,
    TooManyConnectionsError,
)
from ansible_collections.sendense.platform.plugins.module_utils.model import Disk, Machine
from ansible_collections.sendense.platform.plugins.module_utils.platforms._base import REASONS, PreviousDisk
from ansible_collections.sendense.platform.plugins.module_utils.platforms.libvirt.naming import ChangeId, CheckpointName
from ansible_collections.sendense.platform.plugins.module_utils.platforms.libvirt.plan import choose_disks, compare

OWNER = "89abcdef"
MACHINE = Machine("libvirt", "uuid", "web", snapshots=["s1", "s2"])
DISK = Disk("serial", 1 << 20, device="vda", path="/a.qcow2")
NAME = str(CheckpointName.make("web", 1, OWNER, "0" * 32))
SINCE = ChangeId.of(MACHINE, DISK, NAME, "s2")


def decide(
    machine: Machine = MACHINE, disk: Disk = DISK, since: ChangeId = SINCE, current: str = "s2", size: int = 1 << 20
) -> "tuple[str, Optional[ChangeId]]":
    return compare(machine, disk, PreviousDisk("serial", size, since.encode()), OWNER, current)


def test_nothing_changed_is_a_candidate() -> None:
    assert decide() == ("", SINCE)


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"size": 1 << 21}, "disk_size_changed"),
        ({"since": replace(SINCE, size_bytes=1)}, "disk_size_changed"),
        ({"disk": replace(DISK, tracking=False)}, "tracking_unsupported"),
        ({"disk": replace(DISK, path="/b.qcow2")}, "disk_path_changed"),
        ({"disk": replace(DISK, device="vdb")}, "disk_path_changed"),
        ({"machine": replace(MACHINE, id="another")}, "change_id_of_another_epoch"),
        ({"since": replace(SINCE, checkpoint="hub-RUN")}, "change_id_of_another_epoch"),
        ({"since": replace(SINCE, checkpoint=NAME.replace(OWNER, "00000000"))}, "change_id_of_another_epoch"),
        ({"machine": replace(MACHINE, snapshots=["s1", "s2", "s3"])}, "foreign_snapshot"),
        ({"machine": replace(MACHINE, snapshots=["s1"])}, "foreign_snapshot"),
        ({"current": "s1"}, "machine_reverted"),
        ({"current": ""}, "machine_reverted"),
    ],
)
def test_every_doubt_has_its_reason(changes: "dict[str, object]", reason: str) -> None:
    assert decide(**changes) == (reason, None)  # type: ignore[arg-type]
    assert reason in REASONS


def test_a_machine_that_was_renamed_keeps_its_chain() -> None:
    assert decide(machine=replace(MACHINE, name="db"))[0] == ""


def test_a_new_disk_and_an_untracked_past() -> None:
    assert compare(MACHINE, DISK, None, OWNER, "s2") == ("disk_set_changed", None)
    assert compare(MACHINE, DISK, PreviousDisk("serial", 1 << 20, ""), OWNER, "s2") == ("tracking_missing", None)


def test_excluded_disks_stop_the_job_or_are_left_out_and_the_rest_gets_keys() -> None:
    disks = [Disk("a", 1, excluded="because"), Disk("b", 1), Disk("c", 1)]
    machine = replace(MACHINE, disks=list(disks))
    with pytest.raises(DiskExcludedError, match="because") as refused:
        choose_disks(machine, skip_excluded=False)
    assert refused.value.details["disks"][0]["disk_id"] == "a"
    assert [entry["disk_id"] for entry in choose_disks(machine, skip_excluded=True)] == ["a"]
    assert [(disk.id, disk.key) for disk in machine.disks] == [("b", "disk0"), ("c", "disk1")]
    for nothing in ([], disks[:1]):
        with pytest.raises(MachineHasNoDisksError):
            choose_disks(replace(MACHINE, disks=list(nothing)), skip_excluded=True)


def test_a_running_machine_with_more_disks_than_its_qemu_serves_is_refused() -> None:
    """99, and one connection for the audits; the images of one that is off have a server each."""
    disks = [replace(DISK, id=str(number)) for number in range(100)]
    running, off = replace(MACHINE, power="on"), replace(MACHINE, power="off")
    assert choose_disks(replace(running, disks=disks[:99]), skip_excluded=False) == []
    with pytest.raises(TooManyConnectionsError, match="Nothing was touched"):
        choose_disks(replace(running, disks=disks), skip_excluded=False)
    assert choose_disks(replace(off, disks=disks), skip_excluded=False) == []
    excluded = [*disks[:99], replace(DISK, id="x", excluded="because")]
    assert len(choose_disks(replace(running, disks=excluded), skip_excluded=True)) == 1
