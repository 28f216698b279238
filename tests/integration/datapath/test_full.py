# Copyright: (c) 2026, Sendense contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Full copies between real servers, judged by qemu-img compare and never by our own reader."""

from __future__ import annotations

import os
import subprocess
import threading
import time

import pytest

from ansible_collections.sendense.platform.plugins.module_utils.datapath.blockhashes import BlockHashFile, compose
from ansible_collections.sendense.platform.plugins.module_utils.datapath.images import create_qcow2, create_raw
from ansible_collections.sendense.platform.plugins.module_utils.datapath.mover import move
from ansible_collections.sendense.platform.plugins.module_utils.datapath.mover_plan import DiskJob, MoverOptions
from ansible_collections.sendense.platform.plugins.module_utils.datapath.status import read_status
from tests.integration.datapath.servers import BLOCK, MIB, chain, compare, free_port, raw_file


def copy(tmp_path, source, target, options=None, **job):
    return move([DiskJob("disk0", source, target, hashes_path=str(tmp_path / "h"), **job)], options or MoverOptions(stall_seconds=20))


@pytest.mark.parametrize("size", [512, BLOCK - 512, BLOCK, BLOCK + 512, 5 * MIB + 7 * 512, 24 * MIB])
@pytest.mark.parametrize("algorithm", ["xxh3_128", "sha256"])
def test_any_size_is_copied_exactly(tmp_path, servers, size, algorithm):
    source = raw_file(tmp_path / "source", size, seed=size)
    create_qcow2(str(tmp_path / "target"), size)
    target = servers.qemu("target", chain(tmp_path / "target"))
    result = copy(tmp_path, servers.qemu("source", source, "-r"), target, MoverOptions(hash_algorithm=algorithm), size_bytes=size)
    assert result.state == "done", result.error
    servers.stop("target")
    assert compare(source, chain(tmp_path / "target"))
    disk = result.disks["disk0"]
    assert disk["bytes_done"] == disk["bytes_total"] == disk["bytes_read"] <= size
    with BlockHashFile(disk["hashes"]) as hashes:
        assert (hashes.header.disk_size, hashes.header.algorithm, hashes.header.level) == (size, algorithm, "full")


def test_holes_and_zeros_are_not_stored(tmp_path, servers):
    source = tmp_path / "source"
    with open(source, "wb") as stream:
        stream.truncate(64 * MIB)
        stream.seek(10 * MIB)
        stream.write(b"x" * 100 + bytes(4 * MIB))
    create_qcow2(str(tmp_path / "target"), 64 * MIB)
    target = servers.qemu("target", chain(tmp_path / "target"))
    result = copy(tmp_path, servers.qemu("source", source, "-r"), target)
    servers.stop("target")
    assert compare(source, chain(tmp_path / "target"))
    assert result.disks["disk0"]["bytes_written"] == BLOCK
    assert result.disks["disk0"]["bytes_read"] <= 5 * MIB
    assert (tmp_path / "target").stat().st_size < MIB


def test_the_root_is_of_the_content_whatever_the_source_knows(tmp_path, servers):
    """A source that reports no allocation at all leads to the same root and the same disk."""
    source = raw_file(tmp_path / "source", 6 * MIB + 512, seed=3)
    roots = set()
    for name, filters in (("plain", []), ("blind", ["--filter=noextents"])):
        uri = servers.kit(name, "-r", *filters, "file", str(source))
        create_raw(str(tmp_path / f"{name}.raw"), 6 * MIB + 512)
        target = servers.kit(f"{name}-target", "file", str(tmp_path / f"{name}.raw"))
        result = move([DiskJob("disk0", uri, target, hashes_path=str(tmp_path / name))], MoverOptions())
        assert result.state == "done", result.error
        assert compare(source, tmp_path / f"{name}.raw")
        with BlockHashFile(str(tmp_path / name)) as layer:
            roots.add(compose([layer]).root())
    assert result.disks["disk0"]["bytes_read"] == 6 * MIB + 512
    assert len(roots) == 1


def test_a_disk_of_eleven_gib_with_holes_beyond_four(tmp_path, servers):
    size = 11 << 30
    source = servers.kit("source", "memory", str(size))
    for offset in (0, 5 << 30, (9 << 30) + 12345, size - 512):
        subprocess.run(["qemu-io", "-f", "raw", "-c", f"write -P 7 {offset // 512 * 512} 512", source], check=True, capture_output=True)
    create_qcow2(str(tmp_path / "target"), size)
    target = servers.qemu("target", chain(tmp_path / "target"))
    result = copy(tmp_path, source, target)
    assert result.state == "done", result.error
    assert result.disks["disk0"]["bytes_written"] == 4 * BLOCK
    servers.stop("target")
    assert compare(source, chain(tmp_path / "target"))


def test_primed_and_large(tmp_path, servers):
    """Enough data for the priming read, over TCP, with several borders of requests."""
    source = raw_file(tmp_path / "source", 160 * MIB, seed=11, share=0.7)
    port = free_port()
    create_raw(str(tmp_path / "target"), 160 * MIB)
    servers.kit("unused", "file", str(tmp_path / "target"))
    argv = ["nbdkit", "--foreground", "--ipaddr", "127.0.0.1", "--port", str(port), "-r", "file", str(source)]
    process = subprocess.Popen(argv)
    try:
        limit = time.monotonic() + 10
        while subprocess.run(["nbdinfo", "--size", f"nbd://127.0.0.1:{port}/x"], capture_output=True).returncode:
            assert time.monotonic() < limit
        target = f"nbd+unix:///unused?socket={tmp_path}/unused.sock"
        result = copy(tmp_path, f"nbd://127.0.0.1:{port}/x", target, MoverOptions(prime_bytes=16 * MIB))
    finally:
        process.terminate()
        process.wait(10)
    assert result.state == "done", result.error
    assert compare(source, tmp_path / "target")


@pytest.mark.parametrize("request_bytes", [BLOCK, 3 * BLOCK, 4 * MIB])
def test_servers_with_narrow_limits_are_respected(tmp_path, servers, request_bytes):
    """Every request must be aligned to 4096 and at most 256 KiB, or this server refuses it."""
    policy = ["--filter=blocksize-policy"]
    limits = ["blocksize-error-policy=error", "blocksize-minimum=4096", "blocksize-preferred=4096", "blocksize-maximum=256K"]
    source = raw_file(tmp_path / "source", 3 * MIB + 4096, seed=4)
    create_raw(str(tmp_path / "target"), 3 * MIB + 4096)
    result = copy(
        tmp_path,
        servers.kit("source", "-r", *policy, "file", str(source), *limits),
        servers.kit("target", *policy, "file", str(tmp_path / "target"), *limits),
        MoverOptions(request_bytes=request_bytes),
    )
    assert result.state == "done", result.error
    assert compare(source, tmp_path / "target")


def test_a_short_last_block_below_the_alignment_of_the_server(tmp_path, servers):
    """A disk of an odd size on storage with large sectors: its end cannot be aligned."""
    limits = ["blocksize-minimum=4096", "blocksize-preferred=4096", "blocksize-maximum=32M"]
    source = raw_file(tmp_path / "source", 3 * MIB + 512, seed=4, share=1.0)
    create_raw(str(tmp_path / "target"), 3 * MIB + 512)
    result = copy(
        tmp_path,
        servers.kit("source", "-r", "--filter=blocksize-policy", "file", str(source), *limits),
        servers.kit("target", "--filter=blocksize-policy", "file", str(tmp_path / "target"), *limits),
    )
    assert result.state == "done", result.error
    assert compare(source, tmp_path / "target")


def test_a_server_that_takes_less_than_a_block_is_refused(tmp_path, servers):
    source = raw_file(tmp_path / "source", MIB, seed=4)
    limits = ["blocksize-minimum=512", "blocksize-preferred=4096", "blocksize-maximum=32K"]
    create_raw(str(tmp_path / "target"), MIB)
    result = copy(
        tmp_path,
        servers.kit("source", "-r", "--filter=blocksize-policy", "file", str(source), *limits),
        servers.kit("target", "file", str(tmp_path / "target")),
    )
    assert result.error["error_code"] == "EXPORT_FAILED" and result.error["details"]["maximum"] == 32768


def test_nine_disks_move_at_once_below_the_cap(tmp_path, servers):
    """A cap over all disks holds, and while it lasts every one of nine disks is seen in motion."""
    jobs = []
    for index in range(9):
        source = raw_file(tmp_path / f"s{index}", 2 * MIB + 512, seed=index, share=1.0)
        create_qcow2(str(tmp_path / f"t{index}"), 2 * MIB + 512)
        jobs.append(
            DiskJob(
                f"disk{index}",
                servers.qemu(f"source{index}", source, "-r"),
                servers.qemu(f"target{index}", chain(tmp_path / f"t{index}")),
                hashes_path=str(tmp_path / f"h{index}"),
            )
        )
    status, seen = str(tmp_path / "status"), []
    ended = threading.Event()

    def look():
        while not ended.wait(0.02):
            document = read_status(status)
            if document:
                seen.append(document)

    watcher = threading.Thread(target=look)
    watcher.start()
    begun = time.monotonic()
    try:
        result = move(jobs, MoverOptions(bandwidth_bytes_per_s=12 * MIB, request_bytes=256 << 10), status_path=status)
    finally:
        ended.set()
        watcher.join()
    seconds = time.monotonic() - begun
    assert result.state == "done", result.error
    assert 18 / 12 - 0.4 < seconds < 15
    moving = [sum(0 < disk["bytes_done"] < disk["bytes_total"] for disk in one["disks"].values()) for one in seen]
    assert max(moving) == 9, moving
    assert any(one["rate"] > 0 and one["eta_s"] for one in seen if one["state"] == "running")
    assert read_status(status)["state"] == "done"
    for index in range(9):
        servers.stop(f"target{index}")
        assert compare(tmp_path / f"s{index}", chain(tmp_path / f"t{index}"))


def test_more_disks_than_buffers(tmp_path, servers):
    """One thread, ten deep disks: they share the slots of the thread and all finish."""
    jobs = []
    for index in range(4):
        source = raw_file(tmp_path / f"s{index}", 8 * MIB, seed=index, share=0.9)
        create_raw(str(tmp_path / f"t{index}"), 8 * MIB)
        target = servers.kit(f"target{index}", "file", str(tmp_path / f"t{index}"))
        jobs.append(DiskJob(f"disk{index}", servers.kit(f"source{index}", "-r", "file", str(source)), target))
    result = move(jobs, MoverOptions(threads=1, depth=20, request_bytes=BLOCK))
    assert result.state == "done", result.error
    for index in range(4):
        assert compare(tmp_path / f"s{index}", tmp_path / f"t{index}")


def test_a_raw_disk_that_looks_like_qcow2_stays_raw(tmp_path, servers):
    create_qcow2(str(tmp_path / "source"), MIB)
    size = -(-(tmp_path / "source").stat().st_size // 512) * 512
    os.truncate(tmp_path / "source", size)
    create_raw(str(tmp_path / "target"), size)
    result = copy(tmp_path, servers.qemu("source", tmp_path / "source", "-r"), servers.qemu("target", tmp_path / "target"))
    assert result.state == "done", result.error
    assert (tmp_path / "source").read_bytes() == (tmp_path / "target").read_bytes()
