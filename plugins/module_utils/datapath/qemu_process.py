# Copyright: (c) 2026, Sendense contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""``qemu-img`` as a long-running child: its progress is passed on, it can be stopped, and it is given up if it stalls.

It dies with the process that started it. That it lives is told by what it reads and writes, for its own figures move
slowly on large disks.
"""

from __future__ import annotations

import errno
import os
import re
import select
import subprocess
import tempfile
import time
from typing import Any, Callable, List, Protocol, Sequence

from ..errors import (
    CopyFailedError,
    CopyStalledError,
    DependencyMissingError,
    JobCancelledError,
    LeaseHeldError,
    RepositoryFullError,
    RepositoryIoError,
    SendenseError,
)
from ..hubstate.processes import kill_group, spawn
from .loop import TICK_SECONDS, Stop

_PROGRESS = re.compile(rb"\(([0-9]+(?:\.[0-9]+)?)/100%\)")


class Patience(Protocol):
    """How long a child may do nothing, in seconds."""

    stall_seconds: float
    flush_seconds: float


def run_qemu_img(
    arguments: List[str], directory: str, report: Callable[[float], None], patience: Patience, stop: Stop, accepted: Sequence[int] = (0,)
) -> int:
    """Run ``qemu-img`` in ``directory`` to its end; its exit code, which is one of ``accepted``.

    ``report`` is called several times a second with the share that is done (0..1). The reason of ``stop`` (JobCancelledError
    for a cancel); CopyStalledError; RepositoryFullError; LeaseHeldError if another process has an image open;
    RepositoryIoError for whatever else qemu-img says; DependencyMissingError.
    """
    with tempfile.TemporaryFile() as words:
        try:
            child = spawn(["qemu-img", *arguments], stdout=subprocess.PIPE, stderr=words, cwd=directory)
        except FileNotFoundError:
            raise DependencyMissingError("qemu-img is not installed here. Install qemu-utils.") from None
        except OSError as error:
            raise RepositoryIoError(f"Cannot start qemu-img in {directory!r}: {error.strerror}. Run again.") from error
        try:
            _follow(child, arguments[0], report, patience, stop)
        finally:
            kill_group(child.pid)
            child.wait()
            if child.stdout is not None:
                child.stdout.close()
        if child.returncode in accepted:
            return int(child.returncode)
        words.seek(0)
        raise _failure(arguments[0], child.returncode, words.read().decode("utf-8", "replace").strip())


def _follow(child: "subprocess.Popen[bytes]", name: str, report: Callable[[float], None], patience: Patience, stop: Stop) -> None:
    """Until it has ended; the exit code is the caller's business."""
    share, seen, since = 0.0, -1, time.monotonic()
    while True:
        text = _read(child.stdout)
        found = _PROGRESS.findall(text or b"")
        share = min(1.0, float(found[-1]) / 100) if found else share
        if text == b"":
            child.wait()
            return
        report(share)
        if stop.is_set():
            raise stop.error or JobCancelledError("The merge was cancelled. Nothing is lost; prune again.")
        done = _io_bytes(child.pid)
        if done != seen or text:
            seen, since = done, time.monotonic()
        limit = patience.flush_seconds if share >= 1.0 else patience.stall_seconds
        if time.monotonic() - since > limit:
            raise CopyStalledError(
                f"qemu-img {name} has read and written nothing for {limit:g} s. Check the storage below the repository; nothing is lost.",
                details={"seconds": limit},
            )


def _read(stream: Any) -> Any:
    """What it has said since; empty when it has closed its output, None if it has said nothing."""
    ready, _writable, _errors = select.select([stream], [], [], TICK_SECONDS)
    return os.read(stream.fileno(), 65536) if ready else None


def _io_bytes(pid: int) -> int:
    try:
        with open(f"/proc/{pid}/io", encoding="ascii") as stream:
            return sum(int(line.split()[1]) for line in stream if line.startswith(("rchar", "wchar", "syscr", "syscw")))
    except (OSError, ValueError):
        return -1


def _failure(name: str, code: int, said: str) -> SendenseError:
    reason = said[-500:] or f"exit code {code}"
    details = {"stderr": reason, "exit_code": code}
    if os.strerror(errno.ENOSPC) in reason:
        return RepositoryFullError(f"qemu-img {name} failed: the storage is full. Free space, then run again.", details=details)
    if "lock" in reason and "Failed to get" in reason:
        return LeaseHeldError(f"qemu-img {name} failed: another process has the image open. Run again later: {reason}", details=details)
    if code < 0:
        return CopyFailedError(f"qemu-img {name} was killed by signal {-code}. Run again; nothing is lost.", details=details)
    return RepositoryIoError(f"qemu-img {name} failed: {reason}. Check the storage below the repository, then run again.", details=details)
