# Copyright: (c) 2026, Sendense contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Servers that fail, hang, vanish or do not fit: always a typed error, always in time, one result per disk."""

from __future__ import annotations

import os
import signal
import time

import pytest

from ansible_collections.sendense.platform.plugins.module_utils.datapath.images import create_qcow2, create_raw
from ansible_collections.sendense.platform.plugins.module_utils.datapath.loop import Stop
from ansible_collections.sendense.platform.plugins.module_utils.datapath.mover import move
from ansible_collections.sendense.platform.plugins.module_utils.datapath.mover_plan import DiskJob, MoverOptions
from ansible_collections.sendense.platform.plugins.module_utils.datapath.nbd_handle import NbdConnection
from ansible_collections.sendense.platform.plugins.module_utils.datapath.status import read_status
from ansible_collections.sendense.platform.plugins.module_utils.datapath.targets import parse_uri
from ansible_collections.sendense.platform.plugins.module_utils.errors import ExportFailedError, JobCancelledError
from tests.integration.datapath.servers import BLOCK, MIB, WhenMoving, chain, compare, raw_file

SIZE = 8 * MIB


@pytest.fixture
def disk(tmp_path):
    """A raw source with data everywhere, and an empty raw target."""
    raw_file(tmp_path / "source", SIZE, seed=1, share=1.0)
    create_raw(str(tmp_path / "target"), SIZE)
    return tmp_path


def kit_pair(servers, directory, source_words=(), target_words=()):
    """nbdkit on both sides; words that begin with -- are filters, others are parameters."""
    uris = []
    for name, words in (("source", source_words), ("target", target_words)):
        filters = [word for word in words if word.startswith("-")]
        parameters = [word for word in words if not word.startswith("-")]
        uris.append(servers.kit(name, *filters, "file", str(directory / name), *parameters))
    return uris


@pytest.mark.parametrize("rate", ["1%", "5%", "20%"])
@pytest.mark.parametrize("side", ["pread", "pwrite"])
def test_never_done_with_wrong_data(disk, servers, side, rate):
    """Random I/O errors: either a typed error, or done and identical."""
    words = ["--filter=error", f"error-{side}-rate={rate}", f"error-{side}=EIO"]
    for attempt in range(3):
        os.truncate(disk / "target", 0)
        os.truncate(disk / "target", SIZE)
        uris = kit_pair(servers, disk, *((words, ()) if side == "pread" else ((), words)))
        result = move([DiskJob("disk0", *uris, hashes_path=str(disk / "h"))], MoverOptions(request_bytes=BLOCK, stall_seconds=10))
        if result.state == "done":
            assert compare(disk / "source", disk / "target")
        else:
            role = "source" if side == "pread" else "target"
            # a server that dies of its own error (a known defect of nbdkit 1.32) counts as one that went away
            assert result.error["error_code"] in ("COPY_FAILED", "SOURCE_VANISHED", "EXPORT_FAILED"), (attempt, result.error)
            assert result.error["details"]["role"] == role and result.error["details"]["disk"] == "disk0"
            assert result.disks["disk0"]["error"] == result.error
            assert not (disk / "h.partial").exists()
        for name in ("source", "target"):
            servers.stop(name)


@pytest.mark.parametrize(("side", "code"), [("pread", "COPY_FAILED"), ("pwrite", "COPY_FAILED")])
def test_certain_errors_name_the_place(disk, servers, side, code):
    words = ["--filter=error", f"error-{side}-rate=100%", f"error-{side}=EIO"]
    uris = kit_pair(servers, disk, *((words, ()) if side == "pread" else ((), words)))
    result = move([DiskJob("disk0", *uris)], MoverOptions())
    assert (result.state, result.error["error_code"], result.error["details"]["errno"]) == ("failed", code, "EIO")
    assert result.error["details"]["length"] > 0 and result.error["retryable"]


def test_a_full_target_is_said_to_be_full(disk, servers):
    uris = kit_pair(servers, disk, (), ["--filter=error", "error-pwrite-rate=100%", "error-pwrite=ENOSPC"])
    result = move([DiskJob("disk0", *uris)], MoverOptions())
    assert (result.error["error_code"], result.error["details"]["errno"]) == ("REPOSITORY_FULL", "ENOSPC")


def eval_server(servers, name, path, **scripts):
    """An own server of shell scripts over a file, for what no filter can do."""
    plain = {
        "get_size": f"stat -L -c %s {path}",
        "can_write": "exit 0",
        "can_flush": "exit 0",
        "pread": f"dd iflag=skip_bytes,count_bytes skip=$4 count=$3 if={path} status=none",
        "pwrite": f"dd oflag=seek_bytes conv=notrunc seek=$4 of={path} status=none",
        "flush": "exit 0",
    }
    return servers.kit(name, "eval", *[f"{method}={script}" for method, script in {**plain, **scripts}.items()])


def test_a_failed_flush_fails_the_copy(disk, servers):
    """Everything was written and acknowledged; only the flush says that it is not stored."""
    source = servers.kit("source", "-r", "file", str(disk / "source"))
    target = eval_server(servers, "target", disk / "target", flush="echo EIO no power >&2; exit 1")
    result = move([DiskJob("disk0", source, target, hashes_path=str(disk / "h"))], MoverOptions())
    assert (result.state, result.error["error_code"]) == ("failed", "COPY_FAILED")
    assert "flush" in result.error["msg"] and result.disks["disk0"]["bytes_done"] == SIZE
    assert not list(disk.glob("h*"))


def test_a_target_without_flush_or_without_write_is_refused(disk, servers):
    source = servers.kit("source", "-r", "file", str(disk / "source"))
    for name, target in (
        ("cannot flush", eval_server(servers, "noflush", disk / "target", can_flush="exit 3")),
        ("is read-only", servers.kit("readonly", "-r", "file", str(disk / "target"))),
    ):
        result = move([DiskJob("disk0", source, target)], MoverOptions())
        assert (result.error["error_code"], result.error["details"]["reason"]) == ("EXPORT_FAILED", name)
        assert result.disks["disk0"]["bytes_read"] == 0


def test_sizes_that_differ_are_refused_before_anything_moves(disk, servers):
    create_raw(str(disk / "small"), SIZE - 512)
    create_raw(str(disk / "fits"), SIZE)
    source = servers.kit("source", "-r", "file", str(disk / "source"))
    target = servers.kit("target", "file", str(disk / "target"))
    small = servers.kit("small", "file", str(disk / "small"))
    for job in (DiskJob("disk1", source, small), DiskJob("disk1", source, target, size_bytes=SIZE + 512)):
        other = DiskJob("disk0", source, servers.kit(f"fits{job.size_bytes}", "file", str(disk / "fits")))
        result = move([other, job], MoverOptions())
        assert result.error["error_code"] == "EXPORT_FAILED" and not result.error["retryable"]
        assert set(result.disks) == {"disk0", "disk1"}
        assert all(one["state"] != "done" and one["error"] for one in result.disks.values())
        assert sum(one["bytes_read"] for one in result.disks.values()) == 0
    assert (disk / "target").read_bytes() == (disk / "fits").read_bytes() == bytes(SIZE)


def test_one_disk_of_three_fails_and_each_has_its_own_result(disk, servers):
    jobs = []
    for index in range(3):
        raw_file(disk / f"s{index}", SIZE, seed=index, share=1.0)
        create_raw(str(disk / f"t{index}"), SIZE)
        words = (
            ["--filter=error", "file", str(disk / f"s{index}"), "error-pread-rate=100%"]
            if index == 1
            else ["file", str(disk / f"s{index}")]
        )
        target = servers.kit(f"t{index}", "--filter=delay", "file", str(disk / f"t{index}"), "wdelay=50ms")
        jobs.append(DiskJob(f"disk{index}", servers.kit(f"s{index}", "-r", *words), target, hashes_path=str(disk / f"h{index}")))
    result = move(jobs, MoverOptions(request_bytes=BLOCK))
    assert result.state == "failed" and result.error["details"]["disk"] == "disk1"
    assert result.disks["disk1"]["error"]["error_code"] == "COPY_FAILED"
    for key in ("disk0", "disk2"):
        assert result.disks[key]["state"] == "cancelled"
        assert result.disks[key]["error"]["details"]["because"] == "disk1"
        assert result.disks[key]["bytes_done"] < SIZE
    assert not list(disk.glob("h*"))


@pytest.mark.parametrize("side", ["source", "target"])
def test_a_stopped_server_is_noticed_and_nothing_hangs(disk, servers, side):
    """SIGSTOP in the middle: the watchdog ends the copy in time, and closing does not wait for the dead."""
    uris = kit_pair(servers, disk)
    options = MoverOptions(request_bytes=BLOCK, stall_seconds=2, bandwidth_bytes_per_s=MIB)
    begun = time.monotonic()
    with WhenMoving(disk / "status", lambda: servers.signal(side, signal.SIGSTOP)):
        result = move([DiskJob("disk0", *uris, hashes_path=str(disk / "h"))], options, status_path=str(disk / "status"))
    seconds = time.monotonic() - begun
    assert (result.state, result.error["error_code"]) == ("failed", "COPY_STALLED")
    assert result.error["details"]["role"] == side
    assert 2 < seconds < 7
    assert 0 < result.disks["disk0"]["bytes_read"] < SIZE
    assert not list(disk.glob("h*"))


def test_a_server_that_is_stopped_before_the_start_is_noticed(disk, servers):
    uris = kit_pair(servers, disk)
    servers.signal("source", signal.SIGSTOP)
    begun = time.monotonic()
    result = move([DiskJob("disk0", *uris)], MoverOptions(stall_seconds=1))
    assert result.error["error_code"] == "EXPORT_FAILED"
    assert time.monotonic() - begun < 6


@pytest.mark.parametrize(("side", "code"), [("source", "SOURCE_VANISHED"), ("target", "EXPORT_FAILED")])
def test_a_killed_server_is_noticed_at_once(disk, servers, side, code):
    uris = kit_pair(servers, disk)
    options = MoverOptions(request_bytes=BLOCK, bandwidth_bytes_per_s=MIB)
    begun = time.monotonic()
    with WhenMoving(disk / "status", lambda: servers.signal(side, signal.SIGKILL)):
        result = move([DiskJob("disk0", *uris)], options, status_path=str(disk / "status"))
    assert (result.state, result.error["error_code"]) == ("failed", code), result.error
    assert time.monotonic() - begun < 5


def test_slow_is_not_dead(disk, servers):
    """Every request takes longer than a quarter of the watchdog; bytes keep moving."""
    uris = kit_pair(servers, disk, ["--filter=delay", "rdelay=300ms"], ["--filter=delay", "wdelay=300ms"])
    result = move([DiskJob("disk0", *uris)], MoverOptions(stall_seconds=1, prime_bytes=0))
    assert result.state == "done", result.error
    assert compare(disk / "source", disk / "target")


def test_a_throttled_line_is_not_dead(disk, servers):
    """32 Mbit/s: one request takes a quarter second, all four of them as long as the watchdog."""
    uris = kit_pair(servers, disk, ["--filter=rate", "rate=32M"])
    result = move([DiskJob("disk0", *uris)], MoverOptions(stall_seconds=1))
    assert result.state == "done", result.error
    assert compare(disk / "source", disk / "target")


def test_a_cap_below_the_watchdog_is_not_a_stall(disk, servers):
    """With a low cap nothing is asked for longer than the watchdog: nobody owes an answer."""
    uris = kit_pair(servers, disk)
    options = MoverOptions(request_bytes=4 * MIB, stall_seconds=0.7, bandwidth_bytes_per_s=4 * MIB)
    result = move([DiskJob("disk0", *uris)], options)
    assert result.state == "done", result.error
    assert compare(disk / "source", disk / "target")


@pytest.mark.parametrize("way", ["file", "request"])
def test_cancel(disk, servers, way):
    uris = kit_pair(servers, disk)
    stop = Stop()

    def cancel():
        if way == "file":
            (disk / "cancel").touch()
        else:
            stop.request(JobCancelledError("by hand"))

    begun = time.monotonic()
    with WhenMoving(disk / "status", cancel):
        result = move(
            [DiskJob("disk0", *uris, hashes_path=str(disk / "h"))],
            MoverOptions(request_bytes=BLOCK, bandwidth_bytes_per_s=MIB),
            status_path=str(disk / "status"),
            cancel_path=str(disk / "cancel"),
            stop=stop,
        )
    assert time.monotonic() - begun < 5
    assert (result.state, result.error["error_code"]) == ("cancelled", "JOB_CANCELLED")
    assert result.disks["disk0"]["state"] == "cancelled"
    assert read_status(str(disk / "status")) == result.document
    assert not list(disk.glob("h*"))


def test_cancel_while_a_server_hangs_in_the_handshake(disk, servers):
    uris = kit_pair(servers, disk)
    servers.signal("target", signal.SIGSTOP)
    (disk / "cancel").touch()
    begun = time.monotonic()
    result = move([DiskJob("disk0", *uris)], MoverOptions(), cancel_path=str(disk / "cancel"))
    assert result.state == "cancelled"
    assert time.monotonic() - begun < 10


def test_a_vanished_job_directory_ends_the_copy(disk, servers):
    uris = kit_pair(servers, disk)
    job = disk / "job"
    job.mkdir()

    def vanish():
        while True:  # the mover may be writing at this very moment
            try:
                for left in job.iterdir():
                    left.unlink(missing_ok=True)
                job.rmdir()
                return
            except OSError:
                continue

    options = MoverOptions(request_bytes=BLOCK, bandwidth_bytes_per_s=MIB)
    with WhenMoving(job / "status", vanish):
        result = move([DiskJob("disk0", *uris)], options, status_path=str(job / "status"))
    assert result.error["error_code"] == "JOB_ABANDONED"


@pytest.mark.parametrize(
    "uri",
    ["nbd+unix:///{name}?socket={directory}/absent.sock", "nbd://127.0.0.1:1/x"],
)
def test_a_missing_server_is_a_typed_error(tmp_path, uri):
    with pytest.raises(ExportFailedError):
        NbdConnection.open(parse_uri(uri.format(name="x", directory=tmp_path)), timeout_s=5)


def test_a_missing_export_is_a_typed_error(tmp_path, servers):
    create_qcow2(str(tmp_path / "image"), MIB)
    servers.qemu("right", chain(tmp_path / "image"))
    with pytest.raises(ExportFailedError) as caught:
        NbdConnection.open(parse_uri(f"nbd+unix:///wrong?socket={tmp_path}/right.sock"), timeout_s=5)
    assert "wrong" in caught.value.msg
