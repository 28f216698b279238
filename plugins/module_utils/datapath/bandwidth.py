# Copyright: (c) 2026, Sendense contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A cap on bandwidth: a token bucket that all disks of a mover share, and whose rate may change at any time."""

from __future__ import annotations

import math
import threading
import time
from typing import Callable, Tuple

from .hashing import BLOCK_BYTES

#: Seconds of traffic that may be sent in one burst after a pause, and that one request may hold.
BURST_SECONDS = 0.25
#: Bytes per second. Whoever wants less has mistaken the unit.
MIN_RATE = 16384
#: The rate where nothing is capped.
UNLIMITED = math.inf


class TokenBucket:
    """Admits ``rate`` bytes per second on average. Safe to share between threads.

    A reservation is a position in the flow of tokens, so that every disk gets its turn in the order of asking, and so that those who
    wait already profit or suffer from a new rate, too.
    """

    def __init__(self, rate: float = UNLIMITED, clock: Callable[[], float] = time.monotonic) -> None:
        self._rate = float(rate)
        self._clock = clock
        self._reserved = 0.0
        self._flowed = 0.0 if math.isinf(self._rate) else self._rate * BURST_SECONDS
        self._seen_at = clock()
        self._used = 0
        self._waited = False
        self._lock = threading.Lock()

    @property
    def rate(self) -> float:
        """Bytes per second now; ``UNLIMITED`` where nothing is capped."""
        return self._rate

    def set_rate(self, rate: float) -> None:
        """Change the rate from now on, for those who wait, too."""
        with self._lock:
            self._flow()
            self._rate = float(rate)
            self._flow()

    def reserve(self, count: int) -> float:
        """Reserve tokens for ``count`` bytes; returns the position whose :meth:`delay` is to be waited for."""
        with self._lock:
            self._flow()
            self._reserved += count
            self._used += count
            return self._reserved

    def delay(self, position: float) -> float:
        """Seconds at the present rate until the reservation may be used; 0 if it may be used now."""
        with self._lock:
            self._flow()
            missing = position - self._flowed
            if missing <= 0 or math.isinf(self._rate):
                return 0.0
            self._waited = True
            return missing / self._rate

    def fitting(self, length: int) -> int:
        """How many of ``length`` bytes to ask for at once, in whole blocks: little under a low cap, so that progress is smooth."""
        if math.isinf(self._rate):
            return length
        return min(length, max(BLOCK_BYTES, int(self._rate * BURST_SECONDS) // BLOCK_BYTES * BLOCK_BYTES))

    def take_usage(self) -> Tuple[int, bool]:
        """Bytes reserved since the last call, and whether anybody had to wait meanwhile."""
        with self._lock:
            usage = self._used, self._waited
            self._used, self._waited = 0, False
            return usage

    def _flow(self) -> None:
        now = self._clock()
        if math.isinf(self._rate):
            self._flowed = self._reserved
        else:
            self._flowed = min(self._flowed + (now - self._seen_at) * self._rate, self._reserved + self._rate * BURST_SECONDS)
        self._seen_at = now
