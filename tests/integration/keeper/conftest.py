# Copyright: (c) 2026, Sendense contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

import os
import shutil
import signal
import subprocess
import tempfile
import time
import uuid
from dataclasses import dataclass

import pytest

from ansible_collections.sendense.platform.plugins.module_utils.agent.build import build_agent
from ansible_collections.sendense.platform.plugins.module_utils.agent.launch import start_keeper
from ansible_collections.sendense.platform.plugins.module_utils.agent.store import store_agent
from ansible_collections.sendense.platform.plugins.module_utils.datapath.exports import export_argv
from ansible_collections.sendense.platform.plugins.module_utils.datapath.keeper_client import KeeperClient
from ansible_collections.sendense.platform.plugins.module_utils.hubstate.files import read_json
from ansible_collections.sendense.platform.plugins.module_utils.hubstate.jobs import JobDir, list_jobs
from ansible_collections.sendense.platform.plugins.module_utils.hubstate.processes import is_alive, start_time
from ansible_collections.sendense.platform.plugins.module_utils.hubstate.statedir import StateDir

PYTHON = "/usr/bin/python3"
FIRST, LAST = 11200, 11204
SIZE = 8 << 20


def eventually(condition, seconds=10.0):
    """Wait for it without spinning; the value that became true."""
    deadline = time.monotonic() + seconds
    while True:
        value = condition()
        if value:
            return value
        assert time.monotonic() < deadline, "it did not happen in time"
        time.sleep(0.02)


@dataclass
class Started:
    """One job with a real keeper."""

    state: StateDir
    job: JobDir
    client: KeeperClient
    pid: int
    agent: str

    def lease(self, count=1, wait_s=0.0):
        wanted = [{"machine": "libvirt-1", "node": "node1", "export": f"libvirt-1-disk{number}"} for number in range(count)]
        return self.client.lease_ports(wanted, wait_s)

    def serve(self, image, port=None, socket=None, name="target-disk0", export="libvirt-1-disk0", **options):
        argv, env = export_argv(node(image), export=export, port=port, socket=socket, **options)
        record = {"port": port, "socket": socket, "machine": "libvirt-1", "export": export}
        return self.client.start(name, argv, env=env, kind="export", record=record)

    def socket(self, name="disk0.sock"):
        return os.path.join(self.job.path, name)

    def gone(self):
        """Whether the keeper has ended."""
        return start_time(self.pid) is None


def node(image):
    return {"driver": "qcow2", "backing": None, "file": {"driver": "file", "filename": image}}


@pytest.fixture(scope="session")
def agent_content():
    return build_agent()


@pytest.fixture
def state():
    path = tempfile.mkdtemp(prefix="sdk")
    place = StateDir(path).create()
    yield place
    shutil.rmtree(path)


@pytest.fixture
def agent(state, agent_content):
    return store_agent(state, *agent_content)


@pytest.fixture
def start(state, agent):
    """Start keepers with a private port range; afterwards none is left, whatever the test did."""
    pids = []

    def begin(role="hub", heartbeat=30.0, last=LAST, meta=None):
        job_id = uuid.uuid4().hex
        options = ["--heartbeat-timeout", str(heartbeat), "--first-port", str(FIRST), "--last-port", str(last)]
        client = start_keeper(state, job_id, role, agent, PYTHON, meta or {"machine_key": "libvirt-1"}, options)
        pids.append(client.ping()["pid"])
        return Started(state, JobDir.open(state, job_id, role), client, pids[-1], agent)

    yield begin
    for job in list_jobs(state):
        meta = read_json(os.path.join(job.path, "job.json"), {})
        if is_alive(meta.get("pid"), meta.get("starttime")):
            os.kill(meta["pid"], signal.SIGKILL)
    for pid in pids:
        eventually(lambda pid=pid: start_time(pid) is None)


@pytest.fixture
def image(tmp_path):
    path = str(tmp_path / "disk0.qcow2")
    subprocess.run(["qemu-img", "create", "-q", "-f", "qcow2", path, str(SIZE)], check=True)
    return path
