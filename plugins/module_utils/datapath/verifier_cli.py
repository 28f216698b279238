# Copyright: (c) 2026, Sendense contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The verifier as a command: ``verifier --plan plan.json --status FILE --cancel FILE``.

Exit codes: 0 all blocks are as recorded, 1 they are not or could not be read, 2 bad input, 3 cancelled.
"""

from __future__ import annotations

from typing import Any, Dict, Sequence

from . import cli
from .loop import Stop
from .verifier import read_verify_plan, verify


def main(argv: Sequence[str]) -> int:
    """Verify the disks that the plan names; returns the exit code."""
    return cli.run(_verify, argv)


def _verify(argv: Sequence[str]) -> Dict[str, Any]:
    parser = cli.StrictParser("verifier", "Compare NBD exports of a backup with its block hashes.")
    parser.add_argument("--plan", required=True, help="JSON file: disks (key, uri, hashes, mode) and options")
    parser.add_argument("--status", default="", help="file to report progress in")
    parser.add_argument("--cancel", default="", help="file whose appearance cancels")
    arguments = parser.parse_args(list(argv))
    jobs, options = read_verify_plan(arguments.plan)
    stop = Stop()
    cli.cancel_on_signals(stop)
    return verify(jobs, options, arguments.status, arguments.cancel, stop).document
