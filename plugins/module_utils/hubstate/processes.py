# Copyright: (c) 2026, Sendense contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Processes that must not outlive the process that started them, and processes that are named across crashes."""

from __future__ import annotations

import ctypes
import os
import signal
import subprocess
from typing import Any, Callable, Dict, List, Optional

_PR_SET_PDEATHSIG = 1
# Loaded before any fork: the child may only make simple calls between fork and exec.
_LIBC = ctypes.CDLL(None, use_errno=True)


def spawn(argv: List[str], *, stdout: Any, stderr: Any, env: Optional[Dict[str, str]] = None, cwd: str = "/") -> "subprocess.Popen[bytes]":
    """Start a program in a session of its own that the kernel kills when this process dies.

    Call it from the main thread: the kernel watches the thread that forked. ``env`` is added to the own environment.
    OSError if the program cannot be started.
    """
    return subprocess.Popen(
        argv,
        stdin=subprocess.DEVNULL,
        stdout=stdout,
        stderr=stderr,
        env=dict(os.environ, **(env or {})),
        cwd=cwd,
        close_fds=True,
        start_new_session=True,
        preexec_fn=die_with(os.getpid()),
    )


def die_with(parent: int) -> Callable[[], None]:
    """What a fork of ``parent`` calls first, so that the kernel kills it when the thread that forked it dies."""

    def prepare() -> None:
        signal.pthread_sigmask(signal.SIG_SETMASK, [])
        failed = _LIBC.prctl(_PR_SET_PDEATHSIG, int(signal.SIGKILL), 0, 0, 0)
        # The parent may have died before prctl: then no signal will ever come.
        if failed or os.getppid() != parent:
            os._exit(127)

    return prepare


def start_time(pid: int) -> Optional[int]:
    """When the process started, in clock ticks since boot; None if there is no such process or it is only a zombie.

    Together with the pid it names a process for good: pids are used again, pairs are not.
    """
    try:
        with open(f"/proc/{pid}/stat", "rb") as stream:
            fields = stream.read().rpartition(b")")[2].split()
    except (FileNotFoundError, ProcessLookupError):
        return None
    return None if fields[0] in (b"Z", b"X") else int(fields[19])


def is_alive(pid: Optional[int], started: Optional[int]) -> bool:
    """Whether exactly this process still runs."""
    return pid is not None and started is not None and start_time(pid) == started


def kill_group(pid: int, signum: int = signal.SIGKILL) -> None:
    """Signal a child of :func:`spawn` and what it started; nothing happens if they are gone."""
    try:
        os.killpg(pid, signum)
    except ProcessLookupError:
        return


def send_signal(pid: int, signum: int) -> None:
    """Signal one process; nothing happens if it is gone."""
    try:
        os.kill(pid, signum)
    except ProcessLookupError:
        return
