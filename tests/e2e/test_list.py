# Copyright: (c) 2026, Sendense contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Backups as a list for people, of one machine, of one that is gone, and of a whole repository."""

from __future__ import annotations

import json
from pathlib import Path

from .estate import estate

GONE = "libvirt-6c9ce2d5-4f5e-4b7f-9a49-8c6f0ab1a0ff"
UNREADABLE = "20261120T115400Z-0123abcd"


def test_backups_are_listed_and_nothing_is_changed(lab_base):
    with estate(lab_base, "list") as found:
        guest = found.guest("web01")
        point = found.site.backup("web01").report("web01")["point"]["id"]
        Path(found.site.repository, "machines", GONE, "points", UNREADABLE).mkdir(parents=True)
        before, reports = found.changeable(), found.site.directory / "lists"

        one = found.site.play("list", "web01", {"list_backups_report_dir": str(reports)})
        assert f"web01: machine web01, key libvirt-{guest.uuid}: 1 backup, " in one.output and UNREADABLE not in one.output
        (row,) = [line.split() for line in one.output.splitlines() if line.startswith(f"web01: {point}")]
        assert row[3:6] == ["full", "ok", "2"]
        assert [stored["point_id"] for stored in json.loads((reports / "list-web01.json").read_text())["points"]] == [point]

        everything = found.site.play("list", extra={"sendense_hosts": "localhost"})
        assert [stored["point_id"] for stored in everything.report("localhost")["points"]] == [UNREADABLE, point]
        gone = found.site.play("list", extra={"sendense_hosts": "localhost", "list_backups_machine_key": GONE})
        assert f"localhost: machine ?, key {GONE}: 1 backup, " in gone.output and point not in gone.output
        damaged = found.site.play("list", "web01", {"list_backups_status": "damaged"}, options=["--check"])
        assert "web01: there are no such backups" in damaged.output
        assert found.changeable() == before
        guest.remove()
