# Copyright: (c) 2026, Sendense contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What is read of a disk, against a model that looks at every byte."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ansible_collections.sendense.platform.plugins.module_utils.datapath import extents
from ansible_collections.sendense.platform.plugins.module_utils.datapath.extents import (
    STATUS_STEP,
    Run,
    Segment,
    StatusRange,
    allocation,
    block_status,
    changes,
    pieces,
    plan_full,
    plan_incremental,
    without,
)
from ansible_collections.sendense.platform.plugins.module_utils.datapath.pipeline import chunks
from ansible_collections.sendense.platform.plugins.module_utils.errors import CopyFailedError, ExportFailedError

BLOCK = 65536


class Answers:
    """A server that answers from a script of (length, flags) lists, or from true ranges."""

    def __init__(self, script, contexts=("base:allocation",)):
        self.script = list(script)
        self.contexts = contexts
        self.asked = []

    def has_context(self, context):
        return context in self.contexts

    def block_status(self, context, offset, length):
        self.asked.append((offset, length))
        return self.script.pop(0)


def test_neighbours_of_equal_status_are_merged_across_answers():
    server = Answers([[BLOCK, 0, BLOCK, 3], [BLOCK, 3, 2 * BLOCK, 0]])
    assert block_status(server, "base:allocation", 5 * BLOCK) == [
        StatusRange(0, BLOCK, 0),
        StatusRange(BLOCK, 2 * BLOCK, 3),
        StatusRange(3 * BLOCK, 2 * BLOCK, 0),
    ]


def test_no_request_reaches_four_gib():
    size = 9 << 30
    server = Answers([[STATUS_STEP, 3], [STATUS_STEP, 3], [size - 2 * STATUS_STEP, 3]])
    assert block_status(server, "base:allocation", size) == [StatusRange(0, size, 3)]
    assert all(length < 1 << 32 for _offset, length in server.asked)


@pytest.mark.parametrize(
    "answer",
    [[], [BLOCK], [0, 0], [BLOCK, 0, 0, 0, BLOCK, 0], [3 * BLOCK, 0], [2 * BLOCK - 1, 0, 2, 0]],
    ids=["nothing", "half a pair", "no length", "no length later", "beyond the end", "beyond the end later"],
)
def test_answers_that_make_no_sense_are_refused(answer):
    with pytest.raises(CopyFailedError):
        block_status(Answers([answer]), "base:allocation", 2 * BLOCK)


def test_a_server_without_allocation_is_read_completely():
    assert allocation(Answers([], contexts=()), BLOCK) is None
    assert plan_full(None, 3 * BLOCK + 5).segments == (Segment(0, 4, False),)


def test_a_server_without_the_changes_is_an_error_never_no_data():
    with pytest.raises(ExportFailedError) as caught:
        changes(Answers([]), "qemu:dirty-bitmap:backup-vda", BLOCK)
    assert not caught.value.retryable


def test_the_short_last_block_is_known_zero_if_its_real_bytes_are():
    size = BLOCK + 512
    assert plan_full([StatusRange(0, BLOCK, 0), StatusRange(BLOCK, 512, 3)], size).segments == (Segment(0, 1, False),)
    assert plan_full([StatusRange(0, BLOCK, 3), StatusRange(BLOCK, 512, 0)], size).segments == (Segment(1, 1, False),)


def test_a_hole_that_does_not_read_as_zeros_is_read():
    assert plan_full([StatusRange(0, BLOCK, extents.STATE_HOLE)], BLOCK).segments == (Segment(0, 1, False),)


def test_an_empty_disk_needs_nothing():
    assert plan_full([], 0).segments == ()
    assert plan_full([], 0).runs() == []


UNIT = 16384  # a quarter of a block: small enough to cut blocks anywhere that matters


def ranges_of(flags, tail):
    """Status ranges from one flag per quarter block, neighbours merged; the last is cut to ``tail`` bytes."""
    size = (len(flags) - 1) * UNIT + tail
    entries = [value for index, flag in enumerate(flags) for value in (min(UNIT, size - index * UNIT), flag)]
    return block_status(Answers([entries]), "base:allocation", size), size


@settings(max_examples=300, deadline=None)
@given(st.data())
def test_plans_match_a_model_of_every_quarter_block(data):
    count = data.draw(st.integers(min_value=1, max_value=60))
    tail = data.draw(st.sampled_from([1, 512, UNIT - 1, UNIT]))
    stored = data.draw(st.lists(st.sampled_from([0, 1, 2, 3]), min_size=count, max_size=count))
    dirty = data.draw(st.lists(st.sampled_from([0, 0, 1, 2, 3]), min_size=count, max_size=count))
    allocated, size = ranges_of(stored, tail)
    changed, _same = ranges_of(dirty, tail)
    per_block = BLOCK // UNIT
    blocks = range(-(-count // per_block))
    zero = {b for b in blocks if all(flags & 2 for flags in stored[b * per_block : (b + 1) * per_block])}
    touched = {b for b in blocks if any(flags & 1 for flags in dirty[b * per_block : (b + 1) * per_block])}

    full = plan_full(allocated, size)
    assert held(full, zero=False) == set(blocks) - zero and held(full, zero=True) == set()
    incremental = plan_incremental(changed, 1, allocated, size)
    assert held(incremental, zero=True) == touched & zero
    assert held(incremental, zero=False) == touched - zero
    blind = plan_incremental(changed, 1, None, size)
    assert held(blind, zero=False) == touched
    for plan in (full, incremental, blind):
        check_shape(plan)


def held(plan, zero):
    return {b for s in plan.segments if s.zero == zero for b in range(s.first, s.first + s.blocks)}


def check_shape(plan):
    """Ascending, no overlap, runs merged, byte counts and requests exact."""
    end = 0
    for segment in plan.segments:
        assert segment.first >= end and segment.blocks > 0
        end = segment.first + segment.blocks
    runs = plan.runs()
    assert all(left.first + left.blocks < right.first for left, right in zip(runs, runs[1:], strict=False))
    order = [block for run in runs for block in range(run.first, run.first + run.blocks)]
    requests = list(chunks(plan, 4 * BLOCK, 8 * BLOCK))
    assert sum(r.length for r in requests if not r.zero) == plan.read_bytes
    assert sum(r.length for r in requests if r.zero) == plan.zero_bytes
    position = 0
    for request in requests:
        limit = (8 if request.zero else 4) * BLOCK
        assert request.position == position and order[position] * BLOCK == request.offset
        assert request.offset // limit == (request.offset + request.length - 1) // limit
        position += -(-request.length // BLOCK)
    assert position == len(order)
    assert sum(run.blocks for run in runs) == len(order)


def test_runs_join_read_and_zero_segments():
    changed = [StatusRange(0, 4 * BLOCK, 1)]
    plan = plan_incremental(changed, 1, [StatusRange(0, BLOCK, 0), StatusRange(BLOCK, 3 * BLOCK, 3)], 4 * BLOCK)
    assert plan.segments == (Segment(0, 1, False), Segment(1, 3, True))
    assert plan.runs() == [Run(0, 4)]


@pytest.mark.parametrize(("length", "cut"), [(1, [(5, 1)]), (3, [(5, 3)]), (7, [(5, 3), (8, 3), (11, 1)])])
def test_long_runs_are_cut_into_pieces(length, cut):
    assert list(pieces([Run(5, length)], 3)) == [Run(*piece) for piece in cut]


def test_what_is_taken_is_not_wanted_any_more():
    wanted = [Run(0, 4), Run(10, 5)]
    assert without(wanted, []) == wanted
    assert without(wanted, [Run(1, 1), Run(3, 8), Run(14, 9)]) == [Run(0, 1), Run(2, 1), Run(11, 3)]
    assert without(wanted, [Run(0, 20)]) == [] == without([], wanted)
