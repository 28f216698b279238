# Copyright: (c) 2026, Sendense contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The agent's commands. Each is imported only when it is called: a keeper needs neither libnbd nor libvirt."""

from __future__ import annotations

import importlib
import json
import sys
import traceback
from typing import Dict, List

from ..errors import SendenseError

#: Command: module below module_utils with ``main(argv) -> int``.
COMMANDS: Dict[str, str] = {
    "checker": "repositories.checker",
    "keeper": "datapath.keeper",
    "merger": "datapath.merger_cli",
    "mover": "datapath.mover_cli",
    "release": "agent.release",
    "verifier": "datapath.verifier_cli",
}
USAGE = f"usage: agent {{{','.join(sorted(COMMANDS))}}} ...\n"


def main(argv: List[str]) -> int:
    """Run one command. A typed error is one line of JSON on stderr and exit code 1; a bad command line is 2."""
    if not argv or argv[0] not in COMMANDS:
        asked_for_help = bool(argv) and argv[0] in ("-h", "--help")
        (sys.stdout if asked_for_help else sys.stderr).write(USAGE)
        return 0 if asked_for_help else 2
    root = __name__.rsplit(".", 2)[0]
    try:
        return int(importlib.import_module(f"{root}.{COMMANDS[argv[0]]}").main(argv[1:]))
    except SendenseError as error:
        sys.stderr.write(json.dumps(error.as_result(), sort_keys=True) + "\n")
        return 1
    except Exception as error:  # noqa: BLE001 - main
        traceback.print_exc()
        wrapped = SendenseError(f"agent {argv[0]} failed: {error!r}")
        sys.stderr.write(json.dumps(wrapped.as_result(), sort_keys=True) + "\n")
        return 1
