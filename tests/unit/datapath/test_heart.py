# Copyright: (c) 2026, Sendense contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

import os

from ansible_collections.sendense.platform.plugins.module_utils.datapath.keeper import Heart


class Clock:
    def __init__(self):
        self.now = 1000.0

    def __call__(self):
        return self.now


def _heart(tmp_path):
    path = str(tmp_path / "heartbeat")
    with open(path, "w", encoding="ascii"):
        pass
    os.utime(path, (5000, 5000))
    clock = Clock()
    heart = Heart(path, 30.0, clock)
    assert not heart.stopped()
    return path, clock, heart


def test_a_heart_without_beats_stops(tmp_path):
    _path, clock, heart = _heart(tmp_path)
    clock.now += 30
    assert not heart.stopped()
    clock.now += 0.1
    assert heart.stopped()


def test_any_change_of_the_mtime_is_a_beat_also_backwards(tmp_path):
    path, clock, heart = _heart(tmp_path)
    for mtime in (5001, 4000, 10**10, 1):
        clock.now += 29
        os.utime(path, (mtime, mtime))
        assert not heart.stopped()


def test_a_file_from_the_future_keeps_nothing_alive(tmp_path):
    path, clock, heart = _heart(tmp_path)
    os.utime(path, (10**10, 10**10))
    assert not heart.stopped()
    clock.now += 31
    assert heart.stopped()


def test_requests_are_beats(tmp_path):
    _path, clock, heart = _heart(tmp_path)
    clock.now += 29
    heart.beat()
    clock.now += 29
    assert not heart.stopped()


def test_a_removed_file_is_no_beat(tmp_path):
    path, clock, heart = _heart(tmp_path)
    os.unlink(path)
    clock.now += 31
    assert heart.stopped()
