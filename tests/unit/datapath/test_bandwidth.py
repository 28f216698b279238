# Copyright: (c) 2026, Sendense contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The token bucket holds its average, whatever the sizes."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from ansible_collections.sendense.platform.plugins.module_utils.datapath.bandwidth import BURST_SECONDS, TokenBucket


class Clock:
    def __init__(self):
        self.now = 0.0

    def __call__(self):
        return self.now


@settings(max_examples=200, deadline=None)
@given(st.integers(1000, 10**9), st.lists(st.integers(1, 32 << 20), min_size=1, max_size=50))
def test_the_average_is_never_exceeded_and_waiting_always_helps(rate, sizes):
    clock = Clock()
    bucket = TokenBucket(rate, clock)
    sent = 0
    for size in sizes:
        wait = bucket.try_take(size)
        if wait:
            clock.now += wait * 1.000001 + 1e-6
            assert bucket.try_take(size) == 0.0
        sent += size
        # what was sent before this request fits the time that has passed, plus one burst
        assert sent - size <= rate * (clock.now + BURST_SECONDS) * 1.001 + 1


def test_a_refused_take_costs_nothing():
    clock = Clock()
    bucket = TokenBucket(1000, clock)
    assert bucket.try_take(250) == 0.0
    assert bucket.try_take(100) == bucket.try_take(100) == 0.1
