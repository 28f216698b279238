# Copyright: (c) 2026, Sendense contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

import multiprocessing
import os
import signal
import time

import pytest

from ansible_collections.sendense.platform.plugins.module_utils.errors import LeaseHeldError
from ansible_collections.sendense.platform.plugins.module_utils.hubstate import locks
from ansible_collections.sendense.platform.plugins.module_utils.hubstate.locks import FileLease, holder, sweep

FORK = multiprocessing.get_context("fork")


@pytest.fixture
def path(tmp_path):
    return str(tmp_path / "machine.lease")


def test_one_holder_at_a_time(path):
    lease = FileLease.acquire(path, {"job": "one", "what": "machine 1"})
    with pytest.raises(LeaseHeldError, match="machine 1") as refused:
        FileLease.acquire(path, {"job": "two"})
    assert refused.value.details["job"] == "one"
    assert refused.value.details["pid"] == os.getpid()
    assert refused.value.retryable
    lease.release()
    FileLease.acquire(path, {"job": "two"}).release()


def test_holder_says_who(path):
    assert holder(path) is None
    lease = FileLease.acquire(path, {"job": "one"})
    assert holder(path)["job"] == "one"
    lease.release()
    assert holder(path) is None
    assert not os.path.exists(path)
    lease.release()


def test_a_leftover_file_is_nobodys(path):
    with open(path, "w", encoding="ascii") as stream:
        stream.write('{"job": "dead", "pid": 1, "starttime": 1, "shared": true}\n')
    assert holder(path) is None
    lease = FileLease.acquire(path, {"job": "new"})
    assert holder(path)["job"] == "new"
    lease.release()


def test_shared_holders_exclude_an_exclusive_one(path):
    first = FileLease.acquire(path, {"job": "one"}, shared=True)
    second = FileLease.acquire(path, {"job": "two"}, shared=True)
    assert holder(path)["job"] in ("one", "two")
    first.release()
    assert holder(path)["shared"] is True
    with pytest.raises(LeaseHeldError):
        FileLease.acquire(path, {"job": "three"})
    second.release()
    assert holder(path) is None
    exclusive = FileLease.acquire(path, {"job": "three"})
    with pytest.raises(LeaseHeldError):
        FileLease.acquire(path, {"job": "four"}, shared=True)
    exclusive.release()
    assert not os.path.exists(path)


def _hold_for_ever(path, pipe):
    FileLease.acquire(path, {"job": "child"})
    pipe.send(os.getpid())
    signal.pause()


def test_kill_frees_the_lease(path):
    ours, theirs = FORK.Pipe()
    child = FORK.Process(target=_hold_for_ever, args=(path, theirs))
    child.start()
    ours.recv()
    with pytest.raises(LeaseHeldError):
        FileLease.acquire(path, {"job": "parent"})
    child.kill()
    child.join()
    lease = FileLease.acquire(path, {"job": "parent"})
    assert holder(path)["job"] == "parent"
    lease.release()
    ours.close()
    theirs.close()


def _inherit(path, descriptor, pipe):
    lease = FileLease.adopt(path, descriptor)
    pipe.send(holder(path))
    pipe.recv()
    lease.release()


def test_a_lease_can_be_handed_over_without_a_gap(path):
    lease = FileLease.acquire(path, {"job": "one"})
    ours, theirs = FORK.Pipe()
    child = FORK.Process(target=_inherit, args=(path, lease.fileno(), theirs))
    child.start()
    described = ours.recv()
    lease.detach()
    assert described["pid"] == child.pid and described["job"] == "one"
    assert holder(path)["pid"] == child.pid
    with pytest.raises(LeaseHeldError):
        FileLease.acquire(path, {"job": "two"})
    ours.send("end")
    child.join()
    assert holder(path) is None
    ours.close()
    theirs.close()


def _count(path, counter, rounds):
    """A critical section that loses updates if two are inside."""
    done = 0
    while done < rounds:
        try:
            lease = FileLease.acquire(path, {"job": str(os.getpid())}, patience_s=5.0)
        except LeaseHeldError:
            continue
        with open(counter, encoding="ascii") as stream:
            value = int(stream.read())
        time.sleep(0.0005)
        with open(counter, "w", encoding="ascii") as stream:
            stream.write(str(value + 1))
        lease.release()
        done += 1


def test_release_and_removal_never_let_two_in(path, tmp_path):
    counter = tmp_path / "counter"
    counter.write_text("0")
    workers = [FORK.Process(target=_count, args=(path, str(counter), 25)) for _ in range(4)]
    for worker in workers:
        worker.start()
    while any(worker.is_alive() for worker in workers):
        holder(path)  # looking must not disturb
        time.sleep(0.002)
    for worker in workers:
        worker.join()
    assert [worker.exitcode for worker in workers] == [0] * 4
    assert counter.read_text() == "100"


def test_a_file_that_was_removed_between_open_and_lock_is_not_the_lease(path, monkeypatch):
    """The releaser unlinks, a third one takes the new file of that name: who locked the old file has nothing."""
    first = FileLease.acquire(path, {"job": "first"})
    real, others = locks._try_lock, []

    def interrupted(descriptor, mode):
        if not others:
            others.append(None)
            first.release()
            others[0] = FileLease.acquire(path, {"job": "other"})
        return real(descriptor, mode)

    monkeypatch.setattr(locks, "_try_lock", interrupted)
    with pytest.raises(LeaseHeldError) as refused:
        FileLease.acquire(path, {"job": "late"})
    assert refused.value.details["job"] == "other"
    others[0].release()


def test_looking_does_not_make_an_acquirer_fail(path):
    """holder() locks for an instant; who acquires at that instant must not see a holder that does not exist."""
    with open(path, "w", encoding="ascii") as stream:
        stream.write('{"job": "dead", "shared": true}\n')
    stop = FORK.Event()

    def look():
        while not stop.is_set():
            holder(path)

    watcher = FORK.Process(target=look)
    watcher.start()
    for _ in range(200):
        FileLease.acquire(path, {"job": "me"}).release()
    stop.set()
    watcher.join()
    assert watcher.exitcode == 0


def test_a_lease_file_that_is_a_link_is_refused(path, tmp_path):
    os.symlink(tmp_path / "elsewhere", path)
    with pytest.raises(OSError):
        FileLease.acquire(path, {})
    assert not (tmp_path / "elsewhere").exists()


def test_sweep_removes_only_what_nobody_holds(tmp_path):
    (tmp_path / "dead.lease").write_text("{}")
    (tmp_path / "other.txt").write_text("")
    lease = FileLease.acquire(str(tmp_path / "held.lease"), {})
    assert sweep(str(tmp_path)) == ["dead.lease"]
    assert sorted(os.listdir(tmp_path)) == ["held.lease", "other.txt"]
    lease.release()
