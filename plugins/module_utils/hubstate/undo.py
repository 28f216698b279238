# Copyright: (c) 2026, Sendense contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Run the undo commands of a job, newest first, each for at most a minute.

Written as a generator that yields how many seconds it wants to wait, so that the keeper can go on serving requests while
``cleanup`` simply sleeps.
"""

from __future__ import annotations

import os
import subprocess
import time
from dataclasses import dataclass, field
from typing import Any, Dict, Generator, List, Optional, Tuple

from ..steps import reached
from .files import read_tail
from .jobs import JobDir
from .processes import kill_group, spawn

UNDO_SECONDS = 60.0
KILL_SECONDS = 5.0
#: How a command says that what it undoes cannot be reached now.
UNREACHABLE = 3
#: Seconds between two tries of such a command.
PAUSE_SECONDS = 2.0


@dataclass
class UndoReport:
    """``undone``: names; ``failed``: ``{"name", "error"}`` of those that stay persisted and are tried again by cleanup."""

    undone: List[str] = field(default_factory=list)
    failed: List[Dict[str, str]] = field(default_factory=list)
    unreachable: bool = False
    """Whether one failed because what it undoes was out of reach, so that another try may do."""


def run_undos(job: JobDir, python: str = "", timeout_s: float = UNDO_SECONDS, again_s: float = 0.0) -> Generator[float, None, UndoReport]:
    """Run all undo commands of the job in reverse order; one that fails does not stop the others.

    What worked is forgotten at once, so that a crash repeats as little as possible. ``python`` stands in for a program
    that is no longer there (an interpreter that was upgraded away). Output goes to ``undo.log`` in the job directory.
    For ``again_s`` seconds what was out of reach is tried again.
    """
    deadline = time.monotonic() + again_s
    report = yield from _round(job, python, timeout_s)
    while report.unreachable and time.monotonic() < deadline:
        yield PAUSE_SECONDS
        again = yield from _round(job, python, timeout_s)
        report = UndoReport(report.undone + again.undone, again.failed, again.unreachable)
    return report


def _round(job: JobDir, python: str, timeout_s: float) -> Generator[float, None, UndoReport]:
    report = UndoReport()
    left = job.undos()
    for undo in reversed(list(left)):
        argv = list(undo["argv"])
        if python and os.path.isabs(argv[0]) and not os.path.exists(argv[0]):
            argv[0] = python
        code, error = yield from _run(job, undo["name"], argv, timeout_s)
        if error:
            report.failed.append({"name": undo["name"], "error": error})
            report.unreachable = report.unreachable or code == UNREACHABLE
            continue
        report.undone.append(undo["name"])
        left.remove(undo)
        job.save_undos(left)
        reached(f"undo:{undo['name']}")
    return report


def _run(job: JobDir, name: str, argv: List[str], timeout_s: float) -> Generator[float, None, Tuple[Optional[int], str]]:
    """Run one command: its exit code (None if it has none), and the empty string if it worked, else why not."""
    log_path = os.path.join(job.path, "undo.log")
    descriptor = os.open(log_path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
    with os.fdopen(descriptor, "ab") as log:
        log.write(f"--- {time.strftime('%Y-%m-%dT%H:%M:%SZ', time.gmtime())} {name}\n".encode())
        log.flush()
        try:
            process = spawn(argv, stdout=log, stderr=log)
        except OSError as error:
            return None, f"cannot start {argv[0]}: {error.strerror}"
        code = yield from _wait(process, timeout_s)
    if code == 0:
        return code, ""
    reason = f"exit code {code}" if code is not None else f"no end within {timeout_s:g} s"
    return code, f"{reason}: {read_tail(log_path, 1000)}"


def _wait(process: "subprocess.Popen[bytes]", timeout_s: float) -> Generator[float, None, Any]:
    deadline = time.monotonic() + timeout_s
    while process.poll() is None:
        if time.monotonic() >= deadline:
            kill_group(process.pid)
            try:
                process.wait(KILL_SECONDS)
            except subprocess.TimeoutExpired:
                pass  # stuck in the kernel; the signal stays pending
            return None
        yield 0.02
    return process.returncode
