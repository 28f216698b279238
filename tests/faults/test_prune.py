# Copyright: (c) 2026, Sendense contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What the prune families leave out: their oracle turns red when it must, and a storage that becomes full under a merge."""

from __future__ import annotations

from pathlib import Path
from typing import Iterator

import pytest

from tests.faults.campaign import pruning
from tests.faults.campaign.hub_process import HubProcess
from tests.faults.campaign.workbench import Workbench
from tests.faults.failing import fill, small_filesystem


@pytest.fixture
def bench() -> Iterator[Workbench]:
    """A workbench of which nothing is left."""
    made = Workbench(20261120).initialise()
    try:
        yield made
    finally:
        left = made.settle() + made.close()
    assert left == []


def test_an_expired_point_that_is_still_there_and_one_that_is_kept_and_damaged_are_found(bench: Workbench) -> None:
    made = bench.chain(3)
    assert pruning.retention(bench) == [f"O1 {made[0]} has expired and is still there"]
    answer = pruning.prune(bench)
    assert [row["point_id"] for row in answer["result"]["merged"]] == made[:1]
    assert pruning.retention(bench) == [] and bench.oracle.points() == []
    bench.repository.mark_damaged(bench.key, made[2], "for a test")
    assert pruning.retention(bench) == [f"O1 {made[2]} is damaged, though the policy keeps it"]


def test_a_merge_that_finds_the_storage_full_is_left_and_lets_deletions_make_room(tmp_path: Path) -> None:
    with small_filesystem(tmp_path / "small", 64):
        bench = Workbench(20261120, repository=str(tmp_path / "small" / "repo")).initialise()
        try:
            bench.chain(2)
            pruning.history(bench)
            ids, filler = bench.point_ids(), tmp_path / "small" / "filler"
            running = HubProcess.start("prune", pruning.params(bench), bench.directory, stop="prune:merge-begun")
            stopped = running.stopped_at("prune:merge-begun")
            assert stopped is not None
            fill(filler)
            running.go_on(stopped)
            result = running.outcome()["result"]
            assert (
                sorted(row["point_id"] for row in result["deleted"]) == ids[:2] and [row["point_id"] for row in result["left"]] == ids[2:3]
            )
            assert "full" in result["left"][0]["reasons"][-1] and bench.oracle.points() == []
            filler.unlink()
            bench.chain(1)
            assert pruning.prune(bench)["result"]["changed"]
            assert pruning.retention(bench) == [] and bench.oracle.points() == []
        finally:
            left = bench.settle() + bench.close()
    assert left == []
