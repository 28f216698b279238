# Copyright: (c) 2026, Sendense contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The merger on real images: data goes down, the layers above stay as they are, and whatever ends it can be repeated."""

from __future__ import annotations

import hashlib
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from contextlib import ExitStack
from pathlib import Path
from typing import Any, Dict, Iterator, List, Optional

import pytest

from ansible_collections.sendense.platform.plugins.module_utils.datapath.images import create_qcow2, node_filename, qcow2_node
from ansible_collections.sendense.platform.plugins.module_utils.datapath.loop import Stop
from ansible_collections.sendense.platform.plugins.module_utils.datapath.merger import MergeJob, MergeOptions, merge, read_merge_plan
from ansible_collections.sendense.platform.plugins.module_utils.datapath.status import read_status
from ansible_collections.sendense.platform.plugins.module_utils.errors import InvalidInputError

ROOT = Path(__file__).resolve().parents[3]
SIZE = 8 << 20
NAMES = ("p0", "e1", "e2", "k3", "k4")
#: Bytes per second that make a merge last long enough to be interrupted.
SLOW = 2 << 20


class Chain:
    """``p0 <- e1 <- e2 <- k3 <- k4`` as a repository lays them out, with data, zeros and overwrites in each."""

    def __init__(self, root: Path) -> None:
        self.root = root
        below = None
        for name in NAMES:
            (root / name).mkdir()
            create_qcow2(self.path(name), SIZE, below)
            below = f"../{name}/disk0.qcow2"
        self.write("p0", "write -P 1 0 4M")
        self.write("e1", "write -P 2 1M 2M", "write -z 3M 64k")
        self.write("e2", "write -P 3 2M 2M", "write -P 4 6M 1M", "write -z 512k 128k")
        self.write("k3", "write -P 5 2560k 1M", "write -z 6M 64k", "write -P 6 8323072 65536")
        self.write("k4", "write -P 7 0 64k")

    def path(self, name: str) -> str:
        return str(self.root / name / "disk0.qcow2")

    def node(self, name: str) -> Dict[str, Any]:
        below = None
        for one in NAMES[: NAMES.index(name) + 1]:
            below = qcow2_node(self.path(one), backing=below)
        assert below is not None
        return below

    def write(self, name: str, *commands: str) -> None:
        argv = ["qemu-io", "-t", "unsafe", "-f", "qcow2", *(word for one in commands for word in ("-c", one)), self.path(name)]
        subprocess.run(argv, check=True, capture_output=True, timeout=60)

    def content(self, name: str) -> str:
        """Digest of a disk, read with plain qemu by the names in the headers."""
        return self._read(["-f", "qcow2", self.path(name)])

    def content_now(self, name: str) -> str:
        """The same while somebody writes into the chain, past qemu's locks."""
        node: Optional[Dict[str, Any]] = None
        for one in NAMES[: NAMES.index(name) + 1]:
            node = {**qcow2_node(self.path(one), backing=node), "read-only": True}
            node["file"]["locking"] = "off"
        return self._read([node_filename(node or {})])

    def _read(self, source: List[str]) -> str:
        with tempfile.NamedTemporaryFile() as raw:
            subprocess.run(["qemu-img", "convert", "-O", "raw", *source, raw.name], check=True, capture_output=True, timeout=60)
            return hashlib.sha256(Path(raw.name).read_bytes()).hexdigest()

    def file(self, name: str) -> str:
        return hashlib.sha256(Path(self.path(name)).read_bytes()).hexdigest()

    def job(self, base: str = "e1", top: str = "k3") -> MergeJob:
        return MergeJob("disk0", "commit", self.node(top), self.path(base), SIZE)


@pytest.fixture
def chain(tmp_path: Path) -> Chain:
    return Chain(tmp_path)


@pytest.fixture
def small(tmp_path: Path) -> Iterator[Chain]:
    """A chain on a file system of its own that has hardly any room left."""
    mount = tmp_path / "small"
    mount.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=20m", "tmpfs", str(mount)], check=True, timeout=30)
    with ExitStack() as stack:
        stack.callback(subprocess.run, ["umount", str(mount)], check=True, timeout=30)
        yield Chain(mount)


def qemu_imgs(mark: str) -> List[int]:
    """Processes of qemu-img that work below a directory."""
    found = []
    for entry in filter(str.isdigit, os.listdir("/proc")):
        try:
            line = Path("/proc", entry, "cmdline").read_bytes().split(b"\0")
            below = os.readlink(f"/proc/{entry}/cwd") if line[:1] == [b"qemu-img"] else ""
        except (FileNotFoundError, ProcessLookupError):
            continue
        if below and (below.startswith(mark) or mark.encode() in b" ".join(line)):
            found.append(int(entry))
    return found


def wait_for(what: Any, seconds: float = 30) -> Any:
    deadline = time.monotonic() + seconds
    while not (found := what()):
        assert time.monotonic() < deadline, "it never happened"
        time.sleep(0.02)
    return found


@pytest.mark.parametrize("base", ["e1", "e2", "p0"])
def test_the_data_goes_into_the_base_and_nothing_above_it_changes(chain: Chain, tmp_path: Path, base: str) -> None:
    contents, files = {name: chain.content(name) for name in ("k3", "k4")}, {name: chain.file(name) for name in NAMES}
    result = merge([chain.job(base)], MergeOptions(), str(tmp_path / "status"))
    assert (result.state, result.error) == ("done", None)
    assert {name: chain.content(name) for name in contents} == contents
    assert chain.content(base) == contents["k3"]
    assert [name for name in NAMES if chain.file(name) != files[name]] == [base]
    assert merge([chain.job(base)], MergeOptions()).state == "done"
    assert chain.content(base) == contents["k3"] and chain.content("k4") == contents["k4"]
    status = read_status(str(tmp_path / "status"))
    assert status is not None and status["disks"]["disk0"]["bytes_done"] == status["bytes_total"] > 0


def test_a_chain_is_copied_into_a_new_image(chain: Chain, tmp_path: Path) -> None:
    create_qcow2(str(tmp_path / "new.qcow2"), SIZE)
    files = {name: chain.file(name) for name in NAMES}
    job = MergeJob("disk0", "copy", chain.node("k3"), str(tmp_path / "new.qcow2"), SIZE)
    assert merge([job], MergeOptions()).state == "done"
    wanted = chain.content("k3")
    assert {name: chain.file(name) for name in NAMES} == files
    os.rename(tmp_path / "new.qcow2", chain.path("p0"))
    assert chain.content("p0") == wanted


@pytest.mark.parametrize("signum", [signal.SIGKILL, signal.SIGTERM])
def test_a_merger_that_is_ended_leaves_no_child_and_can_be_repeated(chain: Chain, tmp_path: Path, signum: int) -> None:
    contents = {name: chain.content(name) for name in ("k3", "k4")}
    plan = tmp_path / "plan.json"
    plan.write_text(json.dumps({"disks": [vars(chain.job())], "options": {"bandwidth_bytes_per_s": SLOW}}))
    code = (
        "import sys; from ansible_collections.sendense.platform.plugins.module_utils.agent.main import main; sys.exit(main(sys.argv[1:]))"
    )
    argv = [sys.executable, "-c", code, "merger", "--plan", str(plan), "--status", str(tmp_path / "status")]
    environment = {**os.environ, "PYTHONPATH": str(ROOT / "collections")}
    with subprocess.Popen(argv, env=environment, stdout=subprocess.PIPE) as merger:
        wait_for(lambda: (read_status(str(tmp_path / "status")) or {}).get("bytes_done"))
        assert len(qemu_imgs(str(tmp_path))) == 1
        assert {name: chain.content_now(name) for name in contents} == contents
        assert merger.poll() is None
        merger.send_signal(signum)
        assert merger.wait(30) == (-signal.SIGKILL if signum == signal.SIGKILL else 3)
    wait_for(lambda: not qemu_imgs(str(tmp_path)))
    assert {name: chain.content(name) for name in contents} == contents
    assert merge([chain.job()], MergeOptions()).state == "done"
    assert chain.content("e1") == contents["k3"] and chain.content("k4") == contents["k4"]
    subprocess.run(["qemu-img", "check", "-q", "-f", "qcow2", chain.path("e1")], check=True, timeout=60)


def test_the_cancel_file_ends_it(chain: Chain, tmp_path: Path) -> None:
    (tmp_path / "cancel").write_text("")
    result = merge([chain.job()], MergeOptions(bandwidth_bytes_per_s=SLOW), "", str(tmp_path / "cancel"), Stop())
    assert result.state == "cancelled" and result.error is not None and result.error["error_code"] == "JOB_CANCELLED"


def test_a_child_that_hangs_is_given_up(chain: Chain, tmp_path: Path) -> None:
    stopper = [sys.executable, "-c", f"""
import os, signal, sys, time
sys.path[:0] = [{str(ROOT)!r}, {str(ROOT / "collections")!r}]
from tests.integration.datapath.test_merger import qemu_imgs, wait_for
os.kill(wait_for(lambda: qemu_imgs({str(tmp_path)!r}))[0], signal.SIGSTOP)
"""]  # fmt: skip
    with subprocess.Popen(stopper) as other:
        began = time.monotonic()
        result = merge([chain.job()], MergeOptions(stall_seconds=2.0, bandwidth_bytes_per_s=SLOW >> 1))
        assert other.wait(30) == 0
    assert result.error is not None and result.error["error_code"] == "COPY_STALLED", result.error
    assert time.monotonic() - began < 25 and qemu_imgs(str(tmp_path)) == []


def test_storage_that_runs_full_ends_it_and_nothing_above_is_lost(small: Chain) -> None:
    small.write("e1", "write -P 9 4M 1M")
    contents = {name: small.content(name) for name in ("k3", "k4")}
    ballast = small.root / "ballast"
    room = os.statvfs(small.root)
    ballast.write_bytes(bytes(room.f_bavail * room.f_frsize - 300_000))
    result = merge([small.job()], MergeOptions())
    assert result.error is not None and result.error["error_code"] == "REPOSITORY_FULL", result.error
    ballast.unlink()
    assert {name: small.content(name) for name in contents} == contents
    assert merge([small.job()], MergeOptions()).state == "done"
    assert small.content("k4") == contents["k4"]


def test_an_image_that_another_process_reads_is_left_alone(chain: Chain, tmp_path: Path) -> None:
    before = chain.file("e1")
    argv = ["qemu-nbd", "--read-only", "--fork", "--persistent", f"--pid-file={tmp_path / 'pid'}", f"--socket={tmp_path / 'sock'}"]
    subprocess.run([*argv, node_filename(chain.node("k4"))], check=True, timeout=30, capture_output=True)
    try:
        result = merge([chain.job()], MergeOptions())
    finally:
        os.kill(int((tmp_path / "pid").read_text()), signal.SIGTERM)
    assert result.error is not None and result.error["error_code"] == "LEASE_HELD" and result.error["retryable"]
    assert chain.file("e1") == before


def test_an_image_with_wrong_metadata_is_not_written_to(chain: Chain) -> None:
    with open(chain.path("e1"), "r+b") as stream:  # the reference counts say that no cluster is in use
        stream.seek(48)
        table = int.from_bytes(stream.read(8), "big")
        stream.seek(table)
        block = int.from_bytes(stream.read(8), "big")
        stream.seek(block)
        stream.write(bytes(65536))
    before = chain.file("e1")
    result = merge([chain.job()], MergeOptions())
    assert result.error is not None and result.error["error_code"] == "REPOSITORY_IO" and not result.error["retryable"], result.error
    assert chain.file("e1") == before


def test_disks_are_merged_one_after_another_and_one_failure_ends_all(chain: Chain, tmp_path: Path) -> None:
    (tmp_path / "other").mkdir()
    other = Chain(tmp_path / "other")
    second = MergeJob("disk1", "commit", other.node("k3"), other.path("e1"), SIZE)
    wanted = other.content("k3")
    assert merge([chain.job(), second], MergeOptions()).state == "done"
    assert other.content("e1") == wanted
    os.unlink(chain.path("e2"))
    result = merge([chain.job(), second], MergeOptions())
    assert result.state == "failed" and result.disks["disk1"]["error"]["details"]["because"] == "disk0"


def test_what_cannot_mean_anything_is_refused(chain: Chain, tmp_path: Path) -> None:
    good = vars(chain.job())
    wrong: List[Any] = [
        [],
        [good, good],
        [dict(good, key="../x")],
        [dict(good, action="rebase")],
        [dict(good, base="e1/disk0.qcow2")],
        [dict(good, base=chain.path("k4"))],
        [dict(good, base=chain.path("k3"))],
        [dict(good, action="copy")],
        [dict(good, top={"driver": "qcow2"})],
        [dict(good, top="json:{}")],
        [dict(good, more=1)],
    ]
    for disks in wrong:
        (tmp_path / "plan.json").write_text(json.dumps({"disks": disks}))
        with pytest.raises(InvalidInputError):
            read_merge_plan(str(tmp_path / "plan.json"))
    for options in ({"stall_seconds": 0.0}, {"bandwidth_bytes_per_s": -1}, {"unknown": 1}):
        (tmp_path / "plan.json").write_text(json.dumps({"disks": [good], "options": options}))
        with pytest.raises(InvalidInputError):
            read_merge_plan(str(tmp_path / "plan.json"))
