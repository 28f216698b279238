# Copyright: (c) 2026, Sendense contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a guest printed on its serial console."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Callable, List

from .paths import LabError


class Console:
    """The log file of one guest's serial port; libvirt empties it at every start."""

    def __init__(self, log: Path, name: str) -> None:
        self.log = log
        self._name = name

    def lines(self) -> List[str]:
        """All complete lines so far."""
        if not self.log.exists():
            return []
        text = self.log.read_bytes().decode("utf-8", "replace").replace("\r", "")
        return text.split("\n")[:-1]

    def values(self, prefix: str) -> List[str]:
        """The rest of every line that starts with ``prefix``."""
        return [line[len(prefix) :].strip() for line in self.lines() if line.startswith(prefix)]

    def wait(self, prefix: str, timeout_s: float, running: Callable[[], bool], wanted: Callable[[str], bool] = bool) -> str:
        """Wait for a line that starts with ``prefix`` and goes on with something ``wanted``; returns that rest.

        LabError with the console's last lines if the guest stops running or the time is over.
        """
        deadline = time.monotonic() + timeout_s
        while True:
            for value in reversed(self.values(prefix)):
                if wanted(value):
                    return value
            why = "the guest is off" if not running() else f"{timeout_s:.0f} s are over" if time.monotonic() > deadline else ""
            if why:
                tail = "\n".join(self.lines()[-15:])
                raise LabError(f"{self._name!r} did not print {prefix!r}: {why}; its console ended with:\n{tail}")
            time.sleep(0.1)
