# Copyright: (c) 2026, Sendense contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

import json
import os
import signal
import socket
import threading
import time

import pytest

from ansible_collections.sendense.platform.plugins.module_utils.errors import InvalidInputError, LeaseHeldError, PortsExhaustedError
from ansible_collections.sendense.platform.plugins.module_utils.hubstate.locks import holder
from ansible_collections.sendense.platform.plugins.module_utils.hubstate.ports import PortPool
from tests.integration.keeper.conftest import FIRST, LAST, eventually

ALL = LAST - FIRST + 1


def test_a_port_says_for_what_it_is_leased(start):
    started = start()
    assert started.lease(2) == [FIRST, FIRST + 1]
    pool = PortPool(started.state, FIRST, LAST)
    entry = pool.of_job(started.job.job_id)[1]
    assert (entry["machine"], entry["node"], entry["export"], entry["pid"]) == ("libvirt-1", "node1", "libvirt-1-disk1", started.pid)
    assert started.client.release_port(FIRST) is True
    assert started.client.release_port(FIRST) is False
    assert [lease["port"] for lease in pool.list()] == [FIRST + 1]


def test_an_exhausted_pool_fails_typed_after_the_wait(start):
    started, other = start(), start()
    started.lease(ALL - 1)
    before = time.monotonic()
    with pytest.raises(PortsExhaustedError, match=f"{ALL - 1} of {ALL}") as refused:
        other.lease(2, wait_s=0.5)
    assert 0.5 <= time.monotonic() - before < 5
    assert refused.value.retryable and other.client.ping()["ports"] == []
    with pytest.raises(InvalidInputError):
        other.lease(ALL + 1, wait_s=60)


def test_a_keeper_serves_others_while_it_waits_and_gets_what_comes_free(start):
    started, other = start(), start()
    held = started.lease(ALL)
    outcome = []
    waiter = threading.Thread(target=lambda: outcome.append(other.lease(1, wait_s=20)))
    waiter.start()
    for _ in range(5):
        asked = time.monotonic()
        other.client.ping()
        assert time.monotonic() - asked < 2
        time.sleep(0.05)
    assert outcome == []
    started.client.release_port(held[3])
    waiter.join(10)
    assert outcome == [[held[3]]]


def test_a_caller_that_went_away_gets_no_ports(start):
    started, other = start(), start()
    started.lease(ALL)
    with socket.socket(socket.AF_UNIX) as caller:
        caller.connect(other.job.socket_path)
        request = {"op": "lease_ports", "exports": [{"machine": "m", "node": "n", "export": "e"}], "wait_s": 60}
        caller.sendall(json.dumps(request).encode() + b"\n")
        other.client.ping()
    started.client.finish()
    time.sleep(0.4)
    assert other.client.ping()["ports"] == []


def test_ports_of_a_killed_keeper_are_free_at_once(start):
    started, other = start(), start()
    started.lease(ALL)
    os.kill(started.pid, signal.SIGKILL)
    assert other.lease(ALL, wait_s=5) == list(range(FIRST, LAST + 1))


def test_twelve_jobs_compete_for_the_last_ports(start):
    """Each wants two of five ports: never a deadlock, never a half."""
    jobs = [start(role="node") for _ in range(12)]
    outcome = []

    def work(job):
        ports = job.lease(2, wait_s=60)
        outcome.append(len(ports))
        job.client.finish()

    threads = [threading.Thread(target=work, args=(job,)) for job in jobs]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert outcome == [2] * 12
    assert PortPool(jobs[0].state, FIRST, LAST).list() == []


def test_a_machine_belongs_to_one_job(start):
    started, other = start(), start()
    path = os.path.join(started.state.leases, "backup-x-libvirt-1.lease")
    started.client.hold("backup-x-libvirt-1", {"what": "machine 1"})
    started.client.hold("backup-x-libvirt-1", {"what": "machine 1"})
    assert holder(path)["job"] == started.job.job_id
    with pytest.raises(LeaseHeldError, match="machine 1") as refused:
        other.client.hold("backup-x-libvirt-1", {"what": "machine 1"})
    assert refused.value.details["job"] == started.job.job_id and refused.value.details["pid"] == started.pid
    os.kill(started.pid, signal.SIGKILL)
    eventually(started.gone)
    other.client.hold("backup-x-libvirt-1", {"what": "machine 1"})


def test_readers_of_a_point_share_it(start):
    one, two, three = start(), start(), start()
    one.client.hold("point-x", {"what": "point"}, shared=True)
    two.client.hold("point-x", {"what": "point"}, shared=True)
    with pytest.raises(LeaseHeldError):
        three.client.hold("point-x", {"what": "point"})
    with pytest.raises(InvalidInputError):
        one.client.hold("point-x", {"what": "point"}, shared=False)
    one.client.finish()
    with pytest.raises(LeaseHeldError):
        three.client.hold("point-x", {"what": "point"})
    two.client.finish()
    three.client.hold("point-x", {"what": "point"})
