# Copyright: (c) 2026, Sendense contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a family of faults is, and what its run says: hits, not attempts, and every finding of the oracle."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass, field
from pathlib import Path
from typing import ClassVar, Dict, List

#: By oracle: the total that a finding counts in. What is in none of them (O5: the next backup) is a problem all the same.
TOTAL_OF: Dict[str, str] = {
    "O1": "wrong_ok_points",
    "O2": "leaks",
    "O3": "leaks",
    "O4": "wrong_ok_points",
    "O6": "leaks",
}
TOTALS = ("wrong_ok_points", "undetected", "leaks")


@dataclass
class Outcome:
    """``attempted`` faults were prepared, ``hit`` of them happened; the totals and ``problems`` have to be zero and empty.

    ``undetected`` counts faults that the product had to notice and did not. ``problems`` are lines for people: what the
    oracle found and what else was not as promised. ``seconds`` is wall time.
    """

    attempted: int = 0
    hit: int = 0
    wrong_ok_points: int = 0
    undetected: int = 0
    leaks: int = 0
    problems: List[str] = field(default_factory=list)
    seconds: float = 0.0

    def judge(self, findings: List[str]) -> None:
        """Count findings of the oracle (lines that begin with O1 to O6) and keep them as problems."""
        for finding in findings:
            total = TOTAL_OF.get(finding[:2])
            if total:
                setattr(self, total, getattr(self, total) + 1)
        self.problems += findings

    def missed(self, problem: str) -> None:
        """A fault happened and the product did not notice it."""
        self.undetected += 1
        self.problems.append(problem)

    def add(self, other: "Outcome") -> None:
        """Count another outcome in this one, time included."""
        for name in ("attempted", "hit", "seconds", *TOTALS):
            setattr(self, name, getattr(self, name) + getattr(other, name))
        self.problems += other.problems

    def faults(self, required: int) -> List[str]:
        """Why this is not good enough, as lines; empty if it is."""
        found = [f"{getattr(self, name)} {name.replace('_', ' ')}" for name in TOTALS if getattr(self, name)]
        if self.hit < required:
            found.append(f"only {self.hit} of {required} faults hit")
        return found + ([f"{len(self.problems)} problems"] if self.problems else [])


class Family(ABC):
    """One kind of fault. ``FULL`` and ``SHORT`` are how many hits the campaign and the test command need."""

    NAME: ClassVar[str]
    FULL: ClassVar[int]
    SHORT: ClassVar[int]

    @abstractmethod
    def run(self, base: Path, seed: int, count: int) -> Outcome:
        """Make ``count`` faults happen; everything random follows from ``seed``.

        ``base`` is a directory for libvirt hosts with a path short enough for sockets. Whatever is started is ended before
        this returns. An AssertionError means that the family itself could not work; a product that fails is a problem.
        """
