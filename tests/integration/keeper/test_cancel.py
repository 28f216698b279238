# Copyright: (c) 2026, Sendense contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A keeper ends its job when it is cancelled, and when the process that wanted it is gone on the same machine."""

from __future__ import annotations

import os
import subprocess
import time
from contextlib import suppress

import pytest

from ansible_collections.sendense.platform.plugins.module_utils.errors import (
    JobAbandonedError,
    JobCancelledError,
    JobNotFoundError,
    KeeperFailedError,
)
from ansible_collections.sendense.platform.plugins.module_utils.hubstate import cancelling
from ansible_collections.sendense.platform.plugins.module_utils.hubstate.controller import identify
from ansible_collections.sendense.platform.plugins.module_utils.hubstate.files import read_tail
from ansible_collections.sendense.platform.plugins.module_utils.hubstate.ports import PortPool
from ansible_collections.sendense.platform.plugins.module_utils.hubstate.processes import start_time
from ansible_collections.sendense.platform.plugins.module_utils.jobs import cancel, place
from tests.integration.keeper.conftest import FIRST, LAST, eventually

#: Seconds from the request to the end of a job whose undo takes no time, on a busy machine.
END_SECONDS = 5.0


def _undo(started, trace, seconds=0):
    started.client.undo_add("snapshot", ["/bin/sh", "-c", 'sleep "$2"; echo undone >> "$1"', "sh", str(trace), str(seconds)])


def _params(started, **other):
    given = {"state_dir": started.state.path, "platform": "libvirt", "machine_id": "1", "machine_key": "", "job_ids": [], "wait": 10}
    return dict(given, **other)


def _is_empty(state):
    return [name for folder in (state.jobs, state.exports, state.leases) for name in os.listdir(folder)] == []


@pytest.fixture
def controller():
    """A process that stands for ansible-playbook."""
    process = subprocess.Popen(["sleep", "60"])
    yield process
    process.kill()
    process.wait()


def test_a_cancelled_job_is_undone_at_once(start, image, tmp_path):
    started = start()
    ports = started.lease(2)
    servers = [started.serve(image, port=ports[0]), started.client.start("copy", ["sleep", "60"], kind="mover")]
    started.client.hold("backup-x-libvirt-1", {"what": "machine 1"})
    _undo(started, tmp_path / "trace")
    before = time.monotonic()
    started.job.cancel()
    eventually(started.gone)
    assert time.monotonic() - before < END_SECONDS
    assert (tmp_path / "trace").read_text() == "undone\n"
    assert [pid for pid in servers if start_time(pid)] == []
    assert PortPool(started.state, FIRST, LAST).list() == [] and _is_empty(started.state)


def test_everybody_who_still_works_for_a_cancelled_job_is_told_so(start, state, tmp_path):
    started = start()
    _undo(started, tmp_path / "trace", seconds=1)
    started.job.cancel()
    eventually(lambda: cancelling.read_note(started.job.path))
    with pytest.raises(JobCancelledError, match="cancelled"):
        started.client.undo_remove("snapshot")
    with pytest.raises(JobCancelledError):
        place.attach({"state_dir": state.path}, "hub", started.job.job_id)
    eventually(started.gone)
    assert (tmp_path / "trace").exists()
    with pytest.raises(JobCancelledError) as told:
        started.client.ping()
    assert told.value.details == {"job_id": started.job.job_id, "role": "hub"}
    with pytest.raises(JobCancelledError):
        place.attach({"state_dir": state.path}, "hub", started.job.job_id)
    assert place.attach_to_end({"state_dir": state.path}, "hub", started.job.job_id) is None
    with pytest.raises(JobNotFoundError):
        place.attach({"state_dir": state.path}, "hub", started.job.job_id)
    assert os.listdir(os.path.join(state.path, "cancelled")) == []


def test_the_end_of_a_job_waits_for_a_keeper_that_is_ending_it(start, state, tmp_path):
    started = start()
    _undo(started, tmp_path / "trace", seconds=1)
    found = place.attach({"state_dir": state.path}, "hub", started.job.job_id)
    started.job.cancel()
    eventually(lambda: cancelling.read_note(started.job.path))
    found.finish()
    assert (tmp_path / "trace").exists() and _is_empty(state) and os.listdir(os.path.join(state.path, "cancelled")) == []


def test_a_caller_that_waits_is_told_of_the_cancel(start):
    started, other = start(), start()
    other.lease(LAST - FIRST + 1)
    started.job.cancel()
    with pytest.raises(JobCancelledError):
        started.lease(1, wait_s=20)
    eventually(started.gone)
    assert not other.gone()


def test_a_job_ends_with_its_controller(start, state, controller, tmp_path):
    started = start(meta={"machine_key": "libvirt-1", "controller": identify(controller.pid)})
    _undo(started, tmp_path / "trace", seconds=1)
    time.sleep(1)
    assert not started.gone()
    controller.kill()  # not waited for: a zombie is as dead as it gets
    killed = time.monotonic()
    eventually(lambda: "ends: controller" in read_tail(started.job.log_path))
    with pytest.raises(JobAbandonedError, match="ansible-playbook has ended"):
        started.lease(1)
    eventually(started.gone)
    assert time.monotonic() - killed < END_SECONDS
    assert (tmp_path / "trace").exists() and _is_empty(state)
    assert not os.path.exists(os.path.join(state.path, "cancelled"))


def test_a_controller_that_cannot_be_seen_from_here_is_not_missed(start, controller):
    elsewhere = [dict(identify(controller.pid), boot_id="another"), dict(identify(controller.pid), namespace=1), {}]
    jobs = [start(meta={"machine_key": "libvirt-1", "controller": known}) for known in elsewhere]
    controller.kill()
    controller.wait()
    time.sleep(1.5)
    assert [job.gone() for job in jobs] == [False] * 3
    for job in jobs:
        job.client.finish()


def test_a_job_whose_controller_was_dead_before_it_began_is_undone(start, state, controller):
    known = identify(controller.pid)
    controller.kill()
    controller.wait()
    with suppress(KeeperFailedError):  # it may be gone before it has answered once
        start(meta={"machine_key": "libvirt-1", "controller": known})
    eventually(lambda: _is_empty(state))


def test_jobs_of_the_machine_are_cancelled_and_of_no_other(start, tmp_path):
    mine = [start(), start(role="node")]
    other = start(meta={"machine_key": "libvirt-2"})
    _undo(mine[0], tmp_path / "trace")
    would = cancel.cancel_jobs(_params(mine[0]), check_mode=True)
    assert would["changed"] and sorted(job["role"] for job in would["jobs"]) == ["hub", "node"]
    assert not any(started.job.cancelled() for started in mine)
    done = cancel.cancel_jobs(_params(mine[0]), check_mode=False)
    assert done == would
    assert all(started.gone() or not started.job.alive() for started in mine) and (tmp_path / "trace").exists()
    assert not other.job.cancelled()
    assert cancel.cancel_jobs(_params(mine[0]), check_mode=False)["changed"] is False
    other.client.finish()


def test_only_the_named_job_is_cancelled(start):
    first, second = start(meta={"machine_key": "libvirt-1", "kind": "prune"}), start()
    done = cancel.cancel_jobs(_params(first, job_ids=[first.job.job_id]), check_mode=False)
    assert [(job["job_id"], job["kind"]) for job in done["jobs"]] == [(first.job.job_id, "prune")]
    assert second.job.alive() and not second.job.cancelled()
    second.client.finish()


def test_a_job_that_does_not_end_in_time_is_an_error_and_asking_again_changes_nothing(start, tmp_path):
    started = start()
    _undo(started, tmp_path / "trace", seconds=3)
    with pytest.raises(place.JobRunningError, match="not ended within 1 s"):
        cancel.cancel_jobs(_params(started, wait=1), check_mode=False)
    again = cancel.cancel_jobs(_params(started, wait=30), check_mode=False)
    assert again["changed"] is False and again["jobs"][0]["requested_before"] is True
    assert (tmp_path / "trace").exists()
