# Copyright: (c) 2026, Sendense contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The verifier on real exports: all that was changed is found, in both modes, and nothing else."""

from __future__ import annotations

import random
import signal
import threading

import pytest

from ansible_collections.sendense.platform.plugins.module_utils.datapath.blockhashes import BlockHashFile
from ansible_collections.sendense.platform.plugins.module_utils.datapath.images import create_qcow2, create_raw
from ansible_collections.sendense.platform.plugins.module_utils.datapath.loop import Stop
from ansible_collections.sendense.platform.plugins.module_utils.datapath.mover import move
from ansible_collections.sendense.platform.plugins.module_utils.datapath.mover_plan import DiskJob, MoverOptions
from ansible_collections.sendense.platform.plugins.module_utils.datapath.status import read_status
from ansible_collections.sendense.platform.plugins.module_utils.datapath.verifier import ALL, HELD, VerifyJob, verify
from ansible_collections.sendense.platform.plugins.module_utils.errors import JobCancelledError
from tests.integration.datapath.servers import BLOCK, MIB, bitmap, chain, compare, qemu_io, raw_file

SIZE = 9 * MIB + 3 * 512
BLOCKS = -(-SIZE // BLOCK)


@pytest.fixture
def point(tmp_path, servers):
    """A raw disk, copied in full to a raw file, with its hashes."""
    raw_file(tmp_path / "source", SIZE, seed=5, share=0.4)
    create_raw(str(tmp_path / "disk"), SIZE)
    job = DiskJob(
        "disk0",
        servers.kit("source", "-r", "file", str(tmp_path / "source")),
        servers.kit("target", "file", str(tmp_path / "disk")),
        hashes_path=str(tmp_path / "h"),
    )
    assert move([job], MoverOptions()).state == "done"
    servers.stop("target")
    assert compare(tmp_path / "source", tmp_path / "disk")
    return tmp_path


def check(servers, directory, mode, filters=(), **options):
    uri = servers.kit("read", "-r", *filters, "file", str(directory / "disk"))
    try:
        return verify([VerifyJob("disk0", uri, [str(directory / "h")], mode, SIZE)], MoverOptions(**options))
    finally:
        servers.stop("read")


def change(directory, offset, data):
    with open(directory / "disk", "r+b") as stream:
        stream.seek(offset)
        stream.write(data)


def held(directory):
    with BlockHashFile(str(directory / "h")) as hashes:
        return dict(hashes.held())


@pytest.mark.parametrize("filters", [(), ("--filter=noextents",)])
def test_what_is_right_is_found_right(point, servers, filters):
    for mode, blocks in ((HELD, len(held(point))), (ALL, BLOCKS)):
        result = check(servers, point, mode, filters)
        assert result.state == "done", result.error
        disk = result.disks["disk0"]
        assert (disk["ok"], disk["blocks_checked"], disk["mismatches"]) == (True, blocks, [])
    if filters:
        assert disk["bytes_read"] == SIZE


@pytest.mark.parametrize("filters", [(), ("--filter=noextents",)])
def test_every_flipped_block_is_named(point, servers, filters):
    blocks = held(point)
    data = [block for block, digest in blocks.items() if any(digest)]
    rng = random.Random(9)
    chosen = sorted(rng.sample(data[:-1], 5) + [data[-1]])
    for block in chosen:
        offset = block * BLOCK + rng.randrange(min(BLOCK, SIZE - block * BLOCK))
        with open(point / "disk", "rb") as stream:
            stream.seek(offset)
            old = stream.read(1)[0]
        change(point, offset, bytes([old ^ (1 << rng.randrange(8))]))
    for mode in (HELD, ALL):
        result = check(servers, point, mode, filters)
        assert (result.state, result.error["error_code"]) == ("failed", "VERIFICATION_FAILED")
        assert result.disks["disk0"]["mismatches"] == chosen
        assert result.disks["disk0"]["mismatch_count"] == len(chosen) and not result.disks["disk0"]["ok"]


def test_data_that_became_a_hole_is_found_without_reading(point, servers):
    block = next(block for block, digest in held(point).items() if any(digest))
    content = (point / "disk").read_bytes()
    create_raw(str(point / "new"), SIZE)
    (point / "new").replace(point / "disk")
    with open(point / "disk", "r+b") as stream:
        for other in range(BLOCKS):
            piece = content[other * BLOCK : (other + 1) * BLOCK]
            if other != block and any(piece):
                stream.seek(other * BLOCK)
                stream.write(piece)
    result = check(servers, point, HELD)
    assert result.disks["disk0"]["mismatches"] == [block]


def test_data_where_nothing_was_held_is_found_in_all(point, servers):
    blocks = held(point)
    hole = next(block for block in range(BLOCKS) if block not in blocks)
    zero = next(block for block, digest in blocks.items() if not any(digest))
    change(point, hole * BLOCK + 7, b"x")
    assert check(servers, point, HELD).state == "done"
    assert check(servers, point, ALL).disks["disk0"]["mismatches"] == [hole]
    change(point, zero * BLOCK + 7, b"x")
    assert check(servers, point, HELD).disks["disk0"]["mismatches"] == [zero]


def test_no_more_than_twenty_are_named_and_all_are_counted(point, servers):
    wrong = [block for block, digest in held(point).items() if any(digest)][:30]
    for block in wrong:
        with open(point / "disk", "rb") as stream:
            stream.seek(block * BLOCK)
            piece = stream.read(BLOCK)
        change(point, block * BLOCK, bytes(byte ^ 1 for byte in piece))
    disk = check(servers, point, HELD).disks["disk0"]
    assert disk["mismatches"] == wrong[:20] and disk["mismatch_count"] == len(wrong)


def test_a_chain_is_verified_as_a_whole_and_its_top_by_itself(tmp_path, servers):
    create_qcow2(str(tmp_path / "source"), SIZE)
    bitmap(tmp_path / "source", "add", "b0")
    layers = []
    for number, writes in enumerate((["write -P 1 0 4M"], ["write -P 2 1M 1M", "discard 3M 512k", f"write -P 3 {SIZE - 512} 512"])):
        qemu_io(tmp_path / "source", *writes)
        create_qcow2(str(tmp_path / f"l{number}"), SIZE, f"l{number - 1}" if number else None)
        layers.append(tmp_path / f"l{number}")
        job = DiskJob(
            "disk0",
            servers.qemu("source", chain(tmp_path / "source"), "-r", *(["--bitmap=b0"] if number else [])),
            servers.qemu("target", chain(*layers), "--discard=unmap"),
            level="incremental" if number else "full",
            changed_context="qemu:dirty-bitmap:b0" if number else "",
            hashes_path=str(tmp_path / f"h{number}"),
        )
        assert move([job], MoverOptions()).state == "done"
        servers.stop("source")
        servers.stop("target")
        bitmap(tmp_path / "source", "remove", "b0")
        bitmap(tmp_path / "source", "add", "b0")
    hashes = [str(tmp_path / "h0"), str(tmp_path / "h1")]
    uri = servers.qemu("read", chain(*layers), "-r")
    for mode, blocks in ((HELD, 16 + 8 + 1), (ALL, BLOCKS)):
        result = verify([VerifyJob("disk0", uri, hashes, mode)], MoverOptions())
        assert result.state == "done", result.error
        assert result.disks["disk0"]["blocks_checked"] == blocks
    servers.stop("read")
    qemu_io(tmp_path / "l0", "write -P 9 0 512")  # damage below the top
    uri = servers.qemu("read", chain(*layers), "-r")
    assert verify([VerifyJob("disk0", uri, hashes, HELD)], MoverOptions()).state == "done"
    assert verify([VerifyJob("disk0", uri, hashes, ALL)], MoverOptions()).disks["disk0"]["mismatches"] == [0]


def test_of_several_disks_each_is_judged_to_its_end(point, servers):
    """One damaged, one unreadable, one of another size, one with a damaged hash file, five right ones."""
    wrong = next(block for block, digest in held(point).items() if any(digest)) * BLOCK
    content = bytearray((point / "disk").read_bytes())
    content[wrong] ^= 1
    (point / "bad").write_bytes(content)
    (point / "short").write_bytes((point / "disk").read_bytes()[: SIZE - 512])
    (point / "damaged").write_bytes((point / "h").read_bytes()[:-1] + b"!")
    good, hashes = str(point / "disk"), str(point / "h")
    jobs = [
        VerifyJob("disk0", servers.kit("a", "-r", "file", str(point / "bad")), [hashes]),
        VerifyJob("disk1", servers.kit("b", "-r", "--filter=error", "file", good, "error-pread-rate=100%"), [hashes]),
        VerifyJob("disk2", servers.kit("c", "-r", "file", str(point / "short")), [hashes]),
        VerifyJob("disk3", servers.kit("d", "-r", "file", good), [str(point / "damaged")]),
    ]
    jobs += [VerifyJob(f"disk{number}", jobs[3].uri, [hashes], ALL) for number in range(4, 9)]
    result = verify(jobs, MoverOptions(threads=2, depth=16), status_path=str(point / "status"))
    codes = {key: disk["error"]["error_code"] if disk["error"] else "" for key, disk in result.disks.items()}
    assert codes == {
        "disk0": "VERIFICATION_FAILED",
        "disk1": "COPY_FAILED",
        "disk2": "POINT_DAMAGED",
        "disk3": "POINT_DAMAGED",
        **{f"disk{number}": "" for number in range(4, 9)},
    }
    assert result.state == "failed" and read_status(str(point / "status")) == result.document
    assert [disk["ok"] for disk in result.disks.values()] == [False] * 4 + [True] * 5


def test_a_disk_that_fails_gives_its_buffers_back(point, servers):
    """One thread: the first disk takes all buffers and fails; the second needs them."""
    words = ["file", str(point / "disk"), "error-pread-rate=100%", "rdelay=50ms"]
    bad = servers.kit("bad", "-r", "--filter=noextents", "--filter=error", "--filter=delay", *words)
    good = servers.kit("good", "-r", "--filter=noextents", "file", str(point / "disk"))
    jobs = [VerifyJob("disk0", bad, [str(point / "h")], ALL), VerifyJob("disk1", good, [str(point / "h")], ALL)]
    stop = Stop()
    limit = threading.Timer(10, stop.request, (JobCancelledError("took too long"),))
    limit.start()
    result = verify(jobs, MoverOptions(threads=1, depth=32, request_bytes=BLOCK), stop=stop)
    limit.cancel()
    limit.join()
    assert [result.disks[key]["state"] for key in ("disk0", "disk1")] == ["failed", "done"]


def test_a_stopped_server_is_noticed(point, servers):
    uri = servers.kit("read", "-r", "--filter=delay", "file", str(point / "disk"), "rdelay=100ms")
    servers.signal("read", signal.SIGSTOP)
    result = verify([VerifyJob("disk0", uri, [str(point / "h")])], MoverOptions(stall_seconds=1))
    assert result.state == "failed" and result.error["error_code"] == "EXPORT_FAILED"


def test_cancel(point, servers):
    (point / "cancel").touch()
    uri = servers.kit("read", "-r", "--filter=delay", "file", str(point / "disk"), "rdelay=100ms")
    result = verify([VerifyJob("disk0", uri, [str(point / "h")])], MoverOptions(), cancel_path=str(point / "cancel"))
    assert (result.state, result.disks["disk0"]["ok"]) == ("cancelled", False)
