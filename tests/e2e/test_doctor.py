# Copyright: (c) 2026, Sendense contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The doctor's playbook on a real estate: silent when all is well, finds and mends what was planted, and fails while errors are left."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from ansible_collections.sendense.platform.plugins.module_utils.hubstate.jobs import JobDir
from ansible_collections.sendense.platform.plugins.module_utils.hubstate.statedir import StateDir

from .estate import Estate, changed_anywhere, estate

MEND = {"doctor_machine_mend": True}
DEAD_JOB = "dead" * 8


@pytest.fixture(scope="module")
def examined(lab_base):
    """Two machines with backups, one of which has two."""
    with estate(lab_base, "doctor") as found:
        guests = {name: found.guest(name) for name in ("one", "two")}
        found.site.backup("one,two")
        guests["one"].write("vda", 0x77, 1 << 20, 128 << 10)
        guests["one"].flush()
        found.site.backup("one")
        yield found, guests


def kinds(run, *hosts):
    """Of these hosts; one of the hosts of a play, whichever is first, also has the findings of the places."""
    return sorted((one["kind"], one["mended"]) for host in hosts for one in run.report(host)["findings"])


BOTH = ("one", "two")


def kill_a_job(found: Estate) -> Path:
    """What a keeper leaves that was killed before it undid anything."""
    job = JobDir.create(StateDir(found.site.hub_state), DEAD_JOB, "hub", {"machine_key": ""})
    job.lock.detach()
    return Path(job.path)


def test_a_healthy_estate_has_no_findings_and_is_not_touched(examined):
    found, _guests = examined
    before = found.changeable()
    run = found.site.play("doctor")
    assert changed_anywhere(run) == {}
    assert kinds(run, *BOTH) == []
    assert all(f"{host}: the doctor found nothing wrong" in run.output for host in BOTH)
    assert found.changeable() == before


def test_what_was_planted_is_reported_then_mended_then_gone(examined):
    found, guests = examined
    job = kill_a_job(found)
    probe = f"one-backup-2026-01-01-00-00-00-{owner(found)}-00000000"
    xml = f"<domaincheckpoint><name>{probe}</name><disks><disk name='vda' checkpoint='bitmap'/></disks></domaincheckpoint>"
    guests["one"].domain.checkpointCreateXML(xml)
    foreign = xml.replace(probe, "somebody-elses")
    guests["one"].domain.checkpointCreateXML(foreign)
    before = found.changeable()

    told = found.site.play("doctor", extra={"doctor_machine_report_dir": str(found.site.directory / "reports")})
    assert kinds(told, *BOTH) == [("dead_job", False), ("tracking_unneeded", False)]
    assert [one["object"] for one in told.report("one")["findings"] if one["machine_key"]] == [probe]
    assert json.loads((found.site.directory / "reports" / "doctor-one.json").read_text())["counts"]["hint"] == 1
    assert "dead_job: What it left takes space" in told.output and "mendable" in told.output
    would = found.site.play("doctor", extra=MEND, options=["--check"])
    assert kinds(would, *BOTH) == kinds(told, *BOTH) and changed_anywhere(would) != {}
    assert found.changeable() == before

    mended = found.site.play("doctor", extra=MEND)
    assert kinds(mended, *BOTH) == [("dead_job", True), ("tracking_unneeded", True)]
    assert not job.exists() and "somebody-elses" in [point.getName() for point in guests["one"].domain.listAllCheckpoints()]
    again = found.site.play("doctor", extra=MEND)
    assert (kinds(again, *BOTH), changed_anywhere(again)) == ([], {})
    guests["one"].domain.checkpointLookupByName("somebody-elses").delete()
    assert {disk["level"] for disk in found.site.backup("one").report("one")["disks"] if disk["key"] == "disk0"} == {"incremental"}


def test_the_play_fails_while_an_error_is_left_for_its_machine_only(examined):
    found, guests = examined
    points = sorted(Path(found.site.repository, "machines", f"libvirt-{guests['two'].uuid}", "points").iterdir())
    image = points[-1] / "disk0.qcow2"
    kept = shutil.copy2(image, found.site.directory / "kept.qcow2")
    image.unlink()
    run = found.site.play("doctor", ok=False)
    assert run.returncode == 2 and kinds(run, "one") == []
    assert run.error("two")["error_code"] == "FINDINGS_REMAIN" and "file_missing" in run.error("two")["msg"]
    assert "file_missing" in [kind for kind, _mended in kinds(run, "two")]
    assert "findings:" not in run.output and "mendable:" not in run.output  # the table said it all
    marked = found.site.play("doctor", extra={"doctor_machine_mend": ["file_missing"]}, ok=False)
    assert ("file_missing", True) in kinds(marked, "two") and marked.returncode == 2
    again = found.site.play("doctor", extra=MEND, ok=False)
    assert kinds(again, "two") == [("no_sound_point", False), ("point_damaged", False)] and changed_anywhere(again) == {}
    shutil.move(kept, image)
    (points[-1].parents[1] / "damage" / f"{points[-1].name}.json").unlink()
    assert found.site.play("doctor").returncode == 0


def test_a_kind_that_cannot_be_mended_is_refused(examined):
    found, _guests = examined
    run = found.site.play("doctor", extra={"doctor_machine_mend": "point_damaged"}, ok=False)
    error = run.error("one") or run.error("two")
    assert error["error_code"] == "INVALID_INPUT" and "cannot mend point_damaged" in error["msg"]


def test_machines_that_are_gone_are_reported_by_one_host_or_by_localhost(examined):
    found, guests = examined
    machines = Path(found.site.repository, "machines")
    gone = machines / "libvirt-6c9ce2d5-4f5e-4b7f-9a49-8c6f0ab1a0ff"
    (gone / "points").mkdir(parents=True)
    (gone / "points" / "20261120T115400Z-0123abcd").mkdir()
    run = found.site.play("doctor", ok=False)
    wanted = ["manifest_unreadable", "no_sound_point", "source_gone"]
    assert sorted([[one["kind"] for one in run.report(host)["findings"]] for host in BOTH], key=len)[0] == []
    assert [kind for kind, _mended in kinds(run, *BOTH)] == wanted
    local = found.site.play("doctor", extra={"sendense_hosts": "localhost"}, ok=False)
    assert sorted(one["kind"] for one in local.report("localhost")["findings"]) == wanted
    shutil.rmtree(gone)


def owner(found: Estate) -> str:
    marker = json.loads(Path(found.site.repository, "sendense-repository.json").read_text())
    return str(marker["repository_id"])[:8]
