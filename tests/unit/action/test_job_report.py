# Copyright: (c) 2026, Sendense contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What reports of backups, of restores and of failures put on the screen."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any, Dict

from ansible_collections.sendense.platform.plugins.action.job_report import backup_report, brief, failure_report, restore_report
from tests.unit.catalog.manifests import a_disk, a_manifest

EVENTS = [{"event": "TRACKING_LIED"}]


def test_a_failed_task_shows_no_lists_twice_and_its_message_once() -> None:
    failure = {"msg": "No space", "error_code": "REPOSITORY_FULL", "details": {"disks": [1]}, "retryable": True}
    failed = failure_report({"failure": failure})
    assert failed["failure"] == {"msg": "No space", "error_code": "REPOSITORY_FULL", "details": {"disks": [1]}, "retryable": True}
    assert failed["lines"] == []
    whole = dict(failed, findings=[{"kind": "dead_job"}], counts={"error": 1}, ok=False, file="/r/doctor-a.json", events=EVENTS)
    del whole["lines"]
    assert brief(whole) == {"ok": False, "file": "/r/doctor-a.json", "events": EVENTS}


def test_a_failure_after_the_backup_was_published_says_so() -> None:
    failure = {"msg": "The connection to hub01 failed.", "error_code": "PLACE_UNREACHABLE", "retryable": True}
    for aborted in ({}, {"failed": True}, {"committed": False}):
        assert failure_report({"failure": failure, "aborted": aborted})["failure"]["msg"] == failure["msg"]
    told = failure_report({"failure": failure, "aborted": {"committed": True}})
    assert told["committed"] and told["failure"]["msg"].endswith("had been published before that: it is verified and kept.")


MOVED: Dict[str, Any] = {"key": "disk0", "bytes_read": 65536, "bytes_written": 65536, "rate": 65536}


def described(device: str) -> Dict[str, Any]:
    """A manifest whose machine calls its disk so, or does not say."""
    found = a_manifest(1).to_dict()
    found["machine"]["disks"][0]["device"] = device
    return found


def test_a_disk_is_shown_with_the_name_that_its_machine_has_for_it() -> None:
    point = {"id": "p", "level": "full", "consistency": {"reached": "crash"}, "verified": {"method": "direct"}}
    for device, header in (("vda", ["key", "device", "level"]), ("", ["key", "level", "reason"])):
        snapped, committed = {"snapshot": {"machine": described(device)["machine"]}}, {"point": point, "disks": [asdict(a_disk())]}
        report = backup_report({"snapped": snapped, "committed": committed, "copied": {"disks": [MOVED]}})
        assert report["lines"][1].split()[:3] == header and report["disks"][0]["device"] == device


def test_a_restored_disk_is_shown_with_the_name_that_it_had() -> None:
    report = restore_report({"served": {"manifest": described("vdc")}, "copied": {"disks": [MOVED]}, "restored": {"machine_id": "a"}})
    assert report["lines"][1].split()[:2] == ["key", "device"] and report["lines"][2].split()[:2] == ["disk0", "vdc"]


def test_a_failure_names_the_device_of_a_disk_as_far_as_it_is_known() -> None:
    failure = {"msg": "disk0 cannot be read: disk0.qcow2 is short, disk10 is not.", "error_code": "COPY_FAILED"}
    snapshot = {"machine": described("vda")["machine"], "disks": [{"key": "disk0", "disk_id": a_disk().id}]}
    for given in ({"snapped": {"snapshot": snapshot}}, {"served": {"manifest": described("vda")}}):
        told = failure_report(dict(given, failure=failure))["failure"]["msg"]
        assert told == "disk0 (vda) cannot be read: disk0.qcow2 is short, disk10 is not."
    for given in ({}, {"snapped": {"changed": False}}, {"served": {"manifest": described("")}}):
        assert failure_report(dict(given, failure=failure))["failure"]["msg"] == failure["msg"]
