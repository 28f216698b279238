# Copyright: (c) 2026, Sendense contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""How deep a disk is read: as measured best beside its servers, as much as the line holds over a line with latency."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ansible_collections.sendense.platform.plugins.module_utils.datapath.extents import CopyPlan, Segment
from ansible_collections.sendense.platform.plugins.module_utils.datapath.pacing import (
    FULL_DEPTH,
    IN_FLIGHT_BYTES,
    INCREMENTAL_DEPTH,
    LARGE_BYTES,
    MAX_DEPTH,
    NEAR_SECONDS,
    SMALL_BYTES,
    UNPRIMED_BYTES,
    UNPRIMED_DEPTH,
    Line,
    Pace,
    choose,
    spots,
)

MIB = 1 << 20
FULL, INCREMENTAL, UNPRIMED = Pace(MIB, FULL_DEPTH), Pace(MIB, INCREMENTAL_DEPTH), Pace(UNPRIMED_BYTES, UNPRIMED_DEPTH)
NEAR = Line(0.0001, 0.0005)


def line(milliseconds: float, mib_per_s: float) -> Line:
    """A line of this latency and rate."""
    small = milliseconds / 1000
    return Line(small, small + (LARGE_BYTES - SMALL_BYTES) / (mib_per_s * MIB))


@pytest.mark.parametrize("near", [FULL, INCREMENTAL, UNPRIMED])
@pytest.mark.parametrize("lines", [[], [NEAR], [NEAR, NEAR], [Line(NEAR_SECONDS, 0.5)], [Line(0.001, 0.001), NEAR]])
def test_beside_its_servers_nothing_changes(near: Pace, lines: "list[Line]") -> None:
    assert choose(lines, near, near.request_bytes, 1) == near


@pytest.mark.parametrize(
    ("lines", "disks", "depth"),
    [
        ([line(20, 490), NEAR], 1, 4 + 20),  # 10 MiB on the way, twice
        ([line(20, 95), NEAR], 1, 4 + 4),
        ([line(20, 10), NEAR], 1, 4 + 1),
        ([NEAR, line(20, 95)], 1, 4 + 4),  # the target counts as much as the source
        ([line(20, 1000), line(40, 95)], 1, 4 + 12),  # both latencies, at the rate of the slower
        ([line(200, 1000), NEAR], 1, MAX_DEPTH),
        ([Line(0.02, 0.02), NEAR], 1, MAX_DEPTH),  # so quick that nothing could be measured
        ([line(20, 1000), NEAR], 4, 16),  # the memory is shared
        ([line(20, 1000), NEAR], 8, 8),
        ([line(20, 1000), NEAR], 100, FULL_DEPTH),
    ],
)
def test_a_line_with_latency_is_filled(lines: "list[Line]", disks: int, depth: int) -> None:
    pace = choose(lines, FULL, MIB, disks)
    assert pace == Pace(MIB, depth, pytest.approx(sum(one.latency_s for one in lines)))


def test_scattered_changes_need_more_requests() -> None:
    assert choose([line(20, 95)], INCREMENTAL, MIB, 1).depth == 16 + 4
    assert choose([line(20, 95)], INCREMENTAL, 512 << 10, 1).depth == 16 + 8
    assert choose([line(20, 95)], INCREMENTAL, 64 << 10, 1).depth == MAX_DEPTH
    assert choose([line(20, 95)], INCREMENTAL, 64 << 10, 8).depth == INCREMENTAL_DEPTH


@settings(max_examples=300, deadline=None)
@given(
    st.lists(st.builds(Line, st.floats(0, 10), st.floats(0, 20)), max_size=2),
    st.sampled_from([FULL, INCREMENTAL, UNPRIMED]),
    st.integers(1, MIB),
    st.integers(1, 120),
)
def test_never_shallower_than_near_and_never_beyond_the_memory(lines: "list[Line]", near: Pace, chunk: int, disks: int) -> None:
    pace = choose(lines, near, chunk, disks)
    assert pace.request_bytes == near.request_bytes
    assert near.depth <= pace.depth <= MAX_DEPTH
    assert pace.depth == near.depth or pace.depth * pace.request_bytes * disks <= IN_FLIGHT_BYTES


def test_what_is_read_to_measure_lies_apart_and_in_what_will_be_read() -> None:
    block = 65536
    plan = CopyPlan(1 << 30, (Segment(0, 4, True), Segment(100, 10, False), Segment(200, 50, True), Segment(1000, 290, False)))
    found = spots(plan, 6)
    assert found == [block * first for first in (1015, 1065, 1115, 1165, 1215, 1265)]
    assert spots(plan, 30)[:2] == [block * 105, block * 1005]
    assert spots(CopyPlan(block, (Segment(0, 1, False),)), 3) == [0, 0, 0]
    assert spots(CopyPlan(block, (Segment(0, 1, True),)), 3) == []


@settings(max_examples=200, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 9), st.integers(1, 99), st.booleans()), min_size=1, max_size=20), st.integers(1, 9))
def test_spots_are_always_in_what_will_be_read(pieces: "list[tuple[int, int, bool]]", count: int) -> None:
    segments, first = [], 0
    for gap, blocks, zero in pieces:
        segments.append(Segment(first + gap, blocks, zero))
        first += gap + blocks
    data = {number for one in segments if not one.zero for number in range(one.first, one.first + one.blocks)}
    found = spots(CopyPlan(first * 65536, tuple(segments)), count)
    assert len(found) == (count if data else 0) and found == sorted(found)
    assert {offset // 65536 for offset in found} <= data and all(offset % 65536 == 0 for offset in found)
