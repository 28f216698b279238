# Copyright: (c) 2026, Sendense contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What caps a mover: the lowest of job, node and window, and a fair part of what the node may use. With a clock of its own."""

from __future__ import annotations

import math
import os
import shutil
from contextlib import ExitStack
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, List

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ansible_collections.sendense.platform.plugins.module_utils.datapath.bandwidth import MIN_RATE, UNLIMITED
from ansible_collections.sendense.platform.plugins.module_utils.datapath.cap import Cap, parse_node_bandwidth
from ansible_collections.sendense.platform.plugins.module_utils.datapath.node_share import NodeShare, fair_share
from ansible_collections.sendense.platform.plugins.module_utils.errors import InvalidInputError

MIB = 1 << 20
NOON = datetime(2026, 11, 20, 12, tzinfo=UTC).timestamp()
#: Every day from one o'clock in the afternoon.
WINDOW = {"from": "13:00", "to": "14:00", "bytes_per_second": MIB}


class Clock:
    """Both clocks at once: that on the wall begins at noon."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now

    def wall(self) -> float:
        return NOON + self.now


class Mover:
    """A copy that asks for so much per second, and gets what its cap admits."""

    def __init__(self, clock: Clock, directory: Path, wants: float, job: int = 0, **node: Any) -> None:
        self.clock, self.wants, self.got = clock, wants, 0
        self.cap = Cap(job, parse_node_bandwidth(dict(node, directory=str(directory))), clock, clock.wall)
        self._position: Any = None
        self._begun = clock.now

    def begin_again(self) -> None:
        """Want from now on only."""
        self._begun, self.got = self.clock.now, 0

    def step(self) -> None:
        """Whatever it may read now, in requests of 16 KiB."""
        self.cap.refresh()
        bucket = self.cap.bucket
        assert bucket is not None
        while self.got < self.wants * (self.clock.now - self._begun):
            self._position = bucket.reserve(16384) if self._position is None else self._position
            if bucket.delay(self._position) > 0:
                return
            self.got, self._position = self.got + 16384, None


def run(clock: Clock, movers: List[Mover], seconds: float) -> List[float]:
    """Bytes per second of each mover meanwhile."""
    before = [mover.got for mover in movers]
    for _tick in range(int(seconds * 5)):
        clock.now += 0.2
        for mover in movers:
            mover.step()
    return [(mover.got - had) / seconds for mover, had in zip(movers, before, strict=True)]


def test_alone_a_mover_has_all_of_it(tmp_path: Path) -> None:
    clock = Clock()
    mover = Mover(clock, tmp_path / "b", UNLIMITED, bytes_per_second=8 * MIB)
    with mover.cap:
        assert run(clock, [mover], 10) == [pytest.approx(8 * MIB, rel=0.05)]
        assert mover.cap.refresh() == {"bytes_per_second": 8 * MIB, "by": "node", "binds": True}
    assert os.listdir(tmp_path / "b") == []


def test_two_share_and_the_rest_of_an_idle_one_is_not_lost(tmp_path: Path) -> None:
    clock = Clock()
    first, second = (Mover(clock, tmp_path, UNLIMITED, bytes_per_second=8 * MIB) for _one in range(2))
    with first.cap, second.cap:
        run(clock, [first, second], 3)
        assert run(clock, [first, second], 10) == [pytest.approx(4 * MIB, rel=0.05)] * 2
        second.wants = 0.0
        run(clock, [first, second], 3)
        busy, idle = run(clock, [first, second], 10)
        assert busy == pytest.approx(8 * MIB, rel=0.05) and idle == 0
        second.wants = UNLIMITED
        second.begin_again()
        returned = run(clock, [first, second], 4)
        assert sum(returned) < 8 * MIB * 1.15  # and nobody is faster than allowed while they agree
        assert run(clock, [first, second], 10) == [pytest.approx(4 * MIB, rel=0.05)] * 2


def test_who_joins_does_not_push_the_node_over_its_cap(tmp_path: Path) -> None:
    clock = Clock()
    first = Mover(clock, tmp_path, UNLIMITED, bytes_per_second=8 * MIB)
    with ExitStack() as stack:
        stack.enter_context(first.cap)
        run(clock, [first], 5)
        others = []
        for _one in range(3):
            others.append(Mover(clock, tmp_path, UNLIMITED, bytes_per_second=8 * MIB))
            stack.enter_context(others[-1].cap)
            assert sum(run(clock, [first, *others], 2)) < 8 * MIB * 1.1
        run(clock, [first, *others], 3)
        assert run(clock, [first, *others], 10) == [pytest.approx(2 * MIB, rel=0.05)] * 4


def test_what_the_cap_of_a_job_leaves_goes_to_the_others(tmp_path: Path) -> None:
    clock = Clock()
    capped = Mover(clock, tmp_path, UNLIMITED, job=MIB, bytes_per_second=8 * MIB)
    free = Mover(clock, tmp_path, UNLIMITED, bytes_per_second=8 * MIB)
    with capped.cap, free.cap:
        run(clock, [capped, free], 4)
        assert run(clock, [capped, free], 10) == [pytest.approx(MIB, rel=0.05), pytest.approx(7 * MIB, rel=0.05)]
        assert (capped.cap.refresh() or {})["by"] == "job"


def test_a_window_opens_and_closes_while_the_copy_runs(tmp_path: Path) -> None:
    clock = Clock()
    mover = Mover(clock, tmp_path, 16 * MIB, windows=[WINDOW])
    with mover.cap:
        assert run(clock, [mover], 10) == [pytest.approx(16 * MIB, rel=0.05)]
        assert mover.cap.refresh() is None  # nothing caps at noon
        clock.now = 3590.0
        mover.begin_again()
        run(clock, [mover], 12)
        assert run(clock, [mover], 10) == [pytest.approx(MIB, rel=0.05)]
        assert mover.cap.refresh() == {"bytes_per_second": MIB, "by": "window", "binds": True}
        clock.now = 7190.0
        mover.begin_again()
        run(clock, [mover], 12)
        assert run(clock, [mover], 10) == [pytest.approx(16 * MIB, rel=0.05)]


def test_the_cap_of_the_node_holds_in_a_window_that_allows_more(tmp_path: Path) -> None:
    clock = Clock()
    mover = Mover(clock, tmp_path, UNLIMITED, bytes_per_second=MIB // 2, windows=[dict(WINDOW, **{"from": "11:00"})])
    with mover.cap:
        run(clock, [mover], 2)
        assert mover.cap.refresh() == {"bytes_per_second": MIB // 2, "by": "node", "binds": True}


def test_without_any_cap_there_is_no_bucket() -> None:
    with Cap() as cap:
        assert cap.bucket is None and cap.refresh() is None
    assert parse_node_bandwidth({}) is None
    assert parse_node_bandwidth({"bytes_per_second": 0, "windows": [], "directory": "/x"}) is None


def test_the_dead_and_the_stopped_have_no_part(tmp_path: Path) -> None:
    """A file of a mover that was killed is removed by the next; one that says nothing for long uses nothing."""
    (tmp_path / "00.lease").touch()
    (tmp_path / "00.json").write_text('{"demand": null}')
    (tmp_path / "11.json").write_text("{}")
    one = NodeShare.open(str(tmp_path))
    two = NodeShare.open(str(tmp_path))
    try:
        assert not {"00.lease", "00.json", "11.json"} & set(os.listdir(tmp_path))
        assert one.others() == [UNLIMITED]  # it has not spoken yet
        two.publish(5.0)
        assert one.others() == [5.0] and two.others() == [UNLIMITED]
        spoken = next(tmp_path.glob("*.json"))
        os.utime(spoken, (1, 1))
        assert one.others() == [0.0]
        spoken.write_text("no json")
        assert one.others() == [UNLIMITED]
    finally:
        two.close()
        two.close()
        assert one.others() == []
        one.close()
    assert os.listdir(tmp_path) == []


def test_a_directory_that_vanishes_leaves_the_rate_as_it_was(tmp_path: Path) -> None:
    clock = Clock()
    mover = Mover(clock, tmp_path / "b", UNLIMITED, bytes_per_second=8 * MIB)
    with mover.cap:
        run(clock, [mover], 2)
        os.rename(tmp_path / "b", tmp_path / "gone")
        assert run(clock, [mover], 10) == [pytest.approx(8 * MIB, rel=0.05)]


@settings(max_examples=300, deadline=None)
@given(st.lists(st.floats(0, 1e9), min_size=1, max_size=20), st.floats(1e4, 1e9))
def test_fair_parts_never_exceed_the_whole_and_waste_nothing(demands: List[float], total: float) -> None:
    """Everybody takes the less of what it could use and of its part, as each computes it for itself."""
    parts = [min(own, fair_share(total, demands[:index] + demands[index + 1 :])) for index, own in enumerate(demands)]
    assert sum(parts) <= total * 1.000001
    assert sum(parts) >= min(total, sum(demands)) * 0.999999
    hungry = [part for part, own in zip(parts, demands, strict=True) if part < own * 0.999999]
    assert all(math.isclose(part, max(parts), rel_tol=1e-6) for part in hungry)


def test_a_part_is_at_least_an_equal_one() -> None:
    assert fair_share(100, []) == 100
    assert fair_share(100, [UNLIMITED] * 3) == 25
    assert fair_share(100, [10, UNLIMITED]) == 45
    assert fair_share(100, [0, 0, 0]) == 100


@pytest.mark.parametrize(
    "document",
    [
        [],
        {"bytes_per_second": MIB},
        {"bytes_per_second": MIB, "directory": ""},
        {"bytes_per_second": MIN_RATE - 1, "directory": "/x"},
        {"bytes_per_second": "1M", "directory": "/x"},
        {"rate": MIB, "directory": "/x"},
        {"windows": [{}], "directory": "/x"},
        {"windows": {"from": "1:00"}, "directory": "/x"},
    ],
)
def test_a_bad_bandwidth_is_refused(document: Any) -> None:
    with pytest.raises(InvalidInputError):
        parse_node_bandwidth(document)


@pytest.mark.parametrize("broken", ["never there", "gone meanwhile"])
def test_a_file_system_that_refuses_neither_ends_a_copy_nor_lifts_its_cap(tmp_path: Path, broken: str) -> None:
    clock = Clock()
    meeting = tmp_path / "b"
    if broken == "never there":
        meeting.write_text("no directory")
    mover = Mover(clock, meeting, UNLIMITED, bytes_per_second=8 * MIB, windows=[WINDOW])
    with mover.cap:
        if broken == "gone meanwhile":
            shutil.rmtree(meeting)
        run(clock, [mover], 2)
        assert run(clock, [mover], 10) == [pytest.approx(8 * MIB, rel=0.05)]
        clock.now = 3600.0
        mover.begin_again()
        run(clock, [mover], 2)
        assert run(clock, [mover], 10) == [pytest.approx(MIB, rel=0.05)]
        assert (mover.cap.refresh() or {})["by"] == "window"
