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
    return cli.run_plan(
        argv,
        "verifier",
        "Compare NBD exports of a backup with its block hashes.",
        "disks (key, uri, hashes, mode)",
        _verify,
    )


def _verify(plan: str, status: str, cancel: str, stop: Stop) -> Dict[str, Any]:
    jobs, options = read_verify_plan(plan)
    cli.cancel_on_signals(stop)
    return verify(jobs, options, status, cancel, stop).document
