# Copyright: (c) 2026, Sendense contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The oracle of the prune families turns red for what it is there to find."""

from __future__ import annotations

from typing import Iterator

import pytest

from tests.faults.campaign import pruning
from tests.faults.campaign.workbench import Workbench


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
