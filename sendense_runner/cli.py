# Copyright: (c) 2026, Sendense contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The ``sendense`` command."""

from __future__ import annotations

import argparse
import json
import sys
from enum import IntEnum
from typing import List, Optional

from . import __version__
from .collection import hubstate
from .doctor import FAILED, Check, Wanted, examine


class Exit(IntEnum):
    """Exit statuses; docs/reference/exit-codes.md explains them."""

    OK = 0
    INTERNAL = 1
    USAGE = 2
    CHECK_FAILED = 3


def main(argv: Optional[List[str]] = None) -> int:
    """Run one command; returns its exit status."""
    arguments = _parser().parse_args(argv)
    checks = examine(
        Wanted(
            state_dir=arguments.state_dir or hubstate("statedir").DEFAULT_STATE_DIR,
            python=arguments.python,
            repository=arguments.repository,
            libvirt_uri=arguments.libvirt_uri,
        )
    )
    ok = all(check.status != FAILED for check in checks)
    if arguments.output == "json":
        rows = [check.__dict__ for check in checks]
        sys.stdout.write(json.dumps({"schema": 1, "ok": ok, "checks": rows}, indent=2) + "\n")
    else:
        sys.stdout.write(_table(checks))
    return Exit.OK if ok else Exit.CHECK_FAILED


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="sendense", description="Backs up virtual machines and restores them.")
    parser.add_argument("--version", action="version", version=f"sendense {__version__}")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    doctor = commands.add_parser("doctor", help="examine this machine's set-up; changes nothing")
    doctor.add_argument("--state-dir", help="state directory of this place (default: the product's own)")
    doctor.add_argument("--repository", metavar="PATH", help="also examine the repository in this directory")
    doctor.add_argument("--libvirt-uri", metavar="URI", help="also connect to this libvirt host")
    doctor.add_argument("--python", default=sys.executable, help="interpreter that the modules will run with (default: this one)")
    doctor.add_argument("--output", choices=["table", "json"], default="table")
    return parser


def _table(checks: List[Check]) -> str:
    width = max(len(check.name) for check in checks)
    lines = []
    for check in checks:
        lines.append(f"{check.name:<{width}}  {check.status:<7}  {check.found}")
        if check.advice:
            lines.append(f"{'':<{width}}           {check.advice}")
    return "\n".join(lines) + "\n"
