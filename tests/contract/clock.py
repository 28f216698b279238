# Copyright: (c) 2026, Sendense contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A clock that a test sets."""

from __future__ import annotations

import time
from datetime import UTC, datetime


class Clock:
    """Called like ``time.time``; real until it is set."""

    def __init__(self) -> None:
        self._seconds: float = 0

    def __call__(self) -> float:
        return self._seconds or time.time()

    def set(self, text: str) -> None:
        """Show this time, ``2026-11-20T12:00:00Z``, from now on."""
        self._seconds = datetime.strptime(text, "%Y-%m-%dT%H:%M:%SZ").replace(tzinfo=UTC).timestamp()
