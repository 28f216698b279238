# Copyright: (c) 2026, Sendense contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Incrementals by real dirty bitmaps: overwrites, zeros and trims, judged by qemu-img compare after every round."""

from __future__ import annotations

import random
import subprocess

import pytest

from ansible_collections.sendense.platform.plugins.module_utils.datapath.blockhashes import BlockHashFile, compose
from ansible_collections.sendense.platform.plugins.module_utils.datapath.images import create_qcow2, create_raw
from ansible_collections.sendense.platform.plugins.module_utils.datapath.mover import move
from ansible_collections.sendense.platform.plugins.module_utils.datapath.mover_plan import DiskJob, MoverOptions
from tests.integration.datapath.servers import BLOCK, MIB, bitmap, chain, compare, qemu_io, raw_file

SIZE = 20 * MIB + 3 * 512


@pytest.fixture
def source(tmp_path):
    """A qcow2 disk with random content, some zeros and some holes."""
    raw = raw_file(tmp_path / "seed", SIZE, seed=1)
    path = tmp_path / "source"
    subprocess.run(["qemu-img", "convert", "-f", "raw", "-O", "qcow2", str(raw), str(path)], check=True)
    return path


def run(tmp_path, servers, source, level, layers, name, export="source", options=None, bitmap_name=None):
    """One copy into a new layer over ``layers``; returns the result."""
    directory = tmp_path / name
    directory.mkdir()
    create_qcow2(str(directory / "disk0.qcow2"), SIZE, f"../{layers[-1].parent.name}/disk0.qcow2" if layers else None)
    served = [f"--bitmap={bitmap_name}"] if bitmap_name else []
    job = DiskJob(
        "disk0",
        servers.qemu(export, chain(source), "-r", *served),
        servers.qemu("target", chain(*layers, directory / "disk0.qcow2"), "--discard=unmap"),
        level=level,
        changed_context=f"qemu:dirty-bitmap:{bitmap_name}" if bitmap_name else "",
        size_bytes=SIZE,
        hashes_path=str(directory / "disk0.hashes"),
    )
    try:
        return move([job], options or MoverOptions(stall_seconds=20))
    finally:
        servers.stop(export)
        servers.stop("target")


def guest_writes(source, rng):
    """A handful of writes anywhere, of all kinds, at least one of them across the short last block now and then."""
    commands = []
    for _number in range(rng.randrange(1, 8)):
        offset = rng.randrange(SIZE // 512) * 512
        length = min(rng.choice([512, 4096, BLOCK, 5 * BLOCK, 2 * MIB]), SIZE - offset)
        kind = rng.choice(["write -P {fill}", "write -P {fill}", "write -z", "write -z -u", "write -P 0", "discard"])
        commands.append(f"{kind.format(fill=rng.randrange(1, 256))} {offset} {length}")
    if rng.random() < 0.5:
        commands.append(f"write -P {rng.randrange(1, 256)} {SIZE - 512} 512")
    qemu_io(source, *commands)


@pytest.mark.parametrize("seed", [1, 2])
def test_rounds_of_random_writes(tmp_path, servers, source, seed):
    """Every point of a chain is identical to the disk at its time, and its root is the root of a full at that time."""
    rng = random.Random(seed)
    bitmap(source, "add", "b0")
    layers = []
    assert run(tmp_path, servers, source, "full", layers, "p0").state == "done"
    layers.append(tmp_path / "p0" / "disk0.qcow2")
    for number in range(1, 5):
        guest_writes(source, rng)
        result = run(tmp_path, servers, source, "incremental", layers, f"p{number}", bitmap_name=f"b{number - 1}")
        assert result.state == "done", result.error
        layers.append(tmp_path / f"p{number}" / "disk0.qcow2")
        assert compare(chain(source), chain(*layers)), f"seed {seed}, round {number}"
        bitmap(source, "add", f"b{number}")
        bitmap(source, "remove", f"b{number - 1}")
    hashes = [BlockHashFile(str(layer.parent / "disk0.hashes")) for layer in layers]
    assert run(tmp_path, servers, source, "full", [], "again").state == "done"
    with BlockHashFile(str(tmp_path / "again" / "disk0.hashes")) as again:
        assert compose(hashes).root() == compose([again]).root()
    for one in hashes:
        one.close()


def prepared(tmp_path, servers, source):
    bitmap(source, "add", "b0")
    assert run(tmp_path, servers, source, "full", [], "p0").state == "done"
    return [tmp_path / "p0" / "disk0.qcow2"]


def test_nothing_changed_reads_nothing(tmp_path, servers, source):
    layers = prepared(tmp_path, servers, source)
    result = run(tmp_path, servers, source, "incremental", layers, "p1", bitmap_name="b0")
    assert result.state == "done"
    assert result.disks["disk0"]["bytes_total"] == result.disks["disk0"]["bytes_read"] == 0
    assert compare(chain(source), chain(*layers, tmp_path / "p1" / "disk0.qcow2"))


def test_a_change_to_zeros_is_written_as_zeros_and_hides_the_parent(tmp_path, servers, source):
    qemu_io(source, "write -P 5 0 4M")
    layers = prepared(tmp_path, servers, source)
    qemu_io(source, "discard 1M 1M", "write -P 0 2M 1M")
    result = run(tmp_path, servers, source, "incremental", layers, "p1", bitmap_name="b0")
    disk = result.disks["disk0"]
    assert (disk["bytes_zeroed"], disk["bytes_written"]) == (2 * MIB, 0)
    assert disk["bytes_read"] == MIB, "trimmed blocks are not read, written zeros are"
    assert compare(chain(source), chain(*layers, tmp_path / "p1" / "disk0.qcow2"))
    with BlockHashFile(disk["hashes"]) as hashes:
        assert {digest for _block, digest in hashes.held()} == {bytes(16)}


def test_a_small_change_reads_little(tmp_path, servers, source):
    layers = prepared(tmp_path, servers, source)
    qemu_io(source, "write -P 9 5M 512")
    result = run(tmp_path, servers, source, "incremental", layers, "p1", bitmap_name="b0")
    assert result.disks["disk0"]["bytes_read"] == BLOCK


def test_a_source_without_the_bitmap_is_an_error_before_anything_is_written(tmp_path, servers, source):
    create_qcow2(str(tmp_path / "target"), SIZE)
    before = (tmp_path / "target").read_bytes()
    job = DiskJob(
        "disk0",
        servers.qemu("source", chain(source), "-r"),
        servers.qemu("target", chain(tmp_path / "target")),
        level="incremental",
        changed_context="qemu:dirty-bitmap:b0",
        hashes_path=str(tmp_path / "h"),
    )
    result = move([job], MoverOptions())
    servers.stop("target")
    assert (result.state, result.error["error_code"], result.error["retryable"]) == ("failed", "EXPORT_FAILED", False)
    assert (tmp_path / "target").read_bytes() == before
    assert not list(tmp_path.glob("h*"))


ZERO_TROUBLE = {
    "refuses zeros": ["--filter=nozero", "file", "{path}"],
    "fails zeros": ["--filter=error", "file", "{path}", "error-zero=EINVAL", "error-zero-rate=100%"],
    "emulates zeros": ["--filter=nozero", "file", "{path}", "zeromode=emulate"],
}


@pytest.mark.parametrize("trouble", sorted(ZERO_TROUBLE))
def test_targets_that_cannot_write_zeros_receive_them(tmp_path, servers, source, trouble):
    """The target holds old data everywhere; zeros of the incremental must overwrite it."""
    target = tmp_path / "target"
    subprocess.run(["qemu-img", "convert", "-f", "qcow2", "-O", "raw", str(source), str(target)], check=True)
    bitmap(source, "add", "b0")
    qemu_io(source, "discard 0 9M", "write -P 0 12M 1M", f"write -z {SIZE - _last_block()} {_last_block()}")
    job = DiskJob(
        "disk0",
        servers.qemu("source", chain(source), "-r", "--bitmap=b0"),
        servers.kit("target", *[word.format(path=target) for word in ZERO_TROUBLE[trouble]]),
        level="incremental",
        changed_context="qemu:dirty-bitmap:b0",
    )
    result = move([job], MoverOptions(request_bytes=256 << 10))
    assert result.state == "done", result.error
    assert result.disks["disk0"]["bytes_zeroed"] == 10 * MIB + _last_block()
    servers.stop("target")
    assert compare(chain(source), target)


def test_a_target_that_fails_to_write_zeros_fails_the_copy(tmp_path, servers, source):
    """Cannot is not the same as failed: an I/O error is not worked around."""
    bitmap(source, "add", "b0")
    qemu_io(source, "discard 0 1M")
    create_raw(str(tmp_path / "target"), SIZE)
    job = DiskJob(
        "disk0",
        servers.qemu("source", chain(source), "-r", "--bitmap=b0"),
        servers.kit("target", "--filter=error", "file", str(tmp_path / "target"), "error-zero=EIO", "error-zero-rate=100%"),
        level="incremental",
        changed_context="qemu:dirty-bitmap:b0",
    )
    result = move([job], MoverOptions())
    assert (result.state, result.error["error_code"], result.error["details"]["errno"]) == ("failed", "COPY_FAILED", "EIO")


def _last_block():
    return SIZE - SIZE // BLOCK * BLOCK


def test_a_short_write_at_the_end_of_a_raw_target(tmp_path, servers, source):
    """The last block is short: nothing is written beyond the end."""
    create_raw(str(tmp_path / "target"), SIZE)
    job = DiskJob("disk0", servers.qemu("source", chain(source), "-r"), servers.kit("target", "file", str(tmp_path / "target")))
    assert move([job], MoverOptions()).state == "done"
    assert (tmp_path / "target").stat().st_size == SIZE
    assert compare(chain(source), tmp_path / "target")
