# Copyright: (c) 2026, Sendense contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The token bucket holds its average, whatever the sizes and whenever the rate changes."""

from __future__ import annotations

import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ansible_collections.sendense.platform.plugins.module_utils.datapath.bandwidth import (
    BURST_SECONDS,
    UNLIMITED,
    TokenBucket,
)


class Clock:
    def __init__(self):
        self.now = 0.0

    def __call__(self):
        return self.now


def wait(bucket, count):
    return bucket.delay(bucket.reserve(count))


@settings(max_examples=200, deadline=None)
@given(st.integers(1000, 10**9), st.lists(st.integers(1, 32 << 20), min_size=1, max_size=50), st.integers(0, 5))
def test_the_average_is_never_exceeded(rate, sizes, idle):
    clock = Clock()
    bucket = TokenBucket(rate, clock)
    clock.now = float(idle)  # an idle time earns one burst, not more
    sent = 0
    for size in sizes:
        delay = wait(bucket, size)
        sent += size
        assert delay >= 0
        assert sent <= rate * (delay + BURST_SECONDS) * 1.000001 + 1
        assert delay == 0 or sent >= rate * (delay + BURST_SECONDS) * 0.999999 - 1


def test_those_who_ask_later_wait_longer():
    bucket = TokenBucket(1000, Clock())
    assert wait(bucket, 250) == 0.0
    assert [round(wait(bucket, 100), 6) for _one in range(3)] == [0.1, 0.2, 0.3]


@settings(max_examples=200, deadline=None)
@given(st.lists(st.tuples(st.integers(10_000, 10**8), st.floats(0.01, 5), st.integers(1, 1 << 20)), min_size=1, max_size=40))
def test_whatever_the_rates_were_no_more_flows_than_they_admit(steps):
    """Everybody asks as fast as the cap lets it, while the rate changes under those who wait."""
    clock = Clock()
    bucket = TokenBucket(steps[0][0], clock)
    admitted, allowed, burst, position, waiting = 0, 0.0, 0.0, None, 0
    for rate, seconds, size in steps:
        bucket.set_rate(rate)
        burst = max(burst, rate * BURST_SECONDS)
        end = clock.now + seconds
        for _turn in range(100):
            if position is None:
                position, waiting = bucket.reserve(size), size
            delay = bucket.delay(position)
            if clock.now + delay > end:
                break
            clock.now += delay * 1.000001 + 1e-9
            if bucket.delay(position) == 0:
                admitted, position = admitted + waiting, None
        allowed += rate * seconds
        clock.now = max(clock.now, end)
        assert admitted <= (allowed + burst) * 1.001 + 16


def test_those_who_wait_profit_and_suffer_from_a_new_rate():
    clock = Clock()
    bucket = TokenBucket(1000, clock)
    bucket.reserve(250)
    position = bucket.reserve(1000)
    assert bucket.delay(position) == pytest.approx(1.0)
    clock.now = 0.5
    bucket.set_rate(5000)
    assert bucket.delay(position) == pytest.approx(0.1)
    bucket.set_rate(100)
    assert bucket.delay(position) == pytest.approx(5.0)
    bucket.set_rate(UNLIMITED)
    assert bucket.delay(position) == 0.0
    bucket.set_rate(1000)  # no debts remain from before, and no credit
    assert wait(bucket, 1000) == pytest.approx(1.0)


def test_a_low_cap_admits_small_pieces_of_whole_blocks():
    mib = 1 << 20
    assert TokenBucket(UNLIMITED).fitting(32 * mib) == 32 * mib
    assert TokenBucket(100 * mib).fitting(mib) == mib
    assert TokenBucket(mib).fitting(mib) == mib // 4
    assert TokenBucket(mib + 4 * 65535).fitting(mib) == mib // 4
    assert TokenBucket(20_000).fitting(mib) == 65536
    assert TokenBucket(20_000).fitting(512) == 512  # the last block of a disk may be short


def test_usage_is_told_once():
    bucket = TokenBucket(1000, Clock())
    assert bucket.take_usage() == (0, False)
    wait(bucket, 200)
    assert bucket.take_usage() == (200, False)
    wait(bucket, 200)
    wait(bucket, 1)
    assert bucket.take_usage() == (201, True)
    assert bucket.take_usage() == (0, False)


def test_without_a_cap_nobody_waits():
    bucket = TokenBucket()
    assert math.isinf(bucket.rate)
    assert [wait(bucket, 1 << 40) for _one in range(3)] == [0.0, 0.0, 0.0]
    assert bucket.take_usage() == (3 << 40, False)
