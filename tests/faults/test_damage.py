# Copyright: (c) 2026, Sendense contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What the playbooks say of a damaged point. That every damage is found is the business of the family ``flip``."""

from __future__ import annotations

from pathlib import Path

from .campaign.damaging import damage
from .fleet import Fleet


def test_after_damage_the_playbooks_say_so_and_the_next_backup_is_full(fleet: Fleet, tmp_path: Path) -> None:
    fleet.add("m00").backup()
    fleet.scribble()
    fleet.backup()
    base = fleet.oracle.repository.list()[0].manifest.point_id
    image = Path(fleet.site.repository, "machines", fleet.key("m00"), "points", base, "disk0.qcow2")
    damage(image, "flip", fleet.random)

    verified = fleet.site.play("verify", "m00", {"verify_vm_all_points": True}, ok=False)
    assert verified.returncode != 0
    assert [point.status for point in fleet.oracle.repository.list()] == ["damaged", "damaged"]
    restored = fleet.site.play("restore", "m00", {"restore_vm_directory": str(tmp_path / "files")}, ok=False)
    assert restored.error("m00")["error_code"] in ("POINT_NOT_FOUND", "POINT_DAMAGED")

    fleet.remember()
    run = fleet.backup()
    assert fleet.oracle.next_backup(run, ["m00"], {"previous_damaged"}) == []
    assert fleet.oracle.check(fleet.before) == []
