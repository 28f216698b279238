# Copyright: (c) 2026, Sendense contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Processes of the lab by identity: a pid alone may have been given to somebody else."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path
from typing import Callable, Dict, List, Optional


def start_ticks(pid: int) -> str:
    """The kernel's start time of a process in clock ticks since boot; empty if it is gone or a zombie."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
    except (FileNotFoundError, ProcessLookupError):
        return ""
    return "" if fields[0] == "Z" else fields[19]


def alive(pid: int, started: str) -> bool:
    """Whether the process that had this pid and start time still runs."""
    return bool(started) and start_ticks(pid) == started


def command_line(pid: int) -> List[str]:
    """The arguments of a process; empty if it is gone."""
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes().decode("utf-8", "replace").split("\0")[:-1]
    except (FileNotFoundError, ProcessLookupError):
        return []


def wait_gone(gone: Callable[[], bool], timeout_s: float) -> bool:
    """Poll until ``gone`` is true; False after the timeout."""
    deadline = time.monotonic() + timeout_s
    while not gone():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.02)
    return True


def kill_all(listing: Callable[[], Dict[int, str]], spare: Optional[int] = None, timeout_s: float = 10.0) -> None:
    """SIGKILL whatever ``listing`` names until it names nothing but ``spare``, which ends by itself."""
    deadline = time.monotonic() + timeout_s
    while True:
        left = listing()
        if not left or time.monotonic() > deadline:
            return
        late = time.monotonic() > deadline - timeout_s + 3.0
        for pid in left:
            if pid != spare or late:
                _kill(pid)
        time.sleep(0.02)


def _kill(pid: int) -> None:
    try:
        os.kill(pid, signal.SIGKILL)
    except ProcessLookupError:
        return
