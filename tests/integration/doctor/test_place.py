# Copyright: (c) 2026, Sendense contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What the doctor finds at a place: jobs whose keeper was really killed, processes that outlived it, files of the dead."""

from __future__ import annotations

import os
import signal
import time
import uuid
from pathlib import Path

from ansible_collections.sendense.platform.plugins.module_utils.hubstate.locks import FileLease
from ansible_collections.sendense.platform.plugins.module_utils.hubstate.processes import is_alive, start_time
from ansible_collections.sendense.platform.plugins.module_utils.hubstate.statedir import StateDir
from ansible_collections.sendense.platform.plugins.module_utils.jobs.doctor.kinds import MENDABLE
from ansible_collections.sendense.platform.plugins.module_utils.jobs.doctor.place import examine_place, mend_place
from tests.integration.keeper.conftest import PYTHON, agent, agent_content, eventually, image, start, state

__all__ = ["agent", "agent_content", "image", "start", "state"]

STRAY = "import ctypes, sys, time; ctypes.CDLL(None).prctl(1, 0, 0, 0, 0); print('free', file=sys.stderr, flush=True); time.sleep(60)"


def kinds(found):
    return sorted(one.kind for one in found)


def mended(state):
    found = examine_place(state, "hub")
    mend_place(state, found, MENDABLE)
    return found


def kill(started):
    os.kill(started.pid, signal.SIGKILL)
    eventually(started.gone)


def test_a_place_where_nothing_ever_ran_has_no_findings_and_stays_as_it_is(tmp_path):
    state = StateDir(str(tmp_path / "none"))
    assert mended(state) == []
    assert not (tmp_path / "none").exists()


def test_a_living_job_is_no_finding(start, image):
    living = start()
    living.serve(image, port=living.lease()[0])
    living.client.hold("backup-x-libvirt-1", {})
    assert mended(living.state) == []
    assert living.client.ping()["ports"]


def test_a_dead_job_is_undone_and_what_it_left_goes_with_it(start, image, tmp_path):
    living, dead = start(), start()
    port = dead.lease()[0]
    server = dead.serve(image, port=port)
    dead.client.hold("backup-x-libvirt-1", {})
    dead.client.undo_add("snapshot", ["/bin/sh", "-c", 'echo undone > "$1"', "sh", str(tmp_path / "trace")])
    kill(dead)
    eventually(lambda: start_time(server) is None)
    told = examine_place(dead.state, "hub")
    assert kinds(told) == ["dead_job", "stale_lease", "stale_lease"]
    job = next(one for one in told if one.kind == "dead_job")
    assert (job.machine_key, job.mendable) == ("libvirt-1", True) and "to undo: snapshot" in job.found
    assert not (tmp_path / "trace").exists()

    assert all(one.mended for one in mended(dead.state))
    assert (tmp_path / "trace").read_text() == "undone\n"
    assert examine_place(dead.state, "hub") == [] and living.client.ping()
    assert not any(one.mended for one in mended(dead.state))


def test_an_undo_that_fails_is_said(start):
    dead = start()
    dead.client.undo_add("gated", ["/bin/sh", "-c", "exit 7"])
    kill(dead)
    (found,) = mended(dead.state)
    assert not found.mended and "gated: exit code 7" in found.why_not
    assert kinds(examine_place(dead.state, "hub")) == ["dead_job"]


def test_a_process_that_outlived_its_keeper_is_killed(start):
    dead = start()
    pid = dead.client.start("stray", [PYTHON, "-c", STRAY], kind="mover")
    eventually(lambda: dead.client.child("stray")["stderr_tail"] == "free")
    born = start_time(pid)
    kill(dead)
    found = mended(dead.state)
    assert kinds(found) == ["dead_job", "stray_process"] and all(one.mended for one in found)
    assert not is_alive(pid, born)


def test_a_keeper_that_lives_without_a_heart_is_named_and_left(start):
    hung = start()
    old = time.time() - 1000
    os.utime(hung.job.heartbeat_path, (old, old))
    (found,) = mended(hung.state)
    assert (found.kind, found.object, found.mended, found.mendable) == ("hung_job", hung.job.path, False, False)
    assert hung.client.ping()


def test_files_that_mean_nothing_are_removed_and_what_is_held_or_foreign_stays(state):
    held = FileLease.acquire(os.path.join(state.leases, "held.lease"), {})
    for path in (Path(state.leases, "stale.lease"), Path(state.ports, "10199.lease"), Path(state.leases, "notes.txt")):
        path.write_text("{}\n")
    record = {"job": "a" * 32, "role": "hub", "name": "target-disk0", "port": 10198, "pid": 1 << 22, "starttime": 1}
    Path(state.exports, "10198.json").write_text(str(record).replace("'", '"'))
    fresh, old = Path(state.jobs, f".new-{uuid.uuid4().hex}-hub-1"), Path(state.jobs, f".gone-{uuid.uuid4().hex}-hub-1")
    fresh.mkdir()
    old.mkdir()
    os.utime(old, (1, 1))
    found = mended(state)
    assert kinds(found) == ["half_made_job", "stale_export", "stale_lease", "stale_lease"]
    assert all(one.mended for one in found)
    assert sorted(os.listdir(state.leases)) == ["held.lease", "notes.txt"] and fresh.exists()
    assert examine_place(state, "hub") == []
    held.release()


def test_only_what_was_asked_for_is_mended(state):
    Path(state.leases, "stale.lease").write_text("{}\n")
    old = Path(state.jobs, f".gone-{uuid.uuid4().hex}-hub-1")
    old.mkdir()
    os.utime(old, (1, 1))
    found = examine_place(state, "hub")
    mend_place(state, found, frozenset({"half_made_job"}))
    assert {one.kind: one.mended for one in found} == {"half_made_job": True, "stale_lease": False}
    assert not old.exists() and os.listdir(state.leases) == ["stale.lease"]
