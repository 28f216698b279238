# Copyright: (c) 2026, Sendense contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A large disk of a near server is read over two connections, unless the server does not want that."""

from __future__ import annotations

import re
import signal
import time

import pytest

from ansible_collections.sendense.platform.plugins.module_utils.datapath import transfer
from ansible_collections.sendense.platform.plugins.module_utils.datapath.images import create_raw
from ansible_collections.sendense.platform.plugins.module_utils.datapath.mover import move
from ansible_collections.sendense.platform.plugins.module_utils.datapath.mover_plan import DiskJob, MoverOptions
from ansible_collections.sendense.platform.plugins.module_utils.datapath.nbd_handle import NbdConnection
from ansible_collections.sendense.platform.plugins.module_utils.datapath.targets import parse_uri
from tests.integration.datapath.servers import MIB, WhenMoving, compare, raw_file

SIZE = 24 * MIB
#: Priming is for large copies; with so little of it a small one is large enough.
OPTIONS = MoverOptions(prime_bytes=1 * MIB, stall_seconds=20)


@pytest.fixture
def disk(tmp_path, servers):
    """The source file, and the URI of an empty target of its size with its file."""
    source = raw_file(tmp_path / "source", SIZE, seed=5, share=1.0)
    create_raw(str(tmp_path / "target"), SIZE)
    return source, servers.qemu("target", tmp_path / "target"), tmp_path / "target"


def readers(log):
    """The connections over which nbdkit was asked for data of the copy, each with how often."""
    found = re.findall(r"connection=(\d+) Read .*count=0x100000 ", log.read_text())
    return {name: found.count(name) for name in set(found)}


def test_both_connections_carry_their_share(tmp_path, servers, disk):
    source, target, image = disk
    uri = servers.kit("source", "--readonly", "--filter=log", "file", str(source), f"logfile={tmp_path / 'log'}")
    result = move([DiskJob("disk0", uri, target, hashes_path=str(tmp_path / "h"))], OPTIONS)
    assert result.state == "done", result.error
    assert compare(source, image)
    assert result.disks["disk0"]["connections"] == 2
    shares = readers(tmp_path / "log")
    assert len(shares) == 2 and min(shares.values()) >= 6, shares


def test_many_disks_share_the_connections_of_their_server(tmp_path, servers, disk, monkeypatch):
    source, target, image = disk
    monkeypatch.setattr(transfer, "WIDE_DISKS", 0)
    result = move([DiskJob("disk0", servers.pull("pull", source, 1)[0], target)], OPTIONS)
    assert result.state == "done" and result.disks["disk0"]["connections"] == 1
    assert compare(source, image)


def test_a_server_of_one_client_is_read_over_one(servers, disk):
    source, target, image = disk
    result = move([DiskJob("disk0", servers.qemu("source", source, "--read-only", "--shared=1"), target)], OPTIONS)
    assert result.state == "done", result.error
    assert result.disks["disk0"]["connections"] == 1
    assert compare(source, image)


def test_a_server_that_has_no_room_left_is_not_waited_for(servers, disk):
    """It promises two clients; the other one is somebody else."""
    source, target, image = disk
    uri = servers.qemu("source", source, "--read-only", "--shared=2")
    other = NbdConnection.open(parse_uri(uri))
    try:
        began = time.monotonic()
        result = move([DiskJob("disk0", uri, target)], OPTIONS)
        took = time.monotonic() - began
    finally:
        other.close()
    assert result.state == "done", result.error
    assert result.disks["disk0"]["connections"] == 1
    assert transfer.WIDE_SECONDS <= took < OPTIONS.stall_seconds
    assert compare(source, image)


def test_a_copy_ends_when_the_server_goes_away_under_both(tmp_path, servers, disk):
    """Slowed down, so that it is killed in the middle: the error is the source's, and no hash file is left."""
    source, target, _image = disk
    uri = servers.kit("source", "--readonly", "--filter=delay", "file", str(source), "rdelay=100ms")
    status = tmp_path / "status"
    options = MoverOptions(prime_bytes=1 * MIB, depth=2, stall_seconds=20)
    with WhenMoving(status, lambda: servers.signal("source", signal.SIGKILL)):
        result = move([DiskJob("disk0", uri, target, hashes_path=str(tmp_path / "h"))], options, str(status))
    assert result.disks["disk0"]["connections"] == 2
    assert result.state == "failed", result.disks
    assert result.error["error_code"] == "SOURCE_VANISHED"
    assert not (tmp_path / "h").exists() and not (tmp_path / "h.partial").exists()


@pytest.mark.parametrize(("side", "code"), [("source", "SOURCE_VANISHED"), ("target", "EXPORT_FAILED")])
def test_a_server_that_dies_while_it_is_measured_went_away(tmp_path, servers, disk, side, code):
    """It is killed by its first read, which belongs to no copy yet: the error is that of a lost server, not of a defect."""
    source, target, image = disk
    deadly = servers.kit("deadly", "eval", f"get_size=echo {SIZE}", "can_write=exit 0", "can_flush=exit 0", "pread=kill -KILL $PPID")
    uris = (deadly, target) if side == "source" else (servers.qemu("source", source, "--read-only"), deadly)
    result = move([DiskJob("disk0", *uris, hashes_path=str(tmp_path / "h"))], OPTIONS)
    assert (result.state, result.error["error_code"]) == ("failed", code), result.error
    assert result.error["details"]["role"] == side and result.error["retryable"]
    assert image.read_bytes() == bytes(SIZE) and not list(tmp_path.glob("h*"))
