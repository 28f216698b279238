# Copyright: (c) 2026, Sendense contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What the doctor's report says, of which machine, and when it fails."""

from __future__ import annotations

from typing import Any, Dict

from ansible_collections.sendense.platform.plugins.module_utils.jobs.doctor.kinds import Diagnosis
from ansible_collections.sendense.platform.plugins.plugin_utils.doctor_report import doctor_report


def found(kind: str, machine_id: str = "", name: str = "x", **changes: Any) -> Dict[str, Any]:
    return {**Diagnosis(kind, name, "seen", "hub", machine_id=machine_id).to_dict(), **changes}


def report(*findings: Dict[str, Any], **changes: Any) -> Dict[str, Any]:
    given: Dict[str, Any] = {"examined": [{"findings": list(findings)}, {"findings": []}], "machine_id": "a", "machine_ids": ["a", "b"]}
    return doctor_report({**given, **changes})


def test_nothing_wrong_is_one_line() -> None:
    assert report()["lines"] == ["the doctor found nothing wrong"]
    assert (report()["ok"], report()["counts"]) == (True, {"error": 0, "warning": 0, "hint": 0})


def test_each_machine_has_its_own_findings_and_one_host_has_the_rest() -> None:
    findings = [found("dead_job"), found("partial_orphan", "a"), found("partial_orphan", "b"), found("source_gone", "gone")]
    assert [one["machine_id"] for one in report(*findings)["findings"]] == ["a"]
    assert [one["machine_id"] for one in report(*findings, rest=True)["findings"]] == ["", "a", "gone"]
    assert [one["machine_id"] for one in report(*findings, rest=True, machine_id="", machine_ids=[])["findings"]] == ["", "a", "b", "gone"]


def test_the_worst_comes_first_and_every_kind_is_explained_once() -> None:
    lines = report(found("stale_lease", "a"), found("stale_lease", "a", "y"), found("no_sound_point", "a"))["lines"]
    assert lines[0] == "the doctor found 1 error, 0 warnings, 2 hints"
    assert lines[2].startswith("error") and [line.split(":")[0] for line in lines[5:]] == ["no_sound_point", "stale_lease", "To mend"]
    assert "doctor-findings.md#no_sound_point" in lines[5] and "The doctor cannot mend it." in lines[5]
    assert "Mending: The file is removed." in lines[6]


def test_machines_other_than_the_hosts_own_are_named() -> None:
    gone = found("source_gone", "", machine_key="libvirt-gone")
    assert "libvirt-gone" in report(gone, rest=True)["lines"][2] and "libvirt-gone" not in str(report(gone)["lines"])
    assert " of " not in report(found("dead_job"), rest=True)["lines"][1]


def test_errors_that_are_left_fail_and_those_that_were_mended_do_not() -> None:
    failed = report(found("file_missing", "a", "20261120T115400Z-0123abcd disk0"))
    assert failed["failure"]["error_code"] == "FINDINGS_REMAIN" and not failed["ok"]
    assert "file_missing 20261120T115400Z-0123abcd disk0" in failed["failure"]["msg"]
    mended = report(found("file_missing", "a", mended=True))
    assert "failure" not in mended and mended["lines"][0] == "the doctor mended 1 and leaves 0 errors, 0 warnings, 0 hints"
    assert "failure" not in report(found("partial_orphan", "a"))


def test_a_place_that_is_hub_and_node_at_once_is_told_once() -> None:
    job, left = found("dead_job", name="/jobs/1"), found("dead_job", name="/jobs/1", where="node", mended=True)
    for place, told in (("x", [("hub", True)]), ("y", [("hub", False), ("node", True)]), ("", [("hub", False), ("node", True)])):
        answers = [{"findings": [job], "place": "x" if place else ""}, {"findings": [left], "place": place}]
        assert [(one["where"], one["mended"]) for one in report(examined=answers, rest=True)["findings"]] == told


def test_check_mode_says_what_would_be_mended() -> None:
    answer = {"findings": [found("dead_job", "a"), found("stale_lease", "a")], "would_mend": ["dead_job x"]}
    lines = report(examined=[answer])["lines"]
    assert "would be mended" in lines[2] and "would be" not in lines[3] and lines[-1].startswith("To mend")
    assert not report(examined=[{**answer, "findings": [found("dead_job", "a")]}])["lines"][-1].startswith("To mend")


def test_a_hostile_name_stays_on_its_line() -> None:
    lines = report(found("restore_leftover", "a", "/x/\x1b[2J\nsendense: all is well"))["lines"]
    assert not any("\x1b" in line or "\n" in line for line in lines)
