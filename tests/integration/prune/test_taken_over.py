# Copyright: (c) 2026, Sendense contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A merge that is not alone: its job is a former one, another has taken it over, or a foreign program has an image open."""

from __future__ import annotations

import subprocess
from dataclasses import asdict
from typing import Any, Dict

import pytest

from ansible_collections.sendense.platform.plugins.module_utils.errors import FencedError, LeaseHeldError
from ansible_collections.sendense.platform.plugins.module_utils.hubstate.jobs import list_jobs
from ansible_collections.sendense.platform.plugins.module_utils.jobs import merging, place
from ansible_collections.sendense.platform.plugins.module_utils.repositories._base import OpenMerge
from tests.contract.merge_steps import MERGE_JOB
from tests.contract.repository_place import JOB

from .conftest import Hub


def work_of(merge: OpenMerge) -> Dict[str, Any]:
    """What a prune keeps of the merge that it is at."""
    return {"merge": asdict(merge), "stage": merging.CHECK, "number": 1, "attempt": 1}


def test_a_job_repeats_and_abandons_nothing_of_a_merge_that_another_has_taken_over(hub: Hub) -> None:
    made, key = hub.backups(4), hub.guest.key
    late = hub.repository.begin_merge(key, made[2], made[1:2], JOB)
    own = hub.repository.begin_merge(key, made[2], made[1:2], MERGE_JOB)
    params = hub.params()
    started = place.begin(params, place.HUB, params["job_id"], {"machine_key": key, "kind": "prune"})
    try:
        with pytest.raises(FencedError, match="another job has taken it over"):
            merging.begin_again(started, hub.repository, work_of(late), 2)
        with pytest.raises(FencedError, match="another job has taken it over"):
            merging.abandon(started, hub.repository, work_of(late), "planted")
        assert hub.repository.open_merges(key) == [own]
        assert {point.status for point in hub.repository.list()} == {"ok", "merging"}
        again = merging.begin_again(started, hub.repository, work_of(own), 2)
        assert (again["attempt"], again["merge"]["job_id"]) == (2, started.job_id)
    finally:
        started.finish()
    assert hub.prune(keep_last=2)["changed"] and hub.wrong() == []


def test_a_merge_of_a_former_job_whose_survivor_is_damaged_is_abandoned(hub: Hub) -> None:
    made, key = hub.backups(5), hub.guest.key
    hub.repository.begin_merge(key, made[3], made[1:3], JOB)
    hub.repository.mark_damaged(key, made[3], "planted")
    result = hub.prune(keep_last=2, minimum_sound=0)
    assert set(result["damaged"]) >= set(made[1:3]) and hub.repository.open_merges(key) == []
    assert hub.wrong() == []


def test_a_merge_waits_for_whoever_has_an_image_open(hub: Hub) -> None:
    made = hub.backups(4)
    image = hub.directory / "r" / "machines" / hub.guest.key / "points" / made[0] / "disk0.qcow2"
    reader = subprocess.Popen(["qemu-io", "-r", "-f", "qcow2", str(image)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert reader.stdin is not None and reader.stdout is not None
    try:
        reader.stdin.write("length\n")
        reader.stdin.flush()
        assert "qemu-io" in reader.stdout.readline()  # it has the image open, and its lock
        with pytest.raises(LeaseHeldError, match="another process has the image open"):
            hub.prune(keep_last=2)
        assert list_jobs(hub.state) == [] and hub.wrong() == []
        assert {point.manifest.point_id: point.status for point in hub.repository.list()}[made[3]] == "ok"
    finally:
        reader.communicate("quit\n", timeout=30)
    assert [row["into"] for row in hub.prune(keep_last=2)["merged"]] == [made[2]] * 2
    assert hub.there() == made[2:] and hub.wrong() == []
