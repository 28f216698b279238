# Copyright: (c) 2026, Sendense contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Let something hang in the middle of a copy, and measure how long the mover takes to give up."""

from __future__ import annotations

import json
import threading
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Callable, Dict, Iterator, Optional

from .workbench import Workbench

#: Seconds in which a hang must be noticed, over the limit that the operator has set: 60 s by default, so 75 s.
GRACE_SECONDS = 15


@dataclass
class Hang:
    """One hang: begins when the copy has moved some bytes; ``noticed`` is how long the mover took to give up."""

    bench: Workbench
    begin: Callable[[], None]
    end: Callable[[], None]
    early: bool = False
    """End it as soon as it was noticed: on frozen storage not even the clean-up can go on."""
    noticed: Optional[float] = None
    _thread: Optional[threading.Thread] = None

    def watch(self) -> None:
        """Begin to look, as a hook of the backup."""
        self._thread = threading.Thread(target=self._run)
        self._thread.start()

    def join(self) -> None:
        """Wait for the watcher, and end the hang."""
        if self._thread is not None:
            self._thread.join()
            if not self.early:
                self.end()

    def _run(self) -> None:
        limit = self.bench.stall_seconds + GRACE_SECONDS
        if not self._await(lambda status: int(status.get("bytes_done", 0)) > 0, 30):
            return
        began = time.monotonic()
        self.begin()
        try:
            if self._await(lambda status: status.get("state") == "failed", limit):
                self.noticed = time.monotonic() - began
        finally:
            if self.early:
                self.end()

    def _await(self, condition: Callable[[Dict[str, Any]], bool], seconds: float) -> bool:
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            if any(condition(status) for status in self._statuses()):
                return True
            time.sleep(0.05)
        return False

    def _statuses(self) -> Iterator[Dict[str, Any]]:
        for path in Path(self.bench.site.hub_state).glob("jobs/*/copy.status.json"):
            try:
                yield json.loads(path.read_text())
            except FileNotFoundError:
                continue
