# Copyright: (c) 2026, Sendense contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The status file and its figures."""

from __future__ import annotations

import json
import threading

import pytest

from ansible_collections.sendense.platform.plugins.module_utils.datapath.status import (
    DiskProgress,
    RateMeter,
    StatusReport,
    read_status,
    write_status,
)
from ansible_collections.sendense.platform.plugins.module_utils.errors import InvalidInputError


class Clock:
    def __init__(self):
        self.now = 100.0

    def __call__(self):
        return self.now


def test_the_rate_is_of_the_last_seconds():
    clock = Clock()
    meter = RateMeter(window_s=10, clock=clock)
    assert (meter.rate(), meter.eta(5), meter.eta(0)) == (0, None, 0)
    for second in range(1, 31):
        clock.now += 1
        meter.sample(second * 100 if second <= 20 else 2000 + (second - 20) * 10)
    assert meter.rate() == 10
    assert meter.eta(95) == 10


def test_the_document_has_the_promised_members():
    disk = DiskProgress("disk0")
    disk.start()
    disk.bytes_total, disk.bytes_done, disk.bytes_read = 100, 40, 40
    document = StatusReport([disk, DiskProgress("disk1")]).build("running")
    assert {"schema", "state", "bytes_done", "bytes_total", "rate", "eta_s", "updated_at", "error", "disks"} <= set(document)
    assert (document["bytes_done"], document["bytes_total"]) == (40, 100)
    assert set(document["disks"]["disk0"]) >= {
        "state", "bytes_read", "bytes_written", "bytes_zeroed", "bytes_total", "rate", "eta_s", "seconds", "error", "hashes",
    }  # fmt: skip
    assert document["disks"]["disk1"]["state"] == "pending"
    json.dumps(document)


def test_a_finished_disk_keeps_its_result():
    disk = DiskProgress("disk0")
    disk.start()
    disk.end("failed", {"msg": "why"})
    entry = disk.to_dict()
    assert (entry["state"], entry["error"], entry["eta_s"]) == ("failed", {"msg": "why"}, 0)


def test_a_reader_never_sees_half_a_document(tmp_path):
    path = str(tmp_path / "s")
    document = {"schema": 1, "filler": "x" * 50000}
    done = threading.Event()

    def keep_writing():
        for _round in range(200):
            write_status(path, document)
        done.set()

    writer = threading.Thread(target=keep_writing)
    assert read_status(path) is None
    writer.start()
    reads = 0
    while not done.is_set() or reads == 0:
        seen = read_status(path)
        assert seen is None or seen == document
        reads += seen is not None
    writer.join()
    assert reads


@pytest.mark.parametrize("text", ["", "{", "[]", '{"schema": 2}', "\x00"])
def test_other_files_are_refused(tmp_path, text):
    (tmp_path / "s").write_text(text)
    with pytest.raises(InvalidInputError):
        read_status(str(tmp_path / "s"))
