# Copyright: (c) 2026, Sendense contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Audits on a real image with a real dirty bitmap, which is made to lie."""

from __future__ import annotations

import random
import signal
import subprocess
import time

import pytest

from ansible_collections.sendense.platform.plugins.module_utils.catalog.audit import walk
from ansible_collections.sendense.platform.plugins.module_utils.datapath import audit
from ansible_collections.sendense.platform.plugins.module_utils.datapath.blockhashes import BlockHashFile, BlockHashWriter, compose
from ansible_collections.sendense.platform.plugins.module_utils.datapath.extents import Run
from ansible_collections.sendense.platform.plugins.module_utils.datapath.images import create_qcow2
from ansible_collections.sendense.platform.plugins.module_utils.datapath.mover import move
from ansible_collections.sendense.platform.plugins.module_utils.datapath.mover_plan import DiskJob, MoverOptions
from tests.integration.datapath.servers import BLOCK, MIB, WhenMoving, bitmap, chain, qemu_io

SIZE = 9 * MIB + 3 * 512
BLOCKS = -(-SIZE // BLOCK)


class Machine:
    """A qcow2 disk with a bitmap per backup, and the chain of its backups."""

    def __init__(self, directory, servers, size=SIZE):
        self.directory, self.servers, self.size = directory, servers, size
        self.source = directory / "source"
        self.layers, self.hashes = [], []
        create_qcow2(str(self.source), size)
        bitmap(self.source, "add", "now")

    def write(self, *commands):
        qemu_io(self.source, *commands)

    def lie(self, *commands):
        """Write without the bitmap noticing: it is kept aside, and put back afterwards."""
        bitmap(self.source, "add", "kept")
        for action in (["--merge", "now"], ["--disable"]):
            subprocess.run(["qemu-img", "bitmap", *action, "-f", "qcow2", str(self.source), "kept"], check=True)
        self.write(*commands)
        bitmap(self.source, "remove", "now")
        bitmap(self.source, "add", "now")
        subprocess.run(["qemu-img", "bitmap", "--merge", "kept", "-f", "qcow2", str(self.source), "now"], check=True)
        bitmap(self.source, "remove", "kept")

    def sample(self, runs):
        """The file of what the chain says of these blocks."""
        layers = [BlockHashFile(path) for path in self.hashes]
        whole = compose(layers)
        for layer in layers:
            layer.close()
        path = str(self.directory / "audit")
        writer = BlockHashWriter(path, whole.algorithm, whole.disk_size, "incremental", runs)
        for position, (first, blocks) in zip(_positions(runs), runs, strict=True):
            writer.put(position, whole.digests(first, blocks))
        writer.finish()
        return path

    def backup(self, runs=None, keep=True, cancel="", status="", **options):
        """The next point; with runs an audit of these blocks. Without success, or without keep, nothing of it stays."""
        number = len(self.layers)
        layer = self.directory / f"l{number}"
        layer.unlink(missing_ok=True)
        create_qcow2(str(layer), self.size, f"l{number - 1}" if number else None)
        servers = self.servers
        job = DiskJob(
            "disk0",
            servers.qemu("source", chain(self.source), "-r", *(["--bitmap=now"] if number else [])),
            servers.qemu("target", chain(*self.layers, layer), "--discard=unmap"),
            level="incremental" if number else "full",
            changed_context="qemu:dirty-bitmap:now" if number else "",
            hashes_path=str(self.directory / f"h{number}"),
            audit_path=self.sample(runs) if runs is not None else "",
        )
        result = move([job], MoverOptions(**options), status, cancel)
        servers.stop("source")
        servers.stop("target")
        if result.state == "done" and keep:
            self.layers.append(layer)
            self.hashes.append(job.hashes_path)
            bitmap(self.source, "remove", "now")
            bitmap(self.source, "add", "now")
        return result


def _positions(runs):
    position = 0
    for run in runs:
        yield position
        position += run.blocks


ALL = [Run(0, BLOCKS)]


@pytest.fixture
def machine(tmp_path, servers):
    found = Machine(tmp_path, servers)
    found.write("write -P 1 0 4M", "write -P 2 5M 512k", f"write -P 3 {SIZE - 512} 512")
    assert found.backup().state == "done"
    return found


def test_an_audit_in_full_reads_what_is_not_copied_and_finds_nothing_in_an_honest_machine(machine):
    machine.write("write -P 9 1M 128k", "discard 2M 256k", "write -z 3M 64k")
    result = machine.backup(ALL)
    disk = result.disks["disk0"]
    assert (result.state, disk["audit"]["ok"], disk["audit"]["error"]) == ("done", True, None)
    assert disk["audit"]["blocks_checked"] == BLOCKS - 2 - 4 - 1
    assert disk["audit"]["bytes_read"] == 4 * MIB + 512 * 1024 + 3 * 512 - 7 * BLOCK
    assert disk["bytes_read"] == 2 * BLOCK
    assert result.document["bytes_done"] == result.document["bytes_total"]
    assert machine.backup(ALL).disks["disk0"]["audit"]["blocks_checked"] == BLOCKS


@pytest.mark.parametrize(
    ("commands", "block"),
    [
        (["write -P 7 1M 512"], 16),
        (["write -P 7 8M 512"], 128),  # a block that no layer holds
        (["discard 64k 64k"], 1),
        (["write -z 128k 64k"], 2),
        ([f"write -P 7 {SIZE - 512} 512"], BLOCKS - 1),
    ],
    ids=["data", "hole", "discard", "zeros", "short-end"],
)
def test_one_omitted_block_is_always_found_by_an_audit_in_full(machine, commands, block):
    machine.write("write -P 5 3M 64k")
    machine.lie(*commands)
    result = machine.backup(ALL)
    assert result.state == "failed" and result.error["error_code"] == "TRACKING_LIED"
    details = result.disks["disk0"]["error"]["details"]
    assert (details["mismatches"], details["count"], details["complete"]) == ([block], 1, True)
    assert result.disks["disk0"]["bytes_written"] == 0, "something was copied before the audit ended"
    assert machine.backup(ALL[:0], keep=False).state == "done"  # without the audit nobody would have known


def test_a_walk_finds_an_omitted_block_exactly_once_in_as_many_runs_as_it_needs(machine):
    share = 10
    count = -(-BLOCKS // share)
    machine.lie("write -P 7 1M 512")
    found = [machine.backup(walk(BLOCKS, count, turn, "m/d"), keep=False).state for turn in range(share)]
    assert found.count("failed") == 1 and found.count("done") == share - 1


def test_more_wrong_blocks_than_are_named_are_all_counted(tmp_path, servers):
    machine = Machine(tmp_path, servers, 80 * MIB)
    machine.write("write -P 1 0 1M")
    machine.backup()
    machine.lie("write -P 2 0 70M")
    details = machine.backup([Run(0, 1280)]).disks["disk0"]["error"]["details"]
    assert (details["count"], len(details["mismatches"]), details["complete"]) == (1120, 1000, False)
    assert details["mismatches"] == list(range(1000))


def test_thirty_rounds_of_random_writes_raise_no_false_alarm(tmp_path, servers):
    rng = random.Random(11)
    machine = Machine(tmp_path, servers, 3 * MIB + 512)
    blocks = -(-machine.size // BLOCK)
    machine.write("write -P 1 0 2M")
    assert machine.backup().state == "done"
    for number in range(30):
        commands = []
        for _write in range(rng.randrange(4)):
            length = min(rng.choice([512, 1024, 4096, 65536, 65536 + 512, 200_192]), machine.size)
            offset = rng.randrange((machine.size - length) // 512 + 1) * 512
            kind = rng.choice(["write -P 0", "write -P 77", "write -z", "write -z -u", "discard"])
            commands.append(f"{kind} {offset} {length}")
        if commands:
            machine.write(*commands)
        runs = [Run(0, blocks)] if number % 2 else walk(blocks, 10, number, "m/d")
        result = machine.backup(runs)
        assert result.state == "done" and result.disks["disk0"]["audit"]["ok"], (number, commands, result.error)


def test_an_audit_respects_the_bandwidth_cap_and_cancel(machine):
    capped = machine.backup(ALL, bandwidth_bytes_per_s=3 * MIB, keep=False)
    assert capped.state == "done" and capped.disks["disk0"]["audit"]["seconds"] > 0.8
    cancel = machine.directory / "cancel"
    cancel.touch()
    result = machine.backup(ALL, cancel=str(cancel), bandwidth_bytes_per_s=MIB)
    assert result.state == "cancelled" and result.disks["disk0"]["state"] == "cancelled"


def test_an_audit_that_cannot_be_made_is_reported_and_the_copy_goes_on(machine):
    sample = machine.sample(ALL)
    with open(sample, "r+b") as stream:
        stream.seek(-1, 2)
        stream.write(b"!")
    machine.sample = lambda runs: sample
    result = machine.backup(ALL)
    audit = result.disks["disk0"]["audit"]
    assert result.state == "done"
    assert (audit["ok"], audit["error"]["error_code"]) == (False, "POINT_DAMAGED")


def test_a_source_that_hangs_ends_the_job_once_and_not_twice(machine, servers):
    started = time.monotonic()
    with WhenMoving(machine.directory / "status", lambda: servers.signal("source", signal.SIGSTOP)):
        result = machine.backup(ALL, status=str(machine.directory / "status"), stall_seconds=2, bandwidth_bytes_per_s=2 * MIB)
    assert (result.state, result.error["error_code"]) == ("failed", "COPY_STALLED")
    assert result.disks["disk0"]["bytes_written"] == 0
    assert time.monotonic() - started < 8


@pytest.mark.parametrize("at_once", [2, 1])
def test_of_two_disks_both_lies_are_found(machine, tmp_path, servers, monkeypatch, at_once):
    """At once, or one after the other where the server has no more connections left."""
    monkeypatch.setattr(audit, "spare_connections", lambda jobs: at_once)
    (tmp_path / "other").mkdir()
    other = Machine(tmp_path / "other", servers)
    other.write("write -P 1 0 1M")
    other.backup()
    jobs = []
    for key, one in (("disk0", machine), ("disk1", other)):
        one.lie("write -P 99 0 64k")
        layer = one.directory / "next"
        create_qcow2(str(layer), one.size, "l0")
        source = servers.qemu(f"s{key}", chain(one.source), "-r", "--bitmap=now")
        target = servers.qemu(f"t{key}", chain(*one.layers, layer))
        hashes = str(one.directory / "hn")
        jobs.append(DiskJob(key, source, target, "incremental", "qemu:dirty-bitmap:now", 1, one.size, hashes, one.sample(ALL)))
    result = move(jobs, MoverOptions())
    assert [disk["error"]["error_code"] for disk in result.disks.values()] == ["TRACKING_LIED"] * 2
