# Copyright: (c) 2026, Sendense contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

import multiprocessing
import os
import signal

from ansible_collections.sendense.platform.plugins.module_utils.agent.cleanup import cleanup_dead_jobs
from ansible_collections.sendense.platform.plugins.module_utils.datapath.export_table import ExportTable
from ansible_collections.sendense.platform.plugins.module_utils.hubstate.jobs import list_jobs
from ansible_collections.sendense.platform.plugins.module_utils.hubstate.locks import holder
from ansible_collections.sendense.platform.plugins.module_utils.hubstate.ports import PortPool
from ansible_collections.sendense.platform.plugins.module_utils.hubstate.processes import is_alive, start_time
from ansible_collections.sendense.platform.plugins.module_utils.hubstate.statedir import StateDir
from tests.integration.keeper.conftest import FIRST, LAST, PYTHON, eventually


def _undo(started, name, trace, script='echo "$1" >> "$2"'):
    started.client.undo_add(name, ["/bin/sh", "-c", script, "sh", name, str(trace)])


def _kill(started):
    os.kill(started.pid, signal.SIGKILL)
    eventually(started.gone)


def test_a_killed_keeper_takes_its_servers_along_and_cleanup_undoes_the_rest(start, image, tmp_path):
    started = start()
    trace = tmp_path / "trace"
    port = started.lease()[0]
    children = [
        started.serve(image, port=port, writable=True),
        started.client.start("copy", ["sleep", "60"], kind="mover"),
    ]
    started.client.hold("backup-x-libvirt-1", {"what": "machine 1"})
    for name in ("snapshot", "point"):
        _undo(started, name, trace)
    _kill(started)
    eventually(lambda: not [pid for pid in children if start_time(pid)])
    # The kernel has given everything back already; only files and the undo commands are left.
    assert PortPool(started.state, FIRST, LAST).list() == []
    assert holder(os.path.join(started.state.leases, "backup-x-libvirt-1.lease")) is None
    assert ExportTable(started.state).status(port)["state"] == "dead"
    assert not started.job.alive()

    expected = [undo["name"] for undo in started.job.undos()]
    assert [entry["undone"] for entry in cleanup_dead_jobs(started.state, dry_run=True)] == [expected]
    assert not trace.exists()

    entries = cleanup_dead_jobs(started.state)
    assert len(entries) == 1
    entry = entries[0]
    assert (entry["kind"], entry["job_id"], entry["role"], entry["machine_key"]) == ("job", started.job.job_id, "hub", "libvirt-1")
    assert (entry["undone"], entry["failed"], entry["removed"]) == (["point", "snapshot"], [], True)
    assert entry["exports"] == ["libvirt-1-disk0"]
    assert trace.read_text().split() == ["point", "snapshot"]
    for folder in (started.state.jobs, started.state.exports, started.state.leases):
        assert os.listdir(folder) == []
    assert os.listdir(started.state.ports) == ["pool.lock"]
    assert cleanup_dead_jobs(started.state) == []


def test_the_living_are_not_touched(start, image):
    living, dead = start(), start()
    port = living.lease()[0]
    pid = living.serve(image, port=port)
    living.client.undo_add("snapshot", ["false"])
    living.client.hold("backup-x-libvirt-1", {})
    _kill(dead)
    assert [entry["job_id"] for entry in cleanup_dead_jobs(living.state)] == [dead.job.job_id]
    assert living.client.ping()["ports"] == [port] and start_time(pid)
    assert ExportTable(living.state).is_active(port)
    assert PortPool(living.state, FIRST, LAST).is_allocated(port)
    assert holder(os.path.join(living.state.leases, "backup-x-libvirt-1.lease"))["job"] == living.job.job_id


def test_a_failed_undo_is_reported_and_tried_again(start, tmp_path):
    started = start()
    trace, gate = tmp_path / "trace", tmp_path / "gate"
    _undo(started, "first", trace)
    started.client.undo_add("gated", ["/bin/sh", "-c", 'test -e "$1"', "sh", str(gate)])
    answer = started.client.abort()
    assert answer["undone"] == ["first"]
    assert answer["failed"][0]["name"] == "gated" and "exit code 1" in answer["failed"][0]["error"]
    assert [job.path for job in list_jobs(started.state)] == [started.job.path]

    entry = cleanup_dead_jobs(started.state)[0]
    assert entry["removed"] is False and [failure["name"] for failure in entry["failed"]] == ["gated"]
    gate.touch()
    entry = cleanup_dead_jobs(started.state)[0]
    assert (entry["removed"], entry["undone"]) == (True, ["gated"])
    assert trace.read_text() == "first\n"
    assert list_jobs(started.state) == []


def test_two_cleanups_at_once_undo_once(start, tmp_path):
    started = start()
    trace = tmp_path / "trace"
    _undo(started, "slow", trace, 'sleep 0.5; echo "$1" >> "$2"')
    _kill(started)
    context = multiprocessing.get_context("fork")
    cleaners = [context.Process(target=cleanup_dead_jobs, args=(started.state,)) for _ in range(4)]
    for cleaner in cleaners:
        cleaner.start()
    for cleaner in cleaners:
        cleaner.join()
    assert [cleaner.exitcode for cleaner in cleaners] == [0] * 4
    assert trace.read_text() == "slow\n"
    assert list_jobs(started.state) == []


def test_an_orphan_that_survived_its_keeper_is_killed(start):
    started = start()
    script = "import ctypes, sys, time; ctypes.CDLL(None).prctl(1, 0, 0, 0, 0); print('free', file=sys.stderr, flush=True); time.sleep(60)"
    pid = started.client.start("stray", [PYTHON, "-c", script], kind="mover")
    eventually(lambda: started.client.child("stray")["stderr_tail"] == "free")
    born = start_time(pid)
    _kill(started)
    assert is_alive(pid, born)
    assert cleanup_dead_jobs(started.state)[0]["killed"] == ["stray"]
    assert not is_alive(pid, born)


def test_another_process_with_the_pid_of_a_dead_child_is_not_killed(start):
    started = start()
    started.client.start("copy", ["sleep", "60"], kind="mover")
    _kill(started)
    started.job.save_children([{"name": "copy", "kind": "mover", "pid": os.getpid(), "starttime": 1}])
    assert cleanup_dead_jobs(started.state)[0]["killed"] == []


def test_a_place_without_jobs_has_nothing_to_clean(tmp_path):
    assert cleanup_dead_jobs(StateDir(str(tmp_path / "none"))) == []
    assert not (tmp_path / "none").exists()
