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
    return cli.run(_merge, argv)


def _merge(argv: Sequence[str]) -> Dict[str, Any]:
    parser = cli.StrictParser("merger", "Move the data of layers of backups down into the lowest one.")
    parser.add_argument("--plan", required=True, help="JSON file: disks (key, action, top, base, size_bytes) and options")
    parser.add_argument("--status", default="", help="file to report progress in")
    parser.add_argument("--cancel", default="", help="file whose appearance cancels")
    arguments = parser.parse_args(list(argv))
    jobs, options = read_merge_plan(arguments.plan)
    stop = Stop()
    cli.cancel_on_signals(stop)
    return merge(jobs, options, arguments.status, arguments.cancel, stop).document
