# Copyright: (c) 2026, Sendense contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""CPU seconds of a command and of everything that it started, processes that put themselves into the background included.

A small process of its own becomes the subreaper of the command: whatever the command leaves behind becomes its child, is
waited for, and is counted. So servers that ran before (libvirtd, qemu) are not.
"""

from __future__ import annotations

import ctypes
import json
import os
import subprocess
import sys
import time
from dataclasses import dataclass
from typing import Dict, List, Optional

PR_SET_CHILD_SUBREAPER = 36


@dataclass(frozen=True)
class Cost:
    """``wall_s`` until the command ended; ``cpu_s`` of all processes; ``detached_cpu_s``: the part of those left running."""

    returncode: int
    wall_s: float
    cpu_s: float
    detached_cpu_s: float


def measure(argv: List[str], *, cwd: str, env: Optional[Dict[str, str]] = None, log: str = os.devnull) -> Cost:
    """Run a command to the end of its last descendant. Its output goes to ``log``."""
    reading, writing = os.pipe()
    try:
        with open(log, "wb") as output:
            process = subprocess.Popen(
                [sys.executable, "-I", __file__, str(writing), *argv],
                cwd=cwd,
                env=env,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                pass_fds=(writing,),
            )
    finally:
        os.close(writing)
    with os.fdopen(reading, encoding="ascii") as answer:
        text = answer.read()
    process.wait()
    return Cost(**json.loads(text))


def main(argv: List[str]) -> int:
    """``DESCRIPTOR COMMAND...``: run the command, write its cost as JSON to the descriptor."""
    answer = int(argv[0])
    os.set_inheritable(answer, False)
    if ctypes.CDLL(None, use_errno=True).prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0) != 0:
        raise OSError(ctypes.get_errno(), "prctl(PR_SET_CHILD_SUBREAPER) failed")
    began = time.monotonic()
    command = os.posix_spawnp(argv[1], argv[1:], os.environ)
    cost = {"returncode": -1, "wall_s": 0.0, "cpu_s": 0.0, "detached_cpu_s": 0.0}
    while True:
        try:
            pid, status, usage = os.wait4(-1, 0)
        except ChildProcessError:
            break
        used = usage.ru_utime + usage.ru_stime
        cost["cpu_s"] += used
        if pid == command:
            cost.update(returncode=os.waitstatus_to_exitcode(status), wall_s=time.monotonic() - began)
        else:
            cost["detached_cpu_s"] += used
    with os.fdopen(answer, "w", encoding="ascii") as stream:
        json.dump(cost, stream)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
