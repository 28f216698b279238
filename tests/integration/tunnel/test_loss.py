# Copyright: (c) 2026, Sendense contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A copy through a tunnel: it arrives, it ends with a clear error when the link is lost, and no ssh outlives its job."""

from __future__ import annotations

import os
import signal
import subprocess
import threading
import time
from pathlib import Path

import pytest

from ansible_collections.sendense.platform.plugins.module_utils.agent.cleanup import cleanup_dead_jobs
from ansible_collections.sendense.platform.plugins.module_utils.datapath.status import read_status
from ansible_collections.sendense.platform.plugins.module_utils.errors import TunnelFailedError
from ansible_collections.sendense.platform.plugins.module_utils.hubstate.processes import start_time
from ansible_collections.sendense.platform.plugins.module_utils.jobs.copying import copy_disks
from ansible_collections.sendense.platform.plugins.module_utils.jobs.tunnelling import dig, needed
from tests.integration.keeper.conftest import eventually
from tests.integration.tunnel.conftest import MIB, SIZE, elapsed, random_file, ssh_processes

#: Longest time from a silent link to the end of the copy: four keepalives of 5 s, and what a busy machine adds.
SILENT_SECONDS = 26.0


class Copy:
    """A backup of one disk of the node to an export of the hub, through the tunnel of its job."""

    def __init__(self, hub, params, place, folder: Path, rate: int = 0) -> None:
        self.hub, self.place = hub, place
        self.source = random_file(folder / "source.raw")
        self.written = folder / "target.raw"
        with self.written.open("wb") as stream:
            stream.truncate(SIZE)
        uris = {"read": hub.serve("source", 10170, self.source, "--read-only"), "written": hub.serve("target", 10171, self.written)}
        dig(place, needed(dict(params, tunnel=hub.options)))
        disk = {"key": "disk0", "uri": uris["read"], "size_bytes": SIZE, "level": "full"}
        self.params = dict(
            params,
            job_id=place.job_id,
            role="node",
            phase="run",
            at_hub="targets",
            sources=[disk],
            nbd_targets=f"disk0:{uris['written']}",
            hash_algorithm="xxh3_128",
            expected_roots={},
            audit={},
            max_bytes_per_second=rate or None,
            stall_seconds=60,
        )

    def when_moving(self, action) -> threading.Thread:
        """Do something as soon as bytes move."""

        def wait() -> None:
            path = os.path.join(self.place.job.path, "copy.status.json")
            eventually(lambda: (read_status(path) or {}).get("bytes_done"), 30)
            action()

        thread = threading.Thread(target=wait)
        thread.start()
        return thread


@pytest.mark.parametrize("at_hub", ["targets", "sources"])
def test_a_copy_goes_through_the_tunnel_and_arrives(hub, params, job, tmp_path, at_hub):
    copy = Copy(hub, params, job(), tmp_path)
    done = copy_disks(dict(copy.params, at_hub=at_hub), False)
    assert [disk["state"] for disk in done["disks"]] == ["done"]
    subprocess.run(["cmp", str(copy.source), str(copy.written)], check=True)
    [ssh] = ssh_processes(params["state_dir"])
    assert _bytes_moved(ssh) > SIZE


def _bytes_moved(pid: int) -> int:
    """What a process wrote, in bytes."""
    lines = Path(f"/proc/{pid}/io").read_text().splitlines()
    return int(next(line.split()[1] for line in lines if line.startswith("wchar")))


@pytest.mark.parametrize("at_hub", ["targets", "sources"])
def test_a_broken_link_ends_the_copy_at_once_and_is_named(hub, params, job, tmp_path, at_hub):
    copy = Copy(hub, params, job(), tmp_path, rate=8 * MIB)
    copy.params["at_hub"] = at_hub
    cut = copy.when_moving(hub.sshd.cut)
    with pytest.raises(TunnelFailedError, match="was lost while it carried data") as caught:
        copy_disks(copy.params, False)
    cut.join()
    last = caught.value.details["stderr"].splitlines()[-1]
    assert caught.value.retryable and last in caught.value.msg and ("disconnect" in last or "closed by remote host" in last)
    assert [disk["key"] for disk in caught.value.details["disks"]] == ["disk0"] and caught.value.details["cause"]


def test_a_link_that_falls_silent_is_given_up_by_keepalives(hub, params, job, tmp_path):
    copy = Copy(hub, params, job(), tmp_path, rate=4 * MIB)
    stopped = []

    def freeze() -> None:
        for pid, name in hub.sshd.processes().items():
            if name == "sshd":
                os.kill(pid, signal.SIGSTOP)
        stopped.append(time.monotonic())

    frozen = copy.when_moving(freeze)
    with pytest.raises(TunnelFailedError, match=r"not responding") as caught:
        copy_disks(copy.params, False)
    took = elapsed(stopped[0])
    frozen.join()
    assert took < SILENT_SECONDS and caught.value.retryable


def test_a_link_that_was_lost_before_the_copy_is_named_too(hub, params, job, tmp_path):
    copy = Copy(hub, params, job(), tmp_path)
    hub.sshd.stop()
    eventually(lambda: not ssh_processes(params["state_dir"]))
    with pytest.raises(TunnelFailedError, match="was lost"):
        copy_disks(copy.params, False)


def test_a_cancelled_job_leaves_no_ssh(hub, params, job, tmp_path):
    place = job()
    dig(place, needed(dict(params, tunnel=hub.options)))
    place.job.cancel()
    eventually(lambda: not os.path.exists(place.job.path))
    assert ssh_processes(params["state_dir"]) == []


def test_a_killed_keeper_takes_its_ssh_along_and_cleanup_finds_nothing_running(hub, params, job):
    place = job()
    dig(place, needed(dict(params, tunnel=hub.options)))
    keeper = place.client.ping()["pid"]
    os.kill(keeper, signal.SIGKILL)
    eventually(lambda: start_time(keeper) is None and not ssh_processes(params["state_dir"]))
    [entry] = cleanup_dead_jobs(place.state)
    assert (entry["removed"], entry["killed"]) == (True, [])
    eventually(lambda: list(hub.sshd.processes().values()) == ["sshd"])  # the listener, no session


def test_the_tunnel_is_the_last_of_the_children_to_go(hub, params, job, tmp_path):
    copy = Copy(hub, params, job(), tmp_path)
    trace = tmp_path / "trace"
    script = f'trap "ls {copy.place.job.path}/ssh.mux >> {trace}; exit 0" TERM; echo ready > {tmp_path}/ready; while :; do sleep 0.05; done'
    copy.place.client.start("zz-worker", ["/bin/sh", "-c", script], kind="verifier")
    eventually((tmp_path / "ready").exists)
    copy.place.finish()
    assert trace.read_text() == f"{copy.place.job.path}/ssh.mux\n"
