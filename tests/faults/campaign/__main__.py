# Copyright: (c) 2026, Sendense contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""``python -m tests.faults.campaign``: run the families of faults and write the report. Needs root.

Exit status: 0 every family hit what it must and nothing was found, 1 otherwise, 2 wrong usage.
"""

from __future__ import annotations

import argparse
import random
import sys
import time
import traceback
from pathlib import Path
from typing import List, Sequence

from tests.lab.fixtures import lab_directory

from ._base import Family, Outcome
from .registry import FAMILIES, family
from .report import REPORT, Report


def campaign(families: Sequence[Family], report: Report, base: Path, seed: int, short: bool = False, count: int = 0) -> bool:
    """Run families one after another, print a line for each; whether all of them are as they must be.

    ``count`` stands in for the number of faults of each family.
    """
    good = True
    print(f"seed {seed}\n{'family':<14}{'hit':>6}{'of':>6}{'needed':>8}{'seconds':>9}{'s/hit':>8}  findings", flush=True)
    for one in families:
        required = count or (one.SHORT if short else one.FULL)
        outcome = run_family(one, base, seed, required)
        report.put(one.NAME, outcome, seed, required)
        faults = outcome.faults(required)
        good = good and not faults
        print(_line(one.NAME, outcome, required, faults), flush=True)
        for problem in outcome.problems:
            print(f"    {problem}", flush=True)
    return good


def run_family(one: Family, base: Path, seed: int, count: int) -> Outcome:
    """One family, timed. One that breaks down is a problem of its own and does not stop the others."""
    began = time.monotonic()
    try:
        outcome = one.run(base, seed, count)
    except Exception as error:  # noqa: BLE001 the loop over the families goes on
        outcome = Outcome(problems=[f"the family broke down: {error!r}", traceback.format_exc()])
    outcome.seconds = round(time.monotonic() - began, 1)
    return outcome


def _line(name: str, outcome: Outcome, required: int, faults: List[str]) -> str:
    each = outcome.seconds / outcome.hit if outcome.hit else 0.0
    counts = f"{outcome.hit:>6}{outcome.attempted:>6}{required:>8}{outcome.seconds:>9.1f}{each:>8.2f}"
    return f"{name:<14}{counts}  {', '.join(faults) or 'none'}"


def main(argv: List[str]) -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.faults.campaign", description=__doc__)
    names = [one.NAME for one in FAMILIES]
    parser.add_argument("--family", action="append", choices=names, help="only this one (repeatable); the report keeps the others")
    parser.add_argument("--seed", type=int, default=None, help="what everything random follows from; printed if it is not given")
    parser.add_argument("--short", action="store_true", help="the few faults of each family that the tests run")
    parser.add_argument("--count", type=int, default=0, help="this many faults of each family")
    parser.add_argument("--report", type=Path, default=REPORT, help="where the report is written (build/faults/report.json)")
    arguments = parser.parse_args(argv)
    seed = arguments.seed if arguments.seed is not None else random.SystemRandom().randrange(1 << 32)
    report = Report.load(arguments.report) if arguments.family else Report(arguments.report)
    wanted = [family(name) for name in arguments.family or names]
    with lab_directory() as base:
        good = campaign(wanted, report, base, seed, arguments.short, arguments.count)
    totals = report.document()
    print(f"{totals['hit']} faults in {totals['seconds']:.0f} s: {totals['wrong_ok_points']} wrong ok points, ", end="")
    print(f"{totals['undetected']} undetected, {totals['leaks']} leaks; report: {arguments.report}")
    return 0 if good and totals["ok"] else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
