# Copyright: (c) 2026, Sendense contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The merger as a command: ``merger --plan plan.json --status FILE --cancel FILE``.

Exit codes: 0 all data was moved, 1 it was not, 2 bad input (nothing was touched), 3 cancelled.
"""

from __future__ import annotations

from typing import Any, Dict, Sequence

from . import cli
from .loop import Stop
from .merger import merge, read_merge_plan


def main(argv: Sequence[str]) -> int:
    """Move the data of the disks that the plan names; returns the exit code."""
    return cli.run_plan(
        argv,
        "merger",
        "Move the data of layers of backups down into the lowest one.",
        "disks (key, action, top, base, size_bytes)",
        _merge,
    )


def _merge(plan: str, status: str, cancel: str, stop: Stop) -> Dict[str, Any]:
    jobs, options = read_merge_plan(plan)
    cli.cancel_on_signals(stop)
    return merge(jobs, options, status, cancel, stop).document
