# Copyright: (c) 2026, Sendense contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A pytest plugin that says how long each test layer took; ``scripts/test.sh`` loads it."""

from __future__ import annotations

from collections import defaultdict
from typing import Any, Dict, List

_seconds: Dict[str, float] = defaultdict(float)
_outcomes: Dict[str, Dict[str, int]] = defaultdict(lambda: defaultdict(int))


def pytest_runtest_logreport(report: Any) -> None:
    layer = report.nodeid.split("/")[1] if report.nodeid.startswith("tests/") else report.nodeid
    _seconds[layer] += report.duration
    if report.when == "call" or report.outcome != "passed":
        _outcomes[layer][report.outcome] += 1


def pytest_terminal_summary(terminalreporter: Any) -> None:
    terminalreporter.section("layers")
    for layer, seconds in _seconds.items():
        counts: List[str] = [f"{count} {outcome}" for outcome, count in sorted(_outcomes[layer].items())]
        terminalreporter.write_line(f"{layer:<12} {seconds:8.1f} s  {', '.join(counts)}")
