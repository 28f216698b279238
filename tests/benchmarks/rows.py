# Copyright: (c) 2026, Sendense contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Arithmetic of the report: rows of one run, ratios within a round, medians, and the worse of two places.

A row counts only if what it wrote was compared with the source; see :meth:`Rows.prove`.
"""

from __future__ import annotations

import statistics
from dataclasses import asdict, dataclass
from typing import Any, Callable, Dict, Iterable, List, Set, Tuple


class BenchmarkError(Exception):
    """A benchmark cannot be measured or must not be believed; the text says why."""


@dataclass(frozen=True)
class Row:
    """One run of one contender. ``wall_s`` and CPU in seconds; ``cpu`` by process; ``round`` pairs the contenders."""

    place: str
    name: str
    round: int
    wall_s: float
    cpu: Dict[str, float]

    @property
    def cpu_s(self) -> float:
        """CPU seconds of all processes."""
        return sum(self.cpu.values())


class Rows:
    """The rows of a run. ``unproven`` names write nothing that could be compared (receive only)."""

    def __init__(self, unproven: Iterable[str] = ()) -> None:
        self._rows: List[Row] = []
        self._proven: Set[Tuple[str, str]] = set()
        self._unproven = set(unproven)

    def add(self, row: Row) -> Row:
        """Take a row down."""
        self._rows.append(row)
        return row

    def prove(self, place: str, name: str, identical: bool) -> None:
        """What this contender wrote was compared with the source. BenchmarkError if it differs: then none of its rows counts."""
        if not identical:
            raise BenchmarkError(f"{name} ({place}) did not store what the source holds: its times mean nothing")
        self._proven.add((place, name))

    def of(self, place: str, name: str) -> List[Row]:
        """The rows of a contender, by round. BenchmarkError if there are none, or if they were never compared."""
        found = sorted((row for row in self._rows if (row.place, row.name) == (place, name)), key=lambda row: row.round)
        if not found:
            raise BenchmarkError(f"{name} ({place}) was not measured")
        if name not in self._unproven and (place, name) not in self._proven:
            raise BenchmarkError(f"what {name} ({place}) wrote was never compared with the source")
        return found

    def places(self) -> List[str]:
        """All places, in the order of their first row."""
        return list(dict.fromkeys(row.place for row in self._rows))

    def median(self, place: str, name: str, value: Callable[[Row], float]) -> float:
        """The median of a value of a contender at one place."""
        return statistics.median(value(row) for row in self.of(place, name))

    def speedup(self, place: str, name: str, than: str) -> float:
        """How many times as fast ``name`` is as ``than``: the median over the rounds, each with its own pair."""
        ours = {row.round: row.wall_s for row in self.of(place, name)}
        theirs = {row.round: row.wall_s for row in self.of(place, than)}
        rounds = sorted(set(ours) & set(theirs))
        if not rounds:
            raise BenchmarkError(f"{name} and {than} ({place}) have no round in common")
        return statistics.median(theirs[number] / ours[number] for number in rounds)

    def worst_speedup(self, name: str, than: str) -> float:
        """The speedup at the place where it is least."""
        return min(self.speedup(place, name, than) for place in self.places())

    def as_data(self) -> List[Dict[str, Any]]:
        """Plain data for the report."""
        return [
            {**asdict(row), "wall_s": round(row.wall_s, 4), "cpu": {name: round(value, 4) for name, value in row.cpu.items()}}
            for row in self._rows
        ]
