# Copyright: (c) 2026, Sendense contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The commands of the runbook for a full disk, run as they stand on the page, on a repository with a partial backup."""

from __future__ import annotations

from pathlib import Path

from ansible_collections.sendense.platform.plugins.module_utils.repositories.local import LocalRepository
from tests.contract.point_writer import Guest
from tests.integration.repositories.test_local_directory import run_blocks


def test_the_commands_of_the_full_disk_page_show_what_takes_space_and_touch_nothing(tmp_path: Path) -> None:
    root = tmp_path / "a repository"
    repository = LocalRepository(str(root), reserve_bytes=0)
    repository.initialise()
    guest = Guest(sizes={"serial-a": 2 * 65536})
    guest.scribble(1)
    guest.backup(repository)
    partial = guest.next_job().open(repository)
    before = {path: path.lstat().st_mtime_ns for path in root.rglob("*")}
    said = run_blocks("runbooks/full-disk.md", {"REPOSITORY": str(root)})
    assert str(root / "machines" / guest.key) in said and f"{partial.point_id}.partial" in said and "IUse%" in said
    assert {path: path.lstat().st_mtime_ns for path in root.rglob("*")} == before
