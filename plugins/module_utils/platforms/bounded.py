# Copyright: (c) 2026, Sendense contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Calls into a platform that end in time, whatever the platform does.

A machine whose hypervisor process hangs blocks its callers for as long as it hangs, and a call into a C library cannot be
interrupted. So it is made in a fork, which is killed when its time is up. The fork opens the connection, too: none is shared.
"""

from __future__ import annotations

import json
import os
import select
import signal
import time
import traceback
from typing import Any, Callable, NoReturn, Optional

from ..errors import PlatformUnreachableError, SendenseError, from_result
from ..hubstate.processes import die_with, kill_group, send_signal

#: Seconds to look at a machine and to open its snapshot, each; to end what is open there; to list all machines of a host.
OPENING_SECONDS, CLOSING_SECONDS, DISCOVERY_SECONDS = 120.0, 60.0, 60.0
#: Seconds between two calls of ``meanwhile``, and in which a killed fork must be gone.
PAUSE_SECONDS, KILL_SECONDS = 2.0, 5.0


def nothing() -> None:
    """What there is to do meanwhile, where nobody waits for a sign of life."""


def within(
    seconds: float, doing: str, work: Callable[[], Any], left: str = "Nothing was changed.", meanwhile: Callable[[], None] = nothing
) -> Any:
    """What ``work()`` returns, which must be plain data for JSON, or the typed error that it raises.

    After ``seconds``: PlatformUnreachableError (retryable) with ``limit_s`` in its details. ``doing`` begins its message (what, on
    which machine), ``left`` says what that means for the machine. ``meanwhile`` is called at once and every two seconds; an error of
    it ends the work. Call it from a process without other threads: the fork would inherit their locks.
    """
    reading, writing = os.pipe()
    prepare = die_with(os.getpid())
    pid = os.fork()
    if pid == 0:
        _work(work, prepare, writing)
    os.close(writing)
    try:
        text = _collect(reading, time.monotonic() + seconds, meanwhile)
    finally:
        os.close(reading)
        _end(pid)
    if text is None:
        raise PlatformUnreachableError(
            f"{doing} did not end within {seconds:g} s: the platform does not answer, or the machine's hypervisor process hangs. {left} "
            "See what hangs at the node, then run this again.",
            details={"limit_s": seconds},
        )
    return _result(text, doing)


def _work(work: Callable[[], Any], prepare: Callable[[], None], writing: int) -> NoReturn:
    code = 1
    try:
        os.setsid()  # so that programs it starts can be killed with it
        prepare()
        with os.fdopen(writing, "w", encoding="utf-8") as stream:
            stream.write(_answer(work))
        code = 0
    finally:
        os._exit(code)


def _answer(work: Callable[[], Any]) -> str:
    try:
        return json.dumps({"value": work()})
    except SendenseError as error:
        return json.dumps({"error": error.as_result()})
    except Exception as error:  # noqa: BLE001 - main of the fork: whoever waits for it must learn what happened
        unexpected = SendenseError(f"Unexpected {type(error).__name__}: {error}", details={"traceback": traceback.format_exc()})
        return json.dumps({"error": unexpected.as_result()})


def _collect(reading: int, deadline: float, meanwhile: Callable[[], None]) -> Optional[bytes]:
    """Everything until the fork has closed its end; None if that takes too long."""
    found = bytearray()
    beaten = 0.0
    while True:
        now = time.monotonic()
        if now >= deadline:
            return None
        if now - beaten >= PAUSE_SECONDS:
            meanwhile()
            beaten = now
        if select.select([reading], [], [], min(PAUSE_SECONDS, deadline - now))[0]:
            part = os.read(reading, 1 << 16)
            if not part:
                return bytes(found)
            found += part


def _end(pid: int) -> None:
    """The fork is gone or is killed; one that is stuck in the kernel is left behind, with the signal pending."""
    deadline = time.monotonic() + KILL_SECONDS
    kill_group(pid)
    send_signal(pid, signal.SIGKILL)  # it may not have got as far as to have a group
    while os.waitpid(pid, os.WNOHANG)[0] == 0 and time.monotonic() < deadline:
        time.sleep(0.005)


def _result(text: bytes, doing: str) -> Any:
    try:
        answer = json.loads(text)
    except ValueError as error:
        raise PlatformUnreachableError(
            f"{doing} failed: its process was killed. Run this again, and if nobody killed it, look for an out-of-memory kill in the "
            "kernel's log."
        ) from error
    if "error" in answer:
        raise from_result(answer["error"])
    return answer["value"]
