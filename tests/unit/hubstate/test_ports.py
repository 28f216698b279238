# Copyright: (c) 2026, Sendense contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

import fcntl
import multiprocessing
import os
import random
import signal
import socket
import threading
import time

import pytest

from ansible_collections.sendense.platform.plugins.module_utils.errors import InvalidInputError, PortsExhaustedError
from ansible_collections.sendense.platform.plugins.module_utils.hubstate.ports import TRY_SECONDS, PortOwner, PortPool
from ansible_collections.sendense.platform.plugins.module_utils.hubstate.statedir import StateDir

FIRST = 11100
FORK = multiprocessing.get_context("fork")


def _owners(count, job="a" * 32):
    return [PortOwner(job, "libvirt-1", "node1", f"libvirt-1-disk{number}") for number in range(count)]


@pytest.fixture
def pool(state):
    return PortPool(state, FIRST, FIRST + 4)


def test_the_promised_range():
    pool = PortPool(StateDir("/nowhere"))
    assert (pool.first, pool.last, pool.total) == (10100, 10200, 101)


def test_a_pool_that_was_never_used_is_empty():
    assert PortPool(StateDir("/nowhere")).list() == []


def test_lease_list_and_release(pool):
    leases = pool.allocate(_owners(2), 0)
    assert [lease.port for lease in leases] == [FIRST, FIRST + 1]
    listed = pool.list()
    assert [entry["port"] for entry in listed] == [FIRST, FIRST + 1]
    for name, value in (("job", "a" * 32), ("machine", "libvirt-1"), ("node", "node1"), ("export", "libvirt-1-disk1")):
        assert listed[1][name] == value
    assert abs(listed[0]["allocated_at"] - time.time()) < 60
    assert pool.is_allocated(FIRST) and not pool.is_allocated(FIRST + 2)
    assert pool.metrics() == {"total": 5, "available": 3, "allocated": 2, "utilisation": 0.4}
    other = pool.allocate(_owners(1, "b" * 32), 0)
    assert [entry["port"] for entry in pool.of_job("b" * 32)] == [FIRST + 2]
    for lease in leases + other:
        lease.release()
    assert pool.list() == []
    assert [name for name in os.listdir(os.path.dirname(pool.path(FIRST))) if name.endswith(".lease")] == []


def test_all_or_nothing(pool):
    held = pool.allocate(_owners(3), 0)
    assert pool.try_allocate(_owners(3)) is None
    assert pool.metrics()["allocated"] == 3
    assert len(pool.try_allocate(_owners(2))) == 2
    for lease in held:
        lease.release()


def test_an_exhausted_pool_waits_the_stated_time_and_says_so(pool):
    held = pool.allocate(_owners(5), 0)
    before = time.monotonic()
    with pytest.raises(PortsExhaustedError, match="5 of 5") as refused:
        pool.allocate(_owners(1), 0.3)
    assert 0.3 <= time.monotonic() - before < 3
    assert refused.value.retryable and refused.value.details["wanted"] == 1
    held[2].release()
    again = pool.allocate(_owners(1), 0)
    assert again[0].port == FIRST + 2
    for lease in held + again:
        lease.release()


@pytest.mark.parametrize("count", [0, 6])
def test_what_the_pool_can_never_give_is_refused_at_once(pool, count):
    with pytest.raises(InvalidInputError):
        pool.allocate(_owners(count), 60)


@pytest.mark.parametrize("bounds", [(0, 5), (10, 9), (1, 65536)])
def test_ranges_that_cannot_be(state, bounds):
    with pytest.raises(InvalidInputError):
        PortPool(state, *bounds)


def test_a_port_of_a_foreign_program_is_skipped(pool):
    with socket.socket() as foreign:
        foreign.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        foreign.bind(("0.0.0.0", FIRST))
        foreign.listen(1)
        leases = pool.allocate(_owners(4), 0)
        assert [lease.port for lease in leases] == [FIRST + 1, FIRST + 2, FIRST + 3, FIRST + 4]
        assert pool.try_allocate(_owners(1)) is None
        with pytest.raises(PortsExhaustedError, match="4 of 5 .*, 1 more are in use by other programs,") as refused:
            pool.allocate(_owners(1), 0)
        assert refused.value.details["foreign"] == [FIRST]
    leases += pool.allocate(_owners(1), 0)
    assert leases[-1].port == FIRST
    for lease in leases:
        lease.release()


def test_lingering_connections_do_not_make_a_port_busy(pool):
    """A server that ended leaves its connections in TIME_WAIT for a minute; its port can serve again at once."""
    with socket.socket() as server:
        server.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        server.bind(("127.0.0.1", FIRST))
        server.listen(1)
        with socket.create_connection(("127.0.0.1", FIRST)) as client:
            accepted, _address = server.accept()
            accepted.close()
            assert client.recv(1) == b""
    lease = pool.allocate(_owners(1), 0)[0]
    assert lease.port == FIRST
    lease.release()


def _hold(pool, pipe):
    pipe.send([lease.port for lease in pool.allocate(_owners(5), 5)])
    signal.pause()


def test_leases_survive_a_kill_without_leaking(pool):
    ours, theirs = FORK.Pipe()
    child = FORK.Process(target=_hold, args=(pool, theirs))
    child.start()
    assert len(ours.recv()) == 5
    assert pool.try_allocate(_owners(1)) is None
    child.kill()
    child.join()
    assert pool.list() == []
    leases = pool.allocate(_owners(5), 0)
    for lease in leases:
        lease.release()
    ours.close()
    theirs.close()


def test_leftover_files_are_swept(pool, state):
    with open(pool.path(FIRST), "w", encoding="ascii") as stream:
        stream.write("{}")
    held = pool.allocate(_owners(1), 0)
    with open(pool.path(FIRST + 1), "w", encoding="ascii") as stream:
        stream.write("{}")
    assert pool.sweep() == [f"{FIRST + 1}.lease"]
    assert pool.is_allocated(FIRST)
    held[0].release()


def _compete(pool, number, log):
    """Take two or three ports, note them, keep them for an instant, give them back; five times."""
    random.seed(number)
    for _ in range(5):
        leases = pool.allocate(_owners(random.choice((2, 3)), f"{number:032x}"), 60)
        with open(log, "a", encoding="ascii") as stream:
            for lease in leases:
                stream.write(f"+{lease.port}\n")
        time.sleep(random.uniform(0, 0.01))
        with open(log, "a", encoding="ascii") as stream:
            for lease in leases:
                stream.write(f"-{lease.port}\n")
        for lease in leases:
            lease.release()


def test_twenty_processes_compete_for_the_last_ports_without_deadlock_or_double_use(state, tmp_path):
    pool = PortPool(state, FIRST + 50, FIRST + 53)  # no two that want three fit, and one of two plus one of three neither
    log = tmp_path / "log"
    log.write_text("")
    workers = [FORK.Process(target=_compete, args=(pool, number, str(log))) for number in range(20)]
    for worker in workers:
        worker.start()
    while any(worker.is_alive() for worker in workers):
        assert pool.metrics()["allocated"] <= 4
        time.sleep(0.02)
    for worker in workers:
        worker.join()
    assert [worker.exitcode for worker in workers] == [0] * 20
    held = set()
    for line in log.read_text().split():
        sign, port = line[0], line[1:]
        if sign == "+":
            assert port not in held
            held.add(port)
        else:
            held.remove(port)
    assert held == set() and pool.list() == []


def test_who_only_looks_does_not_make_the_pool_look_exhausted(pool):
    pool.allocate(_owners(1), 0)[0].release()
    looking = threading.Event()

    def look():
        with pool._lock(fcntl.LOCK_SH, 0.0) as locked:
            assert locked
            looking.set()
            time.sleep(TRY_SECONDS / 2)

    reader = threading.Thread(target=look)
    reader.start()
    looking.wait(5)
    pool.allocate(_owners(1), 0)[0].release()
    reader.join()


def test_a_stopped_holder_of_the_pool_lock_stops_nobody_for_ever(pool):
    """An allocator that hangs inside the lock costs others their wait, not their life."""
    ours, theirs = FORK.Pipe()

    def hang():
        with pool._lock(fcntl.LOCK_EX, 0.0) as locked:
            theirs.send(locked)
            signal.pause()

    child = FORK.Process(target=hang)
    child.start()
    assert ours.recv() is True
    assert pool.try_allocate(_owners(1)) is None
    child.kill()
    child.join()
    pool.allocate(_owners(1), 0)[0].release()
    ours.close()
    theirs.close()
