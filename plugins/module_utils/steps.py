# Copyright: (c) 2026, Sendense contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Named places where a fault test may kill the process, so that "crash between any two steps" is a test, not a hope.

In production :func:`reached` does nothing. If the environment variable ``SENDENSE_STEP_HOOK`` names an existing file, the
step's name is appended to it; if the file ``<hook>.kill`` beside it holds the name as a line of its own, the process
kills itself with SIGKILL. The aid can do nothing else: whoever can set it could as well kill the process.
"""

from __future__ import annotations

import os
import signal

HOOK_VARIABLE = "SENDENSE_STEP_HOOK"


def reached(name: str) -> None:
    """Note that the step called ``name`` (``room:what-is-done``) has been completed."""
    hook = os.environ.get(HOOK_VARIABLE, "")
    if not hook or not os.path.isfile(hook):
        return
    with open(hook, "a", encoding="utf-8") as log:
        log.write(f"{name}\n")
    if name in _lines(f"{hook}.kill"):
        os.kill(os.getpid(), signal.SIGKILL)


def _lines(path: str) -> list[str]:
    if not os.path.isfile(path):
        return []
    with open(path, encoding="utf-8") as stream:
        return stream.read().split("\n")
