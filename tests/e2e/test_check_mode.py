# Copyright: (c) 2026, Sendense contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What --check says and that it changes nothing; that a second run on unchanged input changes nothing either."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from ansible_collections.sendense.platform.plugins.module_utils.repositories import registry
from ansible_collections.sendense.platform.plugins.module_utils.repositories._base import NewDisk, NewPoint

from .estate import Estate, changed_anywhere, estate, play, tree

CHECK = ["--check", "--diff"]
PROBE = """<domaincheckpoint><name>probe</name><disks>
<disk name="vda" checkpoint="bitmap"/><disk name="vdb" checkpoint="no"/></disks></domaincheckpoint>"""
DEAD_JOB = "dead" * 8


@pytest.fixture(scope="module")
def checked(lab_base):
    """``known`` has a backup and has been written to since, ``fresh`` has none."""
    with estate(lab_base, "check") as found:
        known, fresh = found.guest("known"), found.guest("fresh")
        found.site.backup("known")
        known.write("vda", 0x77, 1 << 20, 128 << 10)
        known.flush()
        yield found, {"known": known, "fresh": fresh}


@pytest.fixture
def unchanged(checked):
    """Whatever the test does, it must leave every byte and every time of last change as they were."""
    before = checked[0].changeable()
    yield
    after = checked[0].changeable()
    assert {path: state for path, state in after.items() if before.get(path) != state} == {}
    assert sorted(before) == sorted(after)


def test_the_proof_notices_a_changed_byte_a_new_file_and_a_new_checkpoint(checked):
    found, guests = checked
    before = found.changeable()
    (probe := Path(found.site.repository, "probe")).write_text("x")
    assert found.changeable() != before
    probe.unlink()
    times = found.changeable()
    guests["fresh"].domain.checkpointCreateXML(PROBE)
    differing = {path for path, state in found.changeable().items() if times.get(path) != state}
    guests["fresh"].domain.checkpointLookupByName("probe").delete()
    assert any("checkpoint probe" in path for path in differing) and any("bitmaps" in path for path in differing)


def test_backup_in_check_mode_says_level_reason_bytes_and_destination(checked, unchanged):
    found, _guests = checked
    run = found.site.play("backup", "known,fresh", options=CHECK)
    fresh, known = run.report("fresh"), run.report("known")
    for report in (fresh, known):
        assert report["planned"] is True and report["repository"]["path"] == found.site.repository
        assert [disk["key"] for disk in report["disks"]] == ["disk0", "disk1"]
        assert report["expected_bytes"] == sum(disk["expected_bytes"] for disk in report["disks"])
    assert [(disk["level"], disk["reason"]) for disk in fresh["disks"]] == [("full", "no_previous_backup")] * 2
    assert [(disk["level"], disk["reason"]) for disk in known["disks"]] == [
        ("incremental", "change_tracking"),
        ("full", "tracking_unsupported"),
    ]
    assert 1 << 20 <= fresh["disks"][0]["expected_bytes"] < 16 << 20
    assert 128 << 10 <= known["disks"][0]["expected_bytes"] < 1 << 20
    for name, level, reason in (("fresh", "full", "no_previous_backup"), ("known", "incremental", "change_tracking")):
        assert f"{name}: would be backed up to {found.site.repository}" in run.output
        (line,) = [line for line in run.output.splitlines() if line.startswith(f"{name}: disk0")]
        assert line.split()[2] == "vda" and level in line and reason in line and ("KiB" in line or "MiB" in line)


def test_restore_in_check_mode_to_a_machine_and_to_files(checked, unchanged):
    found, _guests = checked
    storage = found.site.directory / "checked-disks"
    storage.mkdir()
    extra = {"restore_vm_name": "known-checked", "restore_vm_storage": str(storage)}
    run = found.site.play("restore", "known", extra, options=CHECK)
    assert "known: backup" in run.output and "would be restored" in run.output
    found.site.play("restore", "known", {"restore_vm_directory": str(storage / "files")}, options=CHECK)
    assert list(storage.iterdir()) == []


def test_verify_and_discover_in_check_mode(checked, unchanged):
    found, _guests = checked
    found.site.play("verify", "known", options=CHECK)
    assert found.site.play("discover", "known,fresh", options=CHECK).changed("known") == 0


def test_cleanup_in_check_mode_names_what_it_would_remove(checked, unchanged):
    found, _guests = checked
    assert changed_anywhere(found.site.play("cleanup", options=CHECK)) == {}


def test_cleanup_in_check_mode_leaves_what_it_names_and_the_next_run_removes_it_once(checked):
    found, guests = checked
    repository = registry.open_repository({"type": "local", "path": found.site.repository, "id": "", "reserve_bytes": 0})
    key = f"libvirt-{guests['fresh'].uuid}"
    disk = NewDisk("disk0", "some-disk", 1 << 20, "full", "no_previous_backup", "")
    generation = repository.raise_generation(key)
    repository.create(NewPoint(key, DEAD_JOB, generation, "2026-11-20T12:00:00Z", [disk], "", 0))
    before = found.changeable()
    run = found.site.play("cleanup", options=CHECK)
    assert [path for path, state in found.changeable().items() if before.get(path) != state] == []
    assert sum(changed_anywhere(run).values()) == 1
    assert sum(changed_anywhere(found.site.play("cleanup")).values()) == 1
    assert repository.partials(key) == []
    assert changed_anywhere(found.site.play("cleanup")) == {}


def test_the_repository_module_in_check_mode_and_twice(checked, unchanged):
    found, _guests = checked
    absent, made = str(found.site.directory / "absent"), str(found.site.directory / "made")
    module = "sendense.platform.repository"
    tasks = [
        {"name": "check absent", module: {"repository": {"path": absent}}, "check_mode": True},
        {"name": "check present", module: {"repository": {"path": found.site.repository}}, "check_mode": True},
        {"name": "again", module: {"repository": {"path": found.site.repository}}},
        {"name": "first", module: {"repository": {"path": made}}},
        {"name": "second", module: {"repository": {"path": made}}},
    ]
    run = found.generated("repositories", [play(tasks)])
    changed = [run.result("hub01", str(task["name"]))["changed"] for task in tasks]
    assert changed == [True, False, False, True, False]
    assert run.result("hub01", "first")["identity"] == run.result("hub01", "second")["identity"]
    assert not Path(absent).exists()
    shutil.rmtree(made)


@pytest.mark.parametrize("playbook", ["cleanup", "verify", "discover", "doctor"])
def test_a_second_run_changes_nothing(checked, playbook):
    found, guests = checked
    found.site.play(playbook, "known")
    points = found.points(guests["known"])
    assert changed_anywhere(found.site.play(playbook, "known")) == {}
    assert found.points(guests["known"]) == points


def test_the_same_restore_again_changes_nothing(checked):
    found, _guests = checked
    storage = found.site.directory / "disks"
    storage.mkdir()
    extra = {"restore_vm_name": "known-restored", "restore_vm_storage": str(storage), "restore_vm_power_on": False}
    first = found.site.play("restore", "known", extra)
    assert first.changed("known") > 0
    before, machines = tree(storage), machine_ids(found)
    again = found.site.play("restore", "known", extra)
    assert changed_anywhere(again) == {}
    assert again.report("known")["machine_id"] == first.report("known")["machine_id"]
    assert (tree(storage), machine_ids(found)) == (before, machines)


def machine_ids(found: Estate) -> list:
    """Of all machines of the host."""
    return sorted(domain.UUIDString() for domain in found.hosts[0].connection.listAllDomains())
