# Copyright: (c) 2026, Sendense contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The family ``merge-kill`` turns red when a merge does not keep its promises."""

from __future__ import annotations

import random
from pathlib import Path

import pytest

from tests.faults.campaign.merge_kill import Estate, Kill


@pytest.fixture
def estate(tmp_path: Path) -> Estate:
    """A merge that was killed after its data was moved."""
    estate = Estate(tmp_path).made(random.Random(1))
    assert estate.struck(Kill("merge:data-committed", 0.0))
    assert estate.findings() == []
    return estate


def test_a_consumed_point_that_is_offered_is_found(estate: Estate) -> None:
    (estate.points.parent / "merge.json").unlink()
    assert any(finding.startswith(f"O1 {estate.ids[1]}") for finding in estate.findings())


def test_a_survivor_that_lost_its_data_is_found(estate: Estate) -> None:
    image = estate.points / estate.ids[3] / "disk0.qcow2"
    image.write_bytes((estate.points / estate.ids[2] / "disk0.qcow2").read_bytes())
    assert any(finding.startswith("O1") for finding in estate.findings())


def test_a_survivor_that_is_gone_and_leftovers_are_found(estate: Estate) -> None:
    (estate.points / f"{estate.ids[3]}.merged").mkdir()
    (estate.points / f"{estate.ids[3]}.merged" / "x").write_text("")
    assert estate.end(next_backup=True) == []
    (estate.points / "leftover").mkdir()
    assert [finding for finding in estate.end(next_backup=False) if finding.startswith("O3 left")]
    (estate.points / estate.ids[3]).rename(estate.points / "aside")
    assert f"O4 {estate.ids[3]} is gone" in estate.findings()
