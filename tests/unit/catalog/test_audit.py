# Copyright: (c) 2026, Sendense contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""How much is audited, which blocks, after what, and which points are suspect."""

from __future__ import annotations

import random
from dataclasses import replace

import pytest

from ansible_collections.sendense.platform.plugins.module_utils.catalog import audit
from ansible_collections.sendense.platform.plugins.module_utils.catalog.audit import Policy, decide, events, first_suspect, walk
from ansible_collections.sendense.platform.plugins.module_utils.datapath.hashing import BLOCK_BYTES
from tests.unit.catalog.manifests import a_manifest

GIB = 1 << 30


def numbers(runs):
    """The blocks of ascending runs; runs that touch or overlap are an error."""
    found = [number for run in runs for number in range(run.first, run.first + run.blocks)]
    assert found == sorted(set(found))
    assert all(left.first + left.blocks < right.first for left, right in zip(runs, runs[1:], strict=False))
    return found


@pytest.mark.parametrize("blocks", [1, 2, 64, 65, 97, 1000, 1024, 4097])
@pytest.mark.parametrize("share", [0.01, 0.1, 0.3, 1.0])
def test_no_block_is_left_out_of_as_many_turns_as_the_share_needs(blocks: int, share: float) -> None:
    count = max(1, int(blocks * share))
    turns = -(-blocks // count)
    for first in (0, 7, 123456789):
        seen = [number for turn in range(first, first + turns) for number in numbers(walk(blocks, count, turn, "machine/disk"))]
        assert set(seen) == set(range(blocks))
        assert len(seen) == count * turns


def test_the_walk_has_its_own_count_for_a_generation_that_skips_every_second_turn_leaves_half_out() -> None:
    seen = {number for turn in range(0, 1000, 2) for number in numbers(walk(1000, 10, turn, "x"))}
    assert len(seen) == 500
    points = [replace(a_manifest(1), versions=versions) for versions in ({}, {audit.NEXT_TURN: "41"}, {audit.NEXT_TURN: "no number"})]
    assert audit.next_turn(points, 7) == 41
    assert audit.next_turn(points[:1], 7) == 7


def test_in_any_one_turn_every_block_has_the_stated_probability() -> None:
    blocks, count = 500, 50
    hits = dict.fromkeys(range(blocks), 0)
    for turn in range(blocks):
        for number in numbers(walk(blocks, count, turn, "x")):
            hits[number] += 1
    assert set(hits.values()) == {count}


def test_the_walk_is_scattered_repeatable_and_of_its_own_for_each_disk() -> None:
    walks = {seed: numbers(walk(100_000, 1000, 3, seed)) for seed in ("a", "b", "c")}
    assert walks["a"] == numbers(walk(100_000, 1000, 3, "a"))
    assert len({tuple(found) for found in walks.values()}) == 3
    for found in walks.values():
        tenths = [sum(1 for number in found if number // 10_000 == tenth) for tenth in range(10)]
        assert min(tenths) >= 50, tenths


def test_all_blocks_are_one_run_and_none_are_none() -> None:
    assert [tuple(run) for run in walk(9, 9, 5, "x")] == [(0, 9)] == [tuple(run) for run in walk(9, 100, 5, "x")]
    assert walk(0, 5, 1, "x") == []


def test_a_sample_has_its_share_but_a_minimum_and_no_more_bytes_than_allowed() -> None:
    sizes = {"disk0": 100 * GIB, "disk1": 20 * GIB}
    assert decide(Policy(share=1, max_bytes=1 << 60), [], sizes).counts == {"disk0": 16384, "disk1": 3277}
    capped = decide(Policy(share=1, max_bytes=256 << 20), [], sizes).counts
    assert sum(capped.values()) * BLOCK_BYTES == pytest.approx(256 << 20, abs=2 * BLOCK_BYTES)
    assert capped["disk0"] == pytest.approx(5 * capped["disk1"], abs=5)
    small = decide(Policy(), [], {"disk0": 10 * BLOCK_BYTES + 512, "disk1": GIB // 10})
    assert (small.in_full, small.counts) == (False, {"disk0": 11, "disk1": 64})


def test_an_audit_in_full_takes_all_whatever_the_cap() -> None:
    sizes = {"disk0": 100 * BLOCK_BYTES + 1}
    for policy, happened, reason in (
        (Policy(share=100, max_bytes=1), [], "requested"),
        (Policy(share=0, max_bytes=1), ["host_restarted", "disks_changed"], "host_restarted, disks_changed"),
    ):
        assert decide(policy, happened, sizes) == audit.Order(True, reason, {"disk0": 101})
    assert decide(Policy(share=0), [], sizes).counts == {}
    assert decide(Policy(share=0, after_events=False), ["host_restarted"], sizes).counts == {}
    assert decide(Policy(), ["host_restarted"], {}).counts == {}


def test_events_since_the_parent() -> None:
    now = {"host": "boot-1", "run": "4", "began": ""}
    parent = replace(a_manifest(1), versions={"python": "3", **audit.kept_incarnation(now)})
    sizes = {disk.id: disk.size_bytes for disk in parent.disks}
    assert audit.incarnation(parent.versions) == now
    assert events(parent, now, sizes) == []
    assert events(parent, {"host": "boot-2", "run": "1", "began": ""}, sizes) == ["host_restarted"]
    assert events(parent, {**now, "run": "5"}, sizes) == []
    assert events(parent, {**now, "run": "5", "began": "restored"}, sizes) == ["machine_restored"]
    assert events(parent, {**now, "began": "restored"}, sizes) == []
    assert events(parent, now, {**sizes, "another": 512}) == ["disks_changed"]
    assert events(parent, now, {disk_id: size + 512 for disk_id, size in sizes.items()}) == ["disks_changed"]
    assert events(replace(parent, versions={}), now, sizes) == []


def test_the_first_suspect_is_the_point_after_the_newest_that_read_the_block() -> None:
    ids = ["full", "inc1", "inc2", "inc3"]
    assert first_suspect(ids, [0]) == "inc1"
    assert first_suspect(ids, [2, 1, 3]) == "inc2"
    assert first_suspect(ids, [3]) == ""
    assert first_suspect(ids, [-1, 3]) == "full"
    assert first_suspect(["full"], [0]) == ""


def test_a_random_chain_against_its_history() -> None:
    """Point by point: who holds which version of each block, who missed a change, and what the rule makes of it."""
    rng = random.Random(7)
    for _round in range(200):
        ids = [f"p{number}" for number in range(rng.randrange(1, 8))]
        truth, wrong = 0, set()
        read, stored = [0], 0  # the full reads all
        for number in range(1, len(ids)):
            if rng.random() < 0.4:
                truth += 1
                if rng.random() < 0.5:  # reported: this point reads it
                    read.append(number)
                    stored = truth
            if stored != truth:
                wrong.add(ids[number])
        suspect = first_suspect(ids, [read[-1]])
        suspects = set(ids[ids.index(suspect) :]) if suspect else set()
        late = {ids[number] for number in range(len(ids)) if number > read[-1]}
        assert suspects == late and {one for one in wrong if one in late} <= suspects
