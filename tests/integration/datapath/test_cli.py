# Copyright: (c) 2026, Sendense contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Mover and verifier as processes: arguments, exit codes, signals, the final document."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time

import pytest

from ansible_collections.sendense.platform.plugins.module_utils.datapath.images import create_raw
from ansible_collections.sendense.platform.plugins.module_utils.datapath.status import read_status
from tests.integration.datapath.servers import MIB, compare, free_port, last_json, raw_file

PACKAGE = "ansible_collections.sendense.platform.plugins.module_utils.datapath"
SIZE = 4 * MIB + 512


def command(program, *words):
    code = f"import sys; from {PACKAGE}.{program}_cli import main; sys.exit(main(sys.argv[1:]))"
    return [sys.executable, "-c", code, *map(str, words)]


def run(program, *words, **options):
    environment = {**os.environ, "PYTHONPATH": "collections"}
    return subprocess.run(command(program, *words), capture_output=True, text=True, env=environment, timeout=60, **options)


@pytest.fixture
def disks(tmp_path, servers):
    """Two sources on sockets; the names of two targets."""
    sources = []
    for index in range(2):
        raw_file(tmp_path / f"s{index}", SIZE, seed=index)
        create_raw(str(tmp_path / f"t{index}"), SIZE)
        sources.append(f"disk{index}:" + servers.kit(f"s{index}", "-r", "file", str(tmp_path / f"s{index}")))
    return ",".join(sources)


def test_people_name_sources_and_targets(tmp_path, servers, disks):
    targets = ",".join(f"disk{i}:" + servers.kit(f"t{i}", "file", str(tmp_path / f"t{i}")) for i in (1, 0))
    (tmp_path / "hashes").mkdir()
    words = ["--nbd-sources", disks, "--nbd-targets", targets, "--hash-dir", tmp_path / "hashes", "--request-bytes", "256K", "--depth", "2"]
    done = run("mover", *words, "--status", tmp_path / "status", "--max-rate", "1G", "--hash-algorithm", "sha256")
    assert done.returncode == 0, done.stdout + done.stderr
    document = last_json(done.stdout)
    assert document == read_status(str(tmp_path / "status"))
    assert set(document["disks"]) == {"disk0", "disk1"}
    for index in range(2):
        assert compare(tmp_path / f"s{index}", tmp_path / f"t{index}")
        assert document["disks"][f"disk{index}"]["hashes"] == str(tmp_path / "hashes" / f"disk{index}.hashes")
    plan = {
        "disks": [
            {"key": f"disk{i}", "uri": disks.split(",")[i][6:], "hashes": [str(tmp_path / "hashes" / f"disk{i}.hashes")], "mode": "all"}
            for i in range(2)
        ]
    }
    (tmp_path / "plan").write_text(json.dumps(plan))
    assert run("verifier", "--plan", tmp_path / "plan").returncode == 0
    plan["disks"][0]["uri"], plan["disks"][1]["uri"] = plan["disks"][1]["uri"], plan["disks"][0]["uri"]
    (tmp_path / "plan").write_text(json.dumps(plan))
    swapped = run("verifier", "--plan", tmp_path / "plan")
    assert swapped.returncode == 1 and last_json(swapped.stdout)["error"]["error_code"] == "VERIFICATION_FAILED"


def test_targets_by_host_and_port_are_named_after_the_disk(tmp_path, servers, disks):
    port = free_port()
    source = disks.split(",")[0]
    argv = ["qemu-nbd", "--persistent", "-f", "raw", "-b", "127.0.0.1", "-p", str(port), "-x", "disk0", "--shared=10", str(tmp_path / "t0")]
    process = subprocess.Popen(argv)
    try:
        limit = time.monotonic() + 10
        while subprocess.run(["nbdinfo", "--size", f"nbd://127.0.0.1:{port}/disk0"], capture_output=True).returncode:
            assert time.monotonic() < limit
        done = run("mover", "--nbd-sources", source, "--nbd-port", port)
        assert done.returncode == 0, done.stdout
    finally:
        process.terminate()
        process.wait(10)
    assert compare(tmp_path / "s0", tmp_path / "t0")


@pytest.mark.parametrize(
    "words",
    [
        [],
        ["--plan", "/nonexistent"],
        ["--nbd-targets", "disk0:nbd://h/x"],
        ["--nbd-sources", "disk0:nbd://h/x,disk0:nbd://h/y"],
        ["--nbd-sources", "disk0:nbd://h/x,disk1:nbd://h/y", "--nbd-targets", "disk0:nbd://h/z"],
        ["--nbd-sources", "disk0:nbd://h/x", "--nbd-targets", "disk1:nbd://h/z"],
        ["--nbd-sources", "disk0:nbd://h/x", "--nbd-targets", "disk0:nbd://h/x"],
        ["--nbd-sources", "disk0:nbd://h/x", "--nbd-port", "0"],
        ["--nbd-sources", "disk0:nbd://h/x", "--nbd-port", "65536"],
        ["--nbd-sources", "disk0:nbd://h/x", "--nbd-port", ""],
        ["--nbd-sources", "disk0:nbd://h/x", "--nbd-host", "a b"],
        ["--nbd-sources", "disk0:nbd://h/x", "--nbd-host", "h/y"],
        ["--nbd-sources", "disk0:nbd://h/x", "--request-bytes", "1"],
        ["--nbd-sources", "disk0:nbd://h/x", "--request-bytes", "-1"],
        ["--nbd-sources", "disk0:nbd://h/x", "--depth", "x"],
        ["--nbd-sources", "disk0:nbd://h/x", "--stall-seconds", "0"],
        ["--nbd-sources", "disk0:nbd://h/x", "--level", "incremental"],
        ["--nbd-sources", "disk0:nbd://h/x", "--hash-dir", "/nonexistent"],
        ["--nbd-sources", "disk0:nbd://h/x", "--hash-algorithm", "md5"],
        ["--nbd-source", "disk0:nbd://h/x"],
        ["--plan", "/dev/null", "--nbd-sources", "disk0:nbd://h/x"],
        ["extra"],
    ],
)
def test_bad_input_is_refused_with_code_two(words, capsys):
    from ansible_collections.sendense.platform.plugins.module_utils.datapath.mover_cli import main

    assert main(words) == 2
    assert last_json(capsys.readouterr().out)["error"]["error_code"] == "INVALID_INPUT"


def test_failure_has_code_one(tmp_path, servers, disks):
    done = run(
        "mover",
        "--nbd-sources",
        disks,
        "--nbd-targets",
        f"disk0:nbd+unix:///x?socket={tmp_path}/no,disk1:nbd+unix:///y?socket={tmp_path}/no",
    )
    assert done.returncode == 1
    document = last_json(done.stdout)
    assert document["error"]["error_code"] == "EXPORT_FAILED" and len(document["disks"]) == 2


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_signals_cancel_with_code_three(tmp_path, servers, disks, number):
    targets = ",".join(f"disk{i}:" + servers.kit(f"t{i}", "file", str(tmp_path / f"t{i}")) for i in range(2))
    words = ["--nbd-sources", disks, "--nbd-targets", targets, "--max-rate", "1M", "--request-bytes", "64K", "--hash-dir", tmp_path]
    environment = {**os.environ, "PYTHONPATH": "collections"}
    process = subprocess.Popen(
        command("mover", *words, "--status", tmp_path / "status"), stdout=subprocess.PIPE, text=True, env=environment
    )
    try:
        limit = time.monotonic() + 20
        while not (read_status(str(tmp_path / "status")) or {}).get("bytes_done"):
            assert time.monotonic() < limit
            time.sleep(0.02)
        process.send_signal(number)
        output, _nothing = process.communicate(timeout=15)
    finally:
        process.kill()
        process.wait()
    assert process.returncode == 3
    document = last_json(output)
    assert document["state"] == "cancelled" and signal.Signals(number).name in document["error"]["msg"]
    assert document == read_status(str(tmp_path / "status"))
    assert not list(tmp_path.glob("*.hashes*"))
