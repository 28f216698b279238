# Copyright: (c) 2026, Sendense contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Change tracking that is missing, broken or somebody else's."""

from __future__ import annotations

import json
import shutil
import time
from typing import Any, Dict

import libvirt_qemu
import pytest

from tests.lab.disks import MIB, DiskSpec

from .failing import small_filesystem
from .fleet import Fleet
from .oracle import backup_xml, block_nodes

FOREIGN = "nightly-of-another-product"


def test_a_missing_bitmap_makes_a_full_backup_without_help(fleet: Fleet) -> None:
    fleet.add("m00").backup()
    fleet.scribble()
    fleet.remember()
    domain = fleet.guests["m00"].domain
    for node in block_nodes(domain):
        for bitmap in node.get("dirty-bitmaps", []):
            _monitor(domain, "block-dirty-bitmap-remove", node=node["node-name"], name=bitmap["name"])
    run = fleet.backup()
    disks = run.result("m00", "Snapshot all disks at one instant")["disks"]
    assert (disks[0]["level"], disks[0]["reason"]) in (("full", "tracking_missing"), ("full", "tracking_inconsistent"))
    assert fleet.oracle.check(fleet.before) == []
    fleet.scribble()
    assert fleet.oracle.next_backup(fleet.backup(), ["m00"], set()) == []


def test_a_lie_is_found_by_an_audit_and_the_same_play_ends_with_a_full_backup(fleet: Fleet) -> None:
    """A lie since the newest point damages none; one that a point was built on damages that, and the oracle itself sees it."""
    fleet.add("m00").backup()
    omit(fleet, "vda", 5 * MIB)
    early = fleet.backup(backup_vm_audit_share=100).report("m00")
    assert (early["point"]["level"], early["events"][0]["details"]["marked"]) == ("full", [])
    assert {point.status for point in fleet.oracle.repository.list()} == {"ok"}
    fleet.scribble()
    honest = fleet.backup(backup_vm_audit_share=100).report("m00")
    assert (honest["audit"]["in_full"], honest["audit"]["failed"], "events" in honest) == (True, [], False)
    omit(fleet, "vda", 6 * MIB)
    believed = fleet.backup(backup_vm_audit_share=0).report("m00")["point"]["id"]
    assert [finding for finding in fleet.oracle.check({}) if finding.startswith("O1")] != []

    fleet.remember()
    run = fleet.backup(backup_vm_audit_share=100)
    report = run.report("m00")
    assert (report["point"]["level"], {disk["reason"] for disk in report["disks"]}) == ("full", {"tracking_lied"})
    assert [event["event"] for event in report["events"]] == ["TRACKING_LIED"]
    assert report["events"][0]["details"]["marked"] == [believed]
    assert "WARNING TRACKING_LIED" in run.output
    listed = {point.manifest.point_id: point.status for point in fleet.oracle.repository.list()}
    assert sorted(listed.values()) == ["damaged", "ok", "ok", "ok", "ok"] and listed[believed] == "damaged"
    assert fleet.oracle.check(fleet.before) == []
    fleet.scribble()
    assert fleet.oracle.next_backup(fleet.backup(), ["m00"], set()) == []


def test_if_the_full_after_a_lie_fails_too_the_next_run_makes_it_unaided(fleet: Fleet) -> None:
    with small_filesystem(fleet.directory / "small", 20):
        fleet.site.repository = str(fleet.directory / "small" / "repo")
        fleet.site.initialise()
        fleet.add("m00", disks=[DiskSpec("vda", 8 * MIB)])
        fleet.guests["m00"].write("vda", 7, 0, 6 * MIB)
        fleet.backup()
        omit(fleet, "vda", 5 * MIB)
        rest = fleet.directory / "small" / "rest"
        rest.write_bytes(b"x" * (shutil.disk_usage(rest.parent).free - 4 * MIB))
        fleet.remember()
        run = fleet.backup(ok=False, backup_vm_audit_share=100)
        assert run.returncode != 0 and run.error("m00")["error_code"] == "REPOSITORY_FULL"
        assert [event["event"] for event in run.report("m00")["events"]] == ["TRACKING_LIED"]
        assert fleet.oracle.check(fleet.before) == []
        rest.unlink()
        assert fleet.oracle.next_backup(fleet.backup(backup_vm_audit_share=0), ["m00"], {"tracking_lied"}) == []
        assert fleet.oracle.check(fleet.before) == []
        fleet.site.repository = str(fleet.directory / "repo")


def test_after_a_restart_of_the_host_all_is_audited_once(fleet: Fleet, monkeypatch: pytest.MonkeyPatch) -> None:
    """The host has another boot id, as the processes of the play see it in a mount namespace of their own."""
    fleet.add("m00").backup()
    boot_id, argv = fleet.directory / "boot-id", fleet.site.argv
    boot_id.write_text("00000000-1111-2222-3333-444444444444\n")
    mount = ["unshare", "--mount", "sh", "-c", 'mount --bind "$0" /proc/sys/kernel/random/boot_id && exec "$@"', str(boot_id)]
    monkeypatch.setattr(fleet.site, "argv", lambda *given, **named: [*mount, *argv(*given, **named)])
    fleet.scribble()
    audits = [fleet.backup(backup_vm_audit_share=0).report("m00")["audit"] for _number in range(2)]
    assert [(audit["in_full"], audit["reason"], audit["failed"]) for audit in audits] == [(True, "host_restarted", []), (False, "", [])]
    assert audits[0]["blocks_checked"] > 100 and audits[1]["blocks_checked"] == 0
    assert fleet.oracle.check({}) == []


def omit(fleet: Fleet, target: str, offset: int) -> None:
    """Change one block of the guest, and make the newest checkpoint's bitmap forget that alone."""
    guest = fleet.guests["m00"]
    guest.flush()
    nodes = [node for node in block_nodes(guest.domain) if any(one.get("recording") for one in node.get("dirty-bitmaps", []))]
    found = [(node["node-name"], bitmap["name"]) for node in nodes for bitmap in node["dirty-bitmaps"] if bitmap["recording"]]
    assert found, "no bitmap records"
    for node, name in found:
        _monitor(guest.domain, "block-dirty-bitmap-add", node=node, name="kept", disabled=True)
        _monitor(guest.domain, "block-dirty-bitmap-merge", node=node, target="kept", bitmaps=[name])
    guest.write(target, 251, offset, 65536)
    guest.flush()
    for node, name in found:
        _monitor(guest.domain, "block-dirty-bitmap-clear", node=node, name=name)
        _monitor(guest.domain, "block-dirty-bitmap-merge", node=node, target=name, bitmaps=["kept"])
        _monitor(guest.domain, "block-dirty-bitmap-remove", node=node, name="kept")


def test_a_foreign_checkpoint_and_a_foreign_job_are_never_touched(fleet: Fleet) -> None:
    fleet.add("m00").backup()
    domain = fleet.guests["m00"].domain
    xml = f"<domaincheckpoint><name>{FOREIGN}</name><disks><disk name='vda' checkpoint='bitmap'/></disks></domaincheckpoint>"
    domain.checkpointCreateXML(xml, 0)
    fleet.scribble()
    assert fleet.oracle.next_backup(fleet.backup(), ["m00"], set()) == []

    socket = f"<server transport='unix' socket='{fleet.directory}/foreign'/>"
    scratch = f"<scratch file='{fleet.directory}/scratch'/>"
    disks = f"<disk name='vda' backup='yes' type='file'>{scratch}</disk><disk name='vdb' backup='no'/>"
    domain.backupBegin(f"<domainbackup mode='pull'>{socket}<disks>{disks}</disks></domainbackup>", None, 0)
    job = backup_xml(domain)
    fleet.remember()
    run = fleet.backup(ok=False)
    assert run.error("m00")["error_code"] == "FOREIGN_JOB"
    fleet.site.play("cleanup", "m00")
    assert backup_xml(domain) == job
    assert [text for text in fleet.oracle.check(fleet.before) if "a backup job runs" not in text and "bitmap backup-" not in text] == []

    domain.abortJob()
    deadline = time.monotonic() + 10
    while backup_xml(domain) and time.monotonic() < deadline:
        time.sleep(0.02)
    assert fleet.oracle.next_backup(fleet.backup(), ["m00"], set()) == []
    fleet.site.play("cleanup", "m00")
    assert FOREIGN in [checkpoint.getName() for checkpoint in domain.listAllCheckpoints()]
    assert fleet.oracle.check(fleet.before) == []


def _monitor(domain: Any, command: str, **arguments: Any) -> Dict[str, Any]:
    question = json.dumps({"execute": command, "arguments": arguments})
    answer = json.loads(libvirt_qemu.qemuMonitorCommand(domain, question, 0))
    assert "error" not in answer, answer
    return dict(answer)
