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
@given(st.integers(1000, 10**9), st.lists(st.integers(1, 32 << 20), min_size=1, max_size=50), st.integers(0, 5))
def test_the_average_is_never_exceeded(rate, sizes, idle):
    clock = Clock()
    bucket = TokenBucket(rate, clock)
    clock.now = float(idle)  # an idle time earns one burst, not more
    sent = 0
    for size in sizes:
        wait = bucket.reserve(size)
        sent += size
        assert wait >= 0
        assert sent <= rate * (wait + BURST_SECONDS) * 1.000001 + 1
        assert wait == 0 or sent >= rate * (wait + BURST_SECONDS) * 0.999999 - 1


def test_those_who_ask_later_wait_longer():
    bucket = TokenBucket(1000, Clock())
    assert bucket.reserve(250) == 0.0
    assert [round(bucket.reserve(100), 6) for _one in range(3)] == [0.1, 0.2, 0.3]
