# Copyright: (c) 2026, Sendense contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The power cut of the campaign keeps what was flushed, and only that for certain."""

from __future__ import annotations

import random
from pathlib import Path
from typing import List

from tests.faults.campaign.recording import PAGE, Entry, Replay
from tests.faults.careless import Careless


def _write(page: int, value: int, durable: bool = False) -> Entry:
    return Entry(page * PAGE, bytes([value]) * PAGE, flush=False, durable=durable)


FLUSH = Entry(0, b"", flush=True, durable=False)


def _pages(disk: bytearray) -> List[int]:
    return [disk[at] for at in range(0, len(disk), PAGE)]


def test_what_was_flushed_stays_and_the_rest_may_go() -> None:
    entries = [_write(0, 1), FLUSH, _write(1, 2), _write(2, 3, durable=True), _write(0, 4)]
    replay, seen = Replay(bytes(4 * PAGE), entries), set()
    for seed in range(60):
        pages = _pages(replay.state(5, random.Random(seed)))
        assert pages[0] in (1, 4)
        assert pages[2:] == [3, 0]
        seen.add((pages[0], pages[1]))
    assert seen == {(1, 0), (1, 2), (4, 0), (4, 2)}


def test_what_comes_after_the_cut_never_happened() -> None:
    entries = [_write(0, 1), FLUSH, _write(0, 2), FLUSH]
    replay = Replay(bytes(PAGE), entries)
    assert _pages(replay.state(0, random.Random(1))) == [0]
    assert {_pages(replay.state(3, random.Random(seed)))[0] for seed in range(40)} == {1, 2}
    assert _pages(replay.state(4, random.Random(1))) == [2]


def test_a_commit_that_is_not_flushed_is_found(tmp_path: Path) -> None:
    """Planted: a repository that does not make its directories durable loses points that it has acknowledged."""
    outcome = Careless().run(tmp_path, seed=3, count=2)
    assert outcome.hit == 2
    assert any("was committed before the cut and is gone" in problem for problem in outcome.problems), outcome
