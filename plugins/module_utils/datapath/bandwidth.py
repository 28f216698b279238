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

    A request larger than the bucket is admitted when the bucket is full, and puts it into debt: the average holds.
    """

    def __init__(self, rate: float, clock: Callable[[], float] = time.monotonic) -> None:
        self.rate = float(rate)
        self._clock = clock
        self._capacity = self.rate * BURST_SECONDS
        self._tokens = self._capacity
        self._filled_at = clock()
        self._lock = threading.Lock()

    def try_take(self, count: int) -> float:
        """Take tokens for ``count`` bytes and return 0.0, or take none and return the seconds to wait."""
        with self._lock:
            now = self._clock()
            self._tokens = min(self._capacity, self._tokens + (now - self._filled_at) * self.rate)
            self._filled_at = now
            needed = min(float(count), self._capacity)
            if self._tokens < needed:
                return (needed - self._tokens) / self.rate
            self._tokens -= count
            return 0.0
