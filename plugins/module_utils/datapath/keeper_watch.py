# Copyright: (c) 2026, Sendense contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Why a keeper should end its job although its heart beats: it was cancelled, or whoever wanted it is gone."""

from __future__ import annotations

import time
from typing import Any, Callable, Dict

from ..hubstate.controller import is_gone
from ..hubstate.jobs import JobDir

CANCELLED, CONTROLLER = "cancelled", "controller"
#: Seconds between two looks.
LOOK_SECONDS = 0.25


class Wanted:
    """Looks for the cancel marker and for the controller, as far as it can be seen from here."""

    def __init__(self, job: JobDir, controller: Dict[str, Any], clock: Callable[[], float] = time.monotonic) -> None:
        self._job = job
        self._controller = controller
        self._clock = clock
        self._next = clock()

    def refusal(self) -> str:
        """``cancelled``, ``controller``, or nothing; between two looks nothing."""
        now = self._clock()
        if now < self._next:
            return ""
        self._next = now + LOOK_SECONDS
        if self._job.cancelled():
            return CANCELLED
        return CONTROLLER if is_gone(self._controller) else ""
