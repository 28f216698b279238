# Copyright: (c) 2026, Sendense contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What the prune families leave out: an oracle that turns red, prunes that are cancelled or wake up late, a storage that becomes full."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Iterator

import pytest

from ansible_collections.sendense.platform.plugins.module_utils.hubstate.jobs import list_jobs
from ansible_collections.sendense.platform.plugins.module_utils.hubstate.statedir import StateDir
from ansible_collections.sendense.platform.plugins.module_utils.jobs import cancel
from tests.faults.campaign import pruning
from tests.faults.campaign.hub_process import HubProcess
from tests.faults.campaign.workbench import Workbench
from tests.faults.cancelling import LEFT_NOTHING_SECONDS
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


@pytest.mark.parametrize("step", ["prune:planned", "prune:merge-begun", "prune:merger-started", "prune:checker-started"])
def test_a_cancelled_prune_ends_at_once_and_the_next_one_completes_it(bench: Workbench, step: str) -> None:
    bench.chain(2)
    pruning.history(bench)
    made, before, _kept = bench.point_ids(), bench.oracle.committed_files(), pruning.let_go(bench)
    running = HubProcess.start("prune", pruning.params(bench), bench.directory, stop=step)
    stopped = running.stopped_at(step)
    assert stopped is not None
    asked, machine = time.monotonic(), {"state_dir": bench.site.hub_state, "platform": "", "machine_id": "", "machine_key": bench.key}
    cancelled = cancel.cancel_jobs(dict(machine, job_ids=[], wait=LEFT_NOTHING_SECONDS), check_mode=False)["jobs"]
    assert time.monotonic() - asked < LEFT_NOTHING_SECONDS
    assert [(job["kind"], job["job_id"]) for job in cancelled] == [("prune", running.job_id)]
    # While its module still stands at the step, and without any clean-up; what an open merge has is for the next prune to go on with.
    left = [line for line in bench.oracle.leaks() if "hub_process" not in line and ".merged" not in line]
    assert bench.oracle.jobs() + left == []
    running.go_on(stopped)
    assert running.outcome()["error"]["error_code"] == "JOB_CANCELLED"
    assert bench.settle() + bench.oracle.points() + bench.oracle.unchanged(before) + bench.oracle.jobs() == []
    assert bench.point_ids() == (made if step == "prune:planned" else made[2:])
    assert set(made[-pruning.KEEP :]) <= set(bench.point_ids("ok"))
    assert pruning.prune(bench)["result"]["changed"]
    assert pruning.retention(bench) + bench.settle() + bench.oracle.points() + bench.oracle.leaks() == []


def test_a_prune_that_wakes_up_after_another_has_taken_its_merge_over_changes_nothing(bench: Workbench) -> None:
    bench.chain(4)
    pruning.let_go(bench)
    late = HubProcess.start("prune", dict(pruning.params(bench), heartbeat_timeout=1), bench.directory, stop="prune:data-moved")
    stopped = late.stopped_at("prune:data-moved")
    assert stopped is not None
    deadline = time.monotonic() + 40
    while any(job.alive() for job in list_jobs(StateDir(bench.site.hub_state))):
        assert time.monotonic() < deadline, "the keeper does not give the job up"
        time.sleep(0.1)
    assert pruning.prune(bench)["result"]["changed"]
    after = bench.oracle.committed_files()
    late.go_on(stopped)
    assert late.outcome()["error"]["error_code"] in ("FENCED", "JOB_NOT_FOUND", "JOB_ABANDONED")
    assert bench.oracle.committed_files() == after
    assert pruning.retention(bench) + bench.settle() + bench.oracle.points() + bench.oracle.leaks() == []


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
