# Copyright: (c) 2026, Sendense contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

import multiprocessing
import os
import time

import pytest

from ansible_collections.sendense.platform.plugins.module_utils.errors import InvalidInputError, JobNotFoundError, JobRunningError
from ansible_collections.sendense.platform.plugins.module_utils.hubstate.jobs import JobDir, job_alive, list_jobs, sweep_jobs
from ansible_collections.sendense.platform.plugins.module_utils.hubstate.statedir import StateDir

JOB = "0123456789abcdef" * 2
FORK = multiprocessing.get_context("fork")


@pytest.fixture
def job(state):
    made = JobDir.create(state, JOB, "hub", {"machine_key": "libvirt-1"})
    yield made
    made.lock.release()


@pytest.mark.parametrize("job_id", ["", "../../etc", "A" * 32, "a" * 31, "a" * 33, "a" * 31 + "\n", "-" * 32, None, 7])
def test_only_hex_becomes_part_of_a_path(state, job_id):
    with pytest.raises(InvalidInputError):
        JobDir(state, job_id, "hub")


def test_only_two_roles(state):
    with pytest.raises(InvalidInputError):
        JobDir(state, JOB, "../x")


def test_a_job_is_found_with_its_facts(state, job):
    found = JobDir.open(state, JOB, "hub")
    meta = found.meta()
    assert (meta["job_id"], meta["role"], meta["machine_key"]) == (JOB, "hub", "libvirt-1")
    assert abs(meta["created_at"] - time.time()) < 60
    found.update_meta(pid=7)
    assert job.meta()["pid"] == 7
    assert [other.path for other in list_jobs(state)] == [job.path]


def test_a_job_lives_as_long_as_its_lock_is_held(state, job):
    assert job.alive() and job_alive(state, JOB)
    assert not job_alive(state, "f" * 32)
    job.lock.detach()
    assert not job.alive() and not job_alive(state, JOB)


def test_no_instant_of_a_creation_looks_dead(state):
    """What list_jobs shows must be alive, also while others create and remove jobs as fast as they can."""

    def churn(number):
        for count in range(30):
            made = JobDir.create(state, f"{number:016x}{count:016x}", "node", {})
            made.remove()
            made.lock.release()

    makers = [FORK.Process(target=churn, args=(number,)) for number in range(3)]
    for maker in makers:
        maker.start()
    dead = []
    while any(maker.is_alive() for maker in makers):
        dead += [job.path for job in list_jobs(state) if not job.alive() and os.path.isdir(job.path)]
    for maker in makers:
        maker.join()
    assert dead == []
    assert os.listdir(state.jobs) == []


def test_the_same_job_twice_is_refused_and_leaves_nothing(state, job):
    with pytest.raises(JobRunningError, match="is running"):
        JobDir.create(state, JOB, "hub", {})
    job.lock.detach()
    with pytest.raises(JobRunningError, match="dead keeper"):
        JobDir.create(state, JOB, "hub", {})
    assert os.listdir(state.jobs) == [f"{JOB}-hub"]


def test_both_roles_share_a_place(state, job):
    other = JobDir.create(state, JOB, "node", {})
    assert len(list_jobs(state)) == 2
    other.lock.release()


def test_beat_and_cancel(state, job):
    os.utime(job.heartbeat_path, (1, 1))
    job.beat()
    assert os.stat(job.heartbeat_path).st_mtime > 1
    assert not job.cancelled()
    job.cancel()
    job.cancel()
    assert JobDir.open(state, JOB, "hub").cancelled()


def test_a_job_that_is_gone_says_so(state, job):
    job.remove()
    job.remove()
    for action in (job.beat, job.cancel, job.meta, lambda: JobDir.open(state, JOB, "hub")):
        with pytest.raises(JobNotFoundError):
            action()
    assert list_jobs(state) == []
    assert os.listdir(state.jobs) == []


def test_undos_are_kept_in_order(job):
    assert job.undos() == []
    undos = [{"name": "a", "argv": ["true"]}, {"name": "b", "argv": ["false"]}]
    job.save_undos(undos)
    assert job.undos() == undos


def test_only_one_claims_a_dead_job(state, job):
    assert not JobDir.open(state, JOB, "hub").claim()
    job.lock.detach()
    first, second = JobDir.open(state, JOB, "hub"), JobDir.open(state, JOB, "hub")
    assert first.claim()
    assert not second.claim()
    first.lock.release()


def test_jobs_of_an_empty_place(tmp_path):
    assert list_jobs(StateDir(str(tmp_path / "none"))) == []


def test_leftovers_of_crashes_are_swept_when_they_are_old(state):
    old, young = os.path.join(state.jobs, f".gone-{JOB}-hub-1"), os.path.join(state.jobs, f".new-{JOB}-node-1")
    for path in (old, young):
        os.mkdir(path)
        with open(os.path.join(path, "job.json"), "w", encoding="ascii") as stream:
            stream.write("{}")
    long_ago = time.time() - 3600
    os.utime(old, (long_ago, long_ago))
    assert sweep_jobs(state) == [os.path.basename(old)]
    assert os.listdir(state.jobs) == [os.path.basename(young)]
