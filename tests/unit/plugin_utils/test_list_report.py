# Copyright: (c) 2026, Sendense contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What the list of backups says to people."""

from __future__ import annotations

from typing import Any, Dict

from ansible_collections.sendense.platform.plugins.module_utils.catalog.manifest import unreadable_manifest
from ansible_collections.sendense.platform.plugins.module_utils.jobs.info import describe_point
from ansible_collections.sendense.platform.plugins.module_utils.repositories._base import Point
from ansible_collections.sendense.platform.plugins.plugin_utils.list_report import list_report
from tests.unit.catalog.manifests import MACHINE, a_manifest, point_id


def report(*points: Point) -> Dict[str, Any]:
    return list_report({"listed": {"points": [describe_point(point) for point in points]}})


def test_nothing_is_said_too() -> None:
    assert report()["lines"] == ["there are no such backups"] and report()["machines"] == []


def test_one_row_per_backup_says_what_is_needed_to_choose_one() -> None:
    sound = Point(a_manifest(1), "ok", immutable_until="2026-12-20T00:00:00Z")
    damaged = Point(a_manifest(2, parent=1), "damaged", damage="a block of disk0 differs")
    doubted = Point(a_manifest(3), "ok", distrusted="tracking lied")
    lines = report(sound, damaged, doubted)["lines"]
    assert lines[0] == f"machine web01, key {MACHINE.key}: 3 backups, 768.0 KiB stored"
    assert lines[1].split() == "backup created level status disks stored verified immutable until why".split()
    first = [point_id(1), "2026-11-20T12:00:01Z", "full", "ok", "1", "256.0", "KiB", "direct", "2026-12-20T00:00:00Z"]
    assert lines[2].split() == first
    assert lines[3].split()[2:4] == ["incremental", "damaged"] and lines[3].endswith("a block of disk0 differs")
    assert lines[4].endswith("no incremental is built on it: tracking lied")


def test_machines_have_a_table_each_and_the_newest_name_that_is_known() -> None:
    renamed = a_manifest(2)
    renamed.machine = dict(renamed.machine, name="web02")
    lost = unreadable_manifest("libvirt-gone", point_id(4))
    found = report(Point(a_manifest(1), "ok"), Point(renamed, "ok"), Point(lost, "damaged", "its manifest cannot be read"))
    assert [(one["machine_name"], one["backups"]) for one in found["machines"]] == [("web02", 2), ("", 1)]
    assert "machine ?, key libvirt-gone: 1 backup, 0 B stored" in found["lines"]
    assert found["lines"][-1].split()[:4] == [point_id(4), "2026-11-20T12:00:04Z", "unknown", "damaged"]
