# Copyright: (c) 2026, Sendense contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Prune by the playbook: what the policy keeps stays byte for byte and restores; the next backup is an incremental."""

from __future__ import annotations

import pytest

from .estate import changed_anywhere, estate
from .points import references, stored_point

POLICY = {"sendense_retention": {"keep_last": 2, "timezone": "Europe/Berlin"}}


@pytest.fixture(scope="module")
def pruned(lab_base, module_directory):
    """Two chains of a machine, then the plays in their order; the points and what each must hold."""
    with estate(lab_base, "prune") as found:
        guest = found.guest("web01")
        held = {}
        for number in range(5):
            guest.write("vda", 0x10 + number, number << 20, 256 << 10)
            guest.write("vdb", 0x20 + number, number << 16, 64 << 10)
            run = found.site.backup("web01", backup_vm_full=number == 2)
            held[run.report("web01")["point"]["id"]] = references(guest, module_directory / f"r{number}")
        before = found.changeable()
        check = found.site.play("prune", "web01", POLICY, options=["--check", "--diff"])
        touched = {path for path, state in found.changeable().items() if before.get(path) != state}
        runs = {"check": check, "first": found.site.play("prune", "web01", POLICY), "second": found.site.play("prune", "web01", POLICY)}
        yield found, guest, held, runs, touched
        guest.remove()


def test_check_mode_changes_nothing_and_says_what_would_go_and_why(pruned):
    _found, _guest, held, runs, touched = pruned
    ids, report = list(held), runs["check"].report("web01")
    assert touched == set()
    assert [row["point_id"] for row in report["deleted"]] == ids[:2]
    assert [(row["point_id"], row["into"]) for row in report["merged"]] == [(ids[2], ids[3])]
    assert f"-{ids[2]} full ok: merged, no rule keeps it, merged into {ids[3]}" in runs["check"].output.replace("\\n", "\n")


def test_the_run_does_what_was_said_and_the_second_changes_nothing(pruned):
    found, _guest, held, runs, _touched = pruned
    ids, report = list(held), runs["first"].report("web01")
    assert [row["point_id"] for row in report["deleted"]] == ids[:2]
    assert [row["point_id"] for row in report["merged"]] == ids[2:3]
    assert [row["point_id"] for row in report["kept"]] == ids[3:] and report["bytes_freed"] > 0
    assert runs["first"].changed("web01") == 1
    assert changed_anywhere(runs["second"]) == {}
    assert {path.split("/points/")[1].split("/")[0] for path in found.points(_guest) if "/points/" in path} == set(ids[3:])


def test_what_is_left_is_what_was_backed_up_for_qemu_img_and_for_the_product(pruned):
    found, guest, held, _runs, _touched = pruned
    for point_id in list(held)[3:]:
        assert stored_point(found.site.repository, guest, point_id).differing(held[point_id]) == []
    assert found.site.play("verify", "web01", {"verify_vm_all_points": True}).report("web01")["ok"] is True


def test_the_next_backup_is_an_incremental_and_a_machine_that_is_gone_is_pruned_by_its_key(pruned):
    found, guest, held, _runs, _touched = pruned
    guest.write("vda", 0x77, 9 << 20, 64 << 10)
    point = found.site.backup("web01").report("web01")["point"]
    assert (point["level"], point["parent_id"]) == ("incremental", list(held)[-1])
    extra = dict(POLICY, sendense_hosts="hub01", prune_points_machine_key=f"libvirt-{guest.uuid}")
    report = found.site.play("prune", "", extra).report("hub01")
    assert [row["into"] for row in report["merged"]] == [list(held)[-1]]


def test_one_chosen_backup_goes_without_a_policy(pruned):
    found, _guest, held, _runs, _touched = pruned
    newest = found.site.backup("web01").report("web01")["point"]["id"]
    report = found.site.play("prune", "web01", {"prune_points_point_ids": [newest]}).report("web01")
    assert [row["point_id"] for row in report["deleted"]] == [newest] and report["merged"] == []
    error = found.site.play("prune", "web01", {"prune_points_point_ids": [list(held)[0]]}, ok=False).error("web01")
    assert error["error_code"] == "POINT_NOT_FOUND" and list(held)[0] in error["msg"]


def test_a_run_without_a_policy_or_with_a_mistaken_one_says_so(pruned):
    found, _guest, _held, _runs, _touched = pruned
    assert "sendense_retention" in found.site.play("prune", "web01", ok=False).error("web01")["msg"]
    error = found.site.play("prune", "web01", {"sendense_retention": {"keep_last": 0, "maximum_age_days": 30}}, ok=False).error("web01")
    assert error["error_code"] == "INVALID_INPUT" and "keep_within_days: 30" in error["msg"]
