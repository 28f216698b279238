# Copyright: (c) 2026, Sendense contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Run a command and fail if any process that it started, daemons included, outlives it.

Usage: contained.py COMMAND [ARGUMENT...]. Exit status: the command's own, or 1 if it succeeded and left processes.
Orphans become children of this process (Linux child subreaper), so that nothing can hide by daemonising.
"""

from __future__ import annotations

import ctypes
import os
import signal
import subprocess
import sys
import time
from typing import Dict, List

PR_SET_CHILD_SUBREAPER = 36
#: Seconds that orphans get to end on their own: a daemon that was asked to stop may need a moment.
GRACE_S = 3.0


def children() -> Dict[int, str]:
    """Living direct children of this process: pid to command line."""
    with open(f"/proc/self/task/{os.getpid()}/children", encoding="ascii") as handle:
        pids = [int(pid) for pid in handle.read().split()]
    found = {}
    for pid in pids:
        try:
            with open(f"/proc/{pid}/cmdline", "rb") as handle:
                words = handle.read().decode("utf-8", "replace").split("\0")
        except OSError:
            continue
        if any(words):
            found[pid] = " ".join(words).strip()
    return found


def reap_until(pid: int) -> int:
    """Reap whatever ends until ``pid`` does; returns its exit status as a shell would give it."""
    while True:
        ended, status = os.waitpid(-1, 0)
        if ended == pid:
            code = os.waitstatus_to_exitcode(status)
            return code if code >= 0 else 128 - code


def reap_ended() -> None:
    """Reap children that have ended, without waiting."""
    try:
        while os.waitpid(-1, os.WNOHANG)[0]:
            pass
    except ChildProcessError:
        pass


def leftovers() -> Dict[int, str]:
    """What still lives after the grace time."""
    deadline = time.monotonic() + GRACE_S
    while True:
        reap_ended()
        alive = children()
        if not alive or time.monotonic() > deadline:
            return alive
        time.sleep(0.05)


def kill_tree() -> None:
    """End all orphans; killing one hands its children to this process, so repeat."""
    for _ in range(100):
        reap_ended()
        alive = children()
        if not alive:
            return
        for pid in alive:
            os.kill(pid, signal.SIGKILL)
        time.sleep(0.05)


def main(argv: List[str]) -> int:
    if not argv:
        print(__doc__, file=sys.stderr)
        return 2
    if ctypes.CDLL(None, use_errno=True).prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0) != 0:
        raise OSError(ctypes.get_errno(), "prctl(PR_SET_CHILD_SUBREAPER) failed")
    started: List[int] = []
    requested: List[int] = []

    def pass_on(number: int, frame: object) -> None:
        requested.append(number)
        for pid in started:
            os.kill(pid, number)

    signal.signal(signal.SIGTERM, pass_on)
    process = subprocess.Popen(argv)
    started.append(process.pid)
    for number in requested:  # that came before there was a process to pass it on to
        os.kill(process.pid, number)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    status = reap_until(process.pid)
    started.clear()
    left = leftovers()
    for pid, command in left.items():
        print(f"contained: process {pid} was left running: {command}", file=sys.stderr)
    kill_tree()
    return status or (1 if left else 0)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
