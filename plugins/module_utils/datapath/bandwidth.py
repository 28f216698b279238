# Copyright: (c) 2026, Sendense contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A cap on bandwidth: a token bucket that all disks of a mover share."""

from __future__ import annotations

import threading
import time
from typing import Callable

#: Seconds of traffic that may be sent in one burst after a pause.
BURST_SECONDS = 0.25


class TokenBucket:
    """Admits ``rate`` bytes per second on average. Safe to share between threads.

    Tokens are reserved at once and in the order of asking, so that every disk gets its turn: whoever asks may have to
    wait until its tokens have flowed in, and those who ask later wait longer.
    """

    def __init__(self, rate: float, clock: Callable[[], float] = time.monotonic) -> None:
        self.rate = float(rate)
        self._clock = clock
        self._capacity = self.rate * BURST_SECONDS
        self._tokens = self._capacity
        self._filled_at = clock()
        self._lock = threading.Lock()

    def reserve(self, count: int) -> float:
        """Reserve tokens for ``count`` bytes; return the seconds until they may be used."""
        with self._lock:
            now = self._clock()
            self._tokens = min(self._capacity, self._tokens + (now - self._filled_at) * self.rate)
            self._filled_at = now
            self._tokens -= count
            return max(0.0, -self._tokens / self.rate)
