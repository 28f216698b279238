# Copyright: (c) 2026, Sendense contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A keeper that hangs is told from one that is busy, soon, and nobody waits for it twice."""

from __future__ import annotations

import os
import signal
import time
from contextlib import contextmanager

import pytest

from ansible_collections.sendense.platform.plugins.module_utils.datapath.keeper_client import KeeperClient
from ansible_collections.sendense.platform.plugins.module_utils.errors import KeeperFailedError
from ansible_collections.sendense.platform.plugins.module_utils.jobs.backup import abort_backup
from ansible_collections.sendense.platform.plugins.module_utils.jobs.place import JobPlace, attach_to_end, discard
from ansible_collections.sendense.platform.plugins.module_utils.repositories.registry import open_repository
from tests.integration.keeper.conftest import eventually

ANSWER_SECONDS = 0.4
SOON_SECONDS = 3.0


@contextmanager
def hanging(started):
    os.kill(started.pid, signal.SIGSTOP)
    try:
        yield KeeperClient(started.job.socket_path, answer_s=ANSWER_SECONDS)
    finally:
        os.kill(started.pid, signal.SIGCONT)


@pytest.fixture
def impatient(monkeypatch):
    """Every client that the product itself makes waits as briefly as those of these tests."""
    monkeypatch.setattr(KeeperClient.__init__, "__defaults__", (ANSWER_SECONDS,))


def asked(client, name):
    begun = time.monotonic()
    with pytest.raises(KeeperFailedError, match="it hangs") as raised:
        getattr(client, name)()
    assert raised.value.retryable and raised.value.details["socket"] == client.socket_path
    return time.monotonic() - begun


@pytest.mark.parametrize("name", ["ping", "finish", "abort"])
def test_a_keeper_that_hangs_is_found_once(start, name):
    started = start()
    with hanging(started) as client:
        assert ANSWER_SECONDS * 0.9 <= asked(client, name) < SOON_SECONDS
        assert asked(client, name) < ANSWER_SECONDS / 2
        begun = time.monotonic()
        discard(JobPlace(started.state, started.job, client, started.agent))
        assert time.monotonic() - begun < ANSWER_SECONDS / 2
    assert started.client.ping()["pid"] == started.pid


def test_a_keeper_that_begins_to_hang_while_it_ends_its_job(start, tmp_path):
    started = start()
    started.client.undo_add("slow", ["sh", "-c", f"touch {tmp_path}/begun; sleep 2; touch {tmp_path}/undone"])
    client = KeeperClient(started.job.socket_path, answer_s=ANSWER_SECONDS)
    pid = os.fork()
    if pid == 0:  # stops it in the middle of its undo
        eventually((tmp_path / "begun").exists)
        os.kill(started.pid, signal.SIGSTOP)
        os._exit(0)
    try:
        assert asked(client, "abort") < SOON_SECONDS
    finally:
        os.waitpid(pid, 0)
        os.kill(started.pid, signal.SIGCONT)
    eventually(started.gone)
    assert (tmp_path / "undone").exists() and os.listdir(started.state.jobs) == []


def test_a_keeper_that_is_busy_ending_its_job_is_waited_for(start):
    started = start()
    started.client.undo_add("slow", ["sleep", "1.5"])
    answer = KeeperClient(started.job.socket_path, answer_s=ANSWER_SECONDS).abort()
    assert answer["undone"] == ["slow"]
    eventually(started.gone)


def test_a_keeper_that_waits_for_ports_is_not_hanging(start):
    started, other = start(), start()
    other.lease(5)
    client = KeeperClient(started.job.socket_path, answer_s=ANSWER_SECONDS)
    with pytest.raises(Exception, match="port") as raised:
        client.lease_ports([{"machine": "libvirt-1", "node": "node1", "export": "libvirt-1-disk0"}], 1.5)
    assert raised.value.error_code == "PORTS_EXHAUSTED"


def test_the_end_of_a_job_does_not_wait_for_a_keeper_that_hangs(start, impatient):
    started = start()
    with hanging(started):
        begun = time.monotonic()
        with pytest.raises(KeeperFailedError, match="it hangs"):
            attach_to_end({"state_dir": started.state.path}, started.job.role, started.job.job_id)
        assert time.monotonic() - begun < SOON_SECONDS


def test_taking_a_backup_back_does_not_wait_for_a_keeper_that_hangs(start, impatient, tmp_path):
    started = start()
    options = {"path": str(tmp_path / "repository"), "type": "local", "id": "", "reserve_bytes": 0}
    open_repository(options).initialise()
    params = {
        "repository": options,
        "platform": "libvirt",
        "machine_id": "1",
        "job": {"id": started.job.job_id},
        "lies": [],
        "parent_id": None,
        "state_dir": started.state.path,
    }
    with hanging(started):
        begun = time.monotonic()
        with pytest.raises(KeeperFailedError, match="it hangs"):
            abort_backup(params, check_mode=False)
        assert time.monotonic() - begun < SOON_SECONDS
