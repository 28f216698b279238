# Copyright: (c) 2026, Sendense contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Named places where a fault test may kill the process, so that "crash between any two steps" is a test, not a hope.

In production :func:`reached` does nothing. If the environment variable ``SENDENSE_STEP_HOOK`` names an existing file, a
line ``<step> <subject> <pid>`` is appended to it. If the file ``<hook>.kill`` beside it holds ``<step>`` or
``<step> <subject>`` as a line of its own, the process kills itself with SIGKILL; with ``<hook>.stop`` it stops itself with
SIGSTOP, so that the test can kill something else at just this step. The aid can do nothing else: whoever can set it
could as well signal the process.
"""

from __future__ import annotations

import os
import signal

HOOK_VARIABLE = "SENDENSE_STEP_HOOK"
SUBJECT_VARIABLE = "SENDENSE_STEP_SUBJECT"


def about(subject: str) -> None:
    """Say which machine (its key) this process and its children work on from now on."""
    if os.environ.get(HOOK_VARIABLE):
        os.environ[SUBJECT_VARIABLE] = subject


def reached(name: str) -> None:
    """Note that the step called ``name`` (``room:what-is-done``) has been completed."""
    hook = os.environ.get(HOOK_VARIABLE, "")
    if not hook or not os.path.isfile(hook):
        return
    subject = os.environ.get(SUBJECT_VARIABLE, "-")
    with open(hook, "a", encoding="utf-8") as log:
        log.write(f"{name} {subject} {os.getpid()}\n")
    for suffix, number in (("kill", signal.SIGKILL), ("stop", signal.SIGSTOP)):
        lines = _lines(f"{hook}.{suffix}")
        if name in lines or f"{name} {subject}" in lines:
            os.kill(os.getpid(), number)


def _lines(path: str) -> list[str]:
    if not os.path.isfile(path):
        return []
    with open(path, encoding="utf-8") as stream:
        return stream.read().split("\n")
