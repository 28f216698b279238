# Copyright: (c) 2026, Sendense contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

import os
import subprocess

import pytest

from ansible_collections.sendense.platform.plugins.module_utils.hubstate import cancelling, controller
from ansible_collections.sendense.platform.plugins.module_utils.hubstate.jobs import JobDir

JOB = "0123456789abcdef0123456789abcdef"


@pytest.fixture
def job(state):
    made = JobDir.create(state, JOB, "node", {})
    yield made
    made.lock.release()


def test_a_marker_and_later_a_note_say_that_a_job_was_cancelled(job):
    assert not cancelling.was_cancelled(job.path) and cancelling.read_note(job.path) is None
    job.cancel()
    assert cancelling.was_cancelled(job.path)
    cancelling.leave_note(job.path, ["point"])
    job.remove()
    assert cancelling.was_cancelled(job.path) and cancelling.read_note(job.path) == ["point"]
    assert os.stat(cancelling.note_path(job.path)).st_mode & 0o777 == 0o600
    cancelling.forget_note(job.path)
    cancelling.forget_note(job.path)
    assert not cancelling.was_cancelled(job.path)


def test_the_error_names_job_and_place(job):
    error = cancelling.cancelled_error(job.path)
    assert error.error_code == "JOB_CANCELLED" and JOB in error.msg and "node" in error.msg
    assert error.details == {"job_id": JOB, "role": "node"}


def test_a_process_fails_because_of_the_cancel_of_a_job_that_it_works_for(job, monkeypatch):
    monkeypatch.setattr(cancelling, "_attended", {})
    job.cancel()
    assert cancelling.attended_cancellation() is None
    cancelling.attend(job.path)
    assert cancelling.attended_cancellation().details["job_id"] == JOB


def test_the_process_that_began_a_cancelled_job_takes_its_note(state, monkeypatch):
    monkeypatch.setattr(cancelling, "_attended", {})
    path = JobDir(state, JOB, "hub").path
    cancelling.leave_note(path, [])
    cancelling.attend(path, begins=True)
    assert cancelling.attended_cancellation().details == {"job_id": JOB, "role": "hub"}
    assert not cancelling.was_cancelled(path) and cancelling.attended_cancellation() is None


@pytest.mark.parametrize(
    "age, swept", [(0, False), (cancelling.NOTE_SECONDS - 60, False), (cancelling.NOTE_SECONDS + 60, True), (-60, True)]
)
def test_old_notes_and_notes_from_the_future_are_swept(job, age, swept):
    cancelling.leave_note(job.path, [])
    path = cancelling.note_path(job.path)
    then = os.stat(path).st_mtime - age
    os.utime(path, (then, then))
    assert cancelling.sweep_notes(job.state) == ([os.path.basename(path)] if swept else [])
    assert os.path.exists(path) != swept


def test_without_any_note_there_is_nothing_to_sweep(job):
    assert cancelling.sweep_notes(job.state) == []


def test_a_process_that_ended_is_gone_also_as_a_zombie_and_if_its_pid_lives_again():
    process = subprocess.Popen(["sleep", "60"])
    known = controller.identify(process.pid)
    assert not controller.is_gone(known)
    assert controller.is_gone(dict(known, starttime=known["starttime"] - 1))
    process.kill()
    os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)
    assert controller.is_gone(known)
    process.wait()
    assert controller.is_gone(known)


def test_what_another_machine_or_container_runs_is_never_gone():
    known = dict(controller.identify(os.getpid()), starttime=1)
    assert controller.is_gone(known)
    assert not controller.is_gone(dict(known, boot_id="00000000-0000-0000-0000-000000000000"))
    assert not controller.is_gone(dict(known, namespace=1))
    assert not controller.is_gone({})
