# Copyright: (c) 2026, Sendense contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Bandwidth caps of real movers: shared by those of a node, changed while they copy, and never mistaken for a stall."""

from __future__ import annotations

import json
import os
import re
import subprocess
import threading
import time
from contextlib import ExitStack

import pytest

from ansible_collections.sendense.platform.plugins.module_utils.datapath import cap
from ansible_collections.sendense.platform.plugins.module_utils.datapath.bandwidth import TokenBucket
from ansible_collections.sendense.platform.plugins.module_utils.datapath.images import create_raw
from ansible_collections.sendense.platform.plugins.module_utils.datapath.mover import move
from ansible_collections.sendense.platform.plugins.module_utils.datapath.mover_plan import DiskJob, MoverOptions
from ansible_collections.sendense.platform.plugins.module_utils.datapath.pacing import READS
from ansible_collections.sendense.platform.plugins.module_utils.datapath.status import read_status
from ansible_collections.sendense.platform.plugins.module_utils.datapath.transfer import Transfer
from tests.integration.datapath.servers import BLOCK, MIB, compare, raw_file
from tests.integration.datapath.test_cli import command

#: Bytes per second of the node, in the tests of several movers.
NODE = 16 * MIB


@pytest.fixture
def copies(tmp_path, servers):
    """Makes the job of another disk with so many bytes of data."""
    made = []

    def make(size):
        name = len(made)
        made.append(size)
        raw_file(tmp_path / f"s{name}", size, seed=name, share=1.0)
        create_raw(str(tmp_path / f"t{name}"), size)
        source = servers.kit(f"s{name}", "-r", "file", str(tmp_path / f"s{name}"))
        return {
            "key": "disk0",
            "source_uri": source,
            "target_uri": servers.kit(f"t{name}", "file", str(tmp_path / f"t{name}")),
        }

    return make


@pytest.fixture
def movers(tmp_path):
    """Starts mover processes that share a cap; those that a test leaves are killed."""
    started = []

    def start(job, **options):
        name = len(started)
        options.setdefault("node_bandwidth", {"bytes_per_second": NODE, "directory": str(tmp_path / "bandwidth")})
        (tmp_path / f"plan{name}").write_text(json.dumps({"disks": [job], "options": options}))
        words = command("mover", "--plan", tmp_path / f"plan{name}", "--status", tmp_path / f"status{name}")
        environment = {**os.environ, "PYTHONPATH": "collections"}
        started.append(subprocess.Popen(words, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, env=environment))
        return Mover(started[-1], str(tmp_path / f"status{name}"))

    yield start
    for process in started:
        process.kill()
        process.wait(20)


class Mover:
    """A mover process and what it says."""

    def __init__(self, process, status):
        self.process = process
        self._status = status

    def status(self):
        return read_status(self._status) or {"bytes_done": 0, "cap": None, "updated_at": time.time()}

    def wait_for(self, condition):
        limit = time.monotonic() + 30
        while not condition(self.status()):
            assert self.process.poll() is None and time.monotonic() < limit, self.status()
            time.sleep(0.05)


def rates(seconds, *movers):
    """Bytes per second of each mover over a while, by the times that they themselves state."""
    before = [mover.status() for mover in movers]
    time.sleep(seconds)
    after = [mover.status() for mover in movers]
    return [
        (new["bytes_done"] - old["bytes_done"]) / (new["updated_at"] - old["updated_at"]) for old, new in zip(before, after, strict=True)
    ]


def test_two_movers_share_the_cap_of_their_node(tmp_path, copies, movers):
    """Each has half; when one is killed without warning, the other has all a moment later, and when both end nothing is left."""
    first, second = movers(copies(160 * MIB)), movers(copies(160 * MIB))
    for mover in (first, second):
        mover.wait_for(lambda status: status["cap"] and status["cap"]["bytes_per_second"] == NODE // 2)
    shared = rates(4, first, second)
    assert sum(shared) == pytest.approx(NODE, rel=0.1)
    assert shared == [pytest.approx(NODE / 2, rel=0.1)] * 2
    assert first.status()["cap"] == {"bytes_per_second": NODE // 2, "by": "node", "binds": True}
    second.process.kill()
    second.process.wait(20)
    first.wait_for(lambda status: status["cap"]["bytes_per_second"] == NODE)
    assert rates(2, first) == [pytest.approx(NODE, rel=0.1)]
    first.process.terminate()
    assert first.process.wait(20) == 3
    third = movers(copies(MIB))
    assert third.process.wait(20) == 0
    assert os.listdir(tmp_path / "bandwidth") == []


def test_what_one_mover_cannot_use_the_other_has(copies, movers):
    slow, fast = movers(copies(64 * MIB), bandwidth_bytes_per_s=2 * MIB), movers(copies(160 * MIB))
    fast.wait_for(lambda status: status["cap"] and status["cap"]["bytes_per_second"] > 13 * MIB)
    assert rates(3, slow, fast) == [pytest.approx(2 * MIB, rel=0.15), pytest.approx(14 * MIB, rel=0.1)]
    assert slow.status()["cap"]["by"] == "job"


def test_a_copy_that_runs_into_a_window_slows_down_and_speeds_up_after_it(tmp_path, copies, monkeypatch):
    """Only what the clock on the wall says is put in place of a wait of hours."""
    now = [None]
    monkeypatch.setattr(cap, "lowest", lambda windows, moment: now[0])
    window = {"from": "08:00", "to": "18:00", "bytes_per_second": MIB}
    options = MoverOptions(
        bandwidth_bytes_per_s=24 * MIB,
        node_bandwidth={"windows": [window], "directory": str(tmp_path / "bandwidth")},
    )
    job, status, results = DiskJob(**copies(96 * MIB)), str(tmp_path / "status"), []
    copy = threading.Thread(target=lambda: results.append(move([job], options, status_path=status)))
    copy.start()
    try:
        outside = progress(status, 1.0)
        now[0] = MIB
        time.sleep(1.5)
        inside = progress(status, 2.0)
        said = read_status(status)["cap"]
    finally:
        now[0] = None
        begun = time.monotonic()
        copy.join(30)
    assert not copy.is_alive() and results[0].state == "done", results
    assert outside > 16 * MIB
    assert inside == pytest.approx(MIB, rel=0.3)  # in pieces of a quarter of a second
    assert said == {"bytes_per_second": MIB, "by": "window", "binds": True}
    assert time.monotonic() - begun < 10  # most of it was still to be copied: at the window's rate a minute's work
    assert results[0].document["cap"] is None
    assert compare(tmp_path / "s0", tmp_path / "t0")


def progress(status, seconds):
    """Bytes per second."""
    limit = time.monotonic() + 20
    while not (read_status(status) or {}).get("bytes_done"):
        assert time.monotonic() < limit
        time.sleep(0.02)
    before = read_status(status)
    time.sleep(seconds)
    after = read_status(status)
    return (after["bytes_done"] - before["bytes_done"]) / (after["updated_at"] - before["updated_at"])


def test_a_cap_of_less_than_a_block_per_watchdog_is_not_a_stall(tmp_path, copies):
    """One block takes two seconds, the watchdog one: nobody owes an answer while the cap makes us wait. Progress is smooth."""
    job, seen, ended = DiskJob(**copies(3 * BLOCK)), [], threading.Event()
    status = str(tmp_path / "status")

    def look():
        while not ended.wait(0.1):
            seen.append((read_status(status) or {}).get("bytes_done", 0))

    watcher = threading.Thread(target=look)
    watcher.start()
    begun = time.monotonic()
    try:
        result = move([job], MoverOptions(stall_seconds=1, bandwidth_bytes_per_s=BLOCK // 2), status_path=status)
    finally:
        ended.set()
        watcher.join()
    assert result.state == "done", result.error
    assert 4.5 < time.monotonic() - begun < 12
    assert {BLOCK, 2 * BLOCK} <= set(seen)
    assert compare(tmp_path / "s0", tmp_path / "t0")


def test_a_bad_cap_is_refused_before_anything_is_touched(tmp_path, copies, movers):
    bad = {"windows": [{"from": "08:00", "to": "18:00", "bytes_per_second": MIB, "timezone": "Atlantis"}], "directory": str(tmp_path / "b")}
    refused = movers(copies(MIB), node_bandwidth=bad)
    assert refused.process.wait(20) == 2
    assert not (tmp_path / "b").exists() and (tmp_path / "t0").read_bytes() == bytes(MIB)


def test_many_disks_do_not_measure_their_lines_past_the_cap(tmp_path, servers):
    """The clock of the cap stands still: the first disk may look how far its servers are, the others would exceed it further."""
    source = raw_file(tmp_path / "s", 16 * MIB, seed=1, share=1.0)
    log = tmp_path / "log"
    uri = servers.kit("s", "-r", "--filter=log", "file", str(source), f"logfile={log}")
    bucket = TokenBucket(4 * MIB, clock=lambda: 0.0)
    with ExitStack() as stack:
        for number in range(4):
            create_raw(str(tmp_path / f"t{number}"), 16 * MIB)
            target = servers.kit(f"t{number}", "file", str(tmp_path / f"t{number}"))
            transfer = Transfer(DiskJob(f"disk{number}", uri, target), MoverOptions(), lambda: False)
            stack.callback(transfer.close)
            transfer.prepare()
            transfer.measure(bucket)
    counts = [int(count, 16) for count in re.findall(r" Read .*count=(0x[0-9a-f]+) ", log.read_text())]
    assert counts == list(READS)
    assert bucket.take_usage()[0] == 2 * sum(READS)  # of both sides
