# Copyright: (c) 2026, Sendense contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What the playbooks report when storage is full, fails, or dies under one disk; more of it is in ``campaign``."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any, Dict, List

from tests.e2e.site import Run
from tests.lab.disks import MIB, DiskSpec

from .failing import drop_cache, fill, loop_disk, small_filesystem
from .fleet import Fleet
from .kills import Fault

#: A copy that takes some seconds, so that something can happen to the storage meanwhile.
SLOW: Dict[str, Any] = {"backup_vm_max_bytes_per_second": 4 * MIB}
DISKS = [DiskSpec("vda", 16 * MIB), DiskSpec("vdb", 4 * MIB, "raw")]


def test_a_full_repository_fails_the_backup_and_nothing_else(fleet: Fleet) -> None:
    repository = _moved_repository(fleet)
    with small_filesystem(repository, 48):
        fleet.site.initialise()
        fleet.add("m00", disks=DISKS).backup()
        fleet.guests["m00"].write("vda", 77, 0, 12 * MIB)
        fleet.remember()
        filler = repository / "filler"

        run = fleet.backup({"m00": Fault("act", "copy:started", True, lambda: fill(filler))}, ok=False, **SLOW)
        assert fleet.hit == ["m00"]
        assert run.error("m00")["report"]["failure"]["error_code"] == "REPOSITORY_FULL"
        _failed_with_one_result_per_disk(run, ["disk0"])
        assert fleet.oracle.check(fleet.before) == []  # without any clean-up: the playbook itself took everything back

        refused = fleet.backup(ok=False)
        assert refused.error("m00")["error_code"] == "REPOSITORY_FULL"
        assert fleet.recover() == []
        filler.unlink()
        assert fleet.oracle.next_backup(fleet.backup(), ["m00"], set()) == []
        assert fleet.oracle.check(fleet.before) == []


def test_read_errors_of_one_disk_commit_nothing(fleet: Fleet) -> None:
    """The file of the second disk lies on a device that fails in the middle of it."""
    where = fleet.directory / "failing"
    with loop_disk(fleet.directory / "image", where, 24) as disk:
        fleet.host.restart()  # libvirtd and its qemus see mounts only from then on
        fleet.add("m00", disks=[DiskSpec("vda", 8 * MIB), DiskSpec("vdb", 16 * MIB, "raw")])
        guest = fleet.guests["m00"]
        guest.destroy()
        moved = where / "vdb.raw"
        guest.disks["vdb"].path.unlink()
        moved.write_bytes(os.urandom(16 * MIB))
        guest.disks["vdb"].path.symlink_to(moved)
        guest.start(paused=True)
        fleet.backup()
        fleet.scribble()
        guest.flush()
        fleet.remember()
        drop_cache(moved)
        with disk.failing_beyond(12 * MIB):
            run = fleet.backup(ok=False, contents=False)
        failure = run.error("m00")["report"]["failure"]
        print(f"{failure['error_code']}: {failure['msg']}")
        assert failure["error_code"] in ("COPY_FAILED", "SOURCE_VANISHED"), failure
        disks = _failed_with_one_result_per_disk(run, ["disk1"])
        assert not disks["disk0"]["error"] or disks["disk0"]["state"] == "cancelled"
        assert fleet.oracle.check(fleet.before) == []  # without any clean-up

        assert fleet.oracle.next_backup(fleet.backup(), ["m00"], set()) == []
        assert fleet.oracle.check(fleet.before) == []
        guest.destroy()


def _failed_with_one_result_per_disk(run: Run, failed: List[str]) -> Dict[str, Any]:
    copy = run.result("m00", "Copy all disks")
    disks = {disk["key"]: disk for disk in copy["details"]["disks"]}
    assert sorted(disks) == ["disk0", "disk1"], copy
    for key in failed:
        assert disks[key]["error"], disks
    return disks


def _moved_repository(fleet: Fleet) -> Path:
    """The site's repository at another place, where something will be mounted."""
    fleet.site.repository = str(fleet.directory / "mounted")
    return Path(fleet.site.repository)
