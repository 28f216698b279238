# Copyright: (c) 2026, Sendense contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

import os
import signal
import socket
import time
import uuid
from contextlib import suppress

import pytest

from ansible_collections.sendense.platform.plugins.module_utils.agent.cleanup import cleanup_dead_jobs
from ansible_collections.sendense.platform.plugins.module_utils.agent.launch import start_keeper
from ansible_collections.sendense.platform.plugins.module_utils.errors import (
    InvalidInputError,
    JobAbandonedError,
    JobNotFoundError,
    JobRunningError,
    KeeperFailedError,
    SendenseError,
)
from ansible_collections.sendense.platform.plugins.module_utils.hubstate.jobs import job_alive
from ansible_collections.sendense.platform.plugins.module_utils.hubstate.ports import PortPool
from ansible_collections.sendense.platform.plugins.module_utils.hubstate.processes import start_time
from ansible_collections.sendense.platform.plugins.module_utils.jobs import place
from tests.integration.keeper.conftest import FIRST, LAST, PYTHON, eventually


def _undo(started, name, trace, code=0):
    started.client.undo_add(name, ["/bin/sh", "-c", 'echo "$1" >> "$2"; exit "$3"', "sh", name, str(trace), str(code)])


def test_a_keeper_is_detached_and_private(start):
    started = start()
    answer = started.client.ping()
    assert (answer["job_id"], answer["role"], answer["children"]) == (started.job.job_id, "hub", {})
    assert started.job.alive() and job_alive(started.state, started.job.job_id)
    assert started.job.meta()["pid"] == started.pid and started.job.meta()["starttime"] == start_time(started.pid)
    with open(f"/proc/{started.pid}/stat", encoding="ascii") as stream:
        _pid, _name, _state, parent, _group, session = stream.read().split()[:6]
    assert int(parent) != os.getpid() and int(session) != os.getsid(0)
    assert os.stat(started.job.socket_path).st_mode & 0o777 == 0o600
    ours = ("/dev/null", started.job.path, "socket:[", "anon_inode:", started.agent)
    assert [name for name in _open_files(started.pid) if not name.startswith(ours)] == []


def _open_files(pid):
    names = []
    for number in os.listdir(f"/proc/{pid}/fd"):
        with suppress(FileNotFoundError):  # the connection of the ping may just be ending
            names.append(os.readlink(f"/proc/{pid}/fd/{number}"))
    return names


def test_finish_leaves_nothing(start, image, tmp_path):
    started = start()
    ports = started.lease(2)
    pid = started.serve(image, port=ports[0])
    started.client.hold("backup-x-libvirt-1", {"what": "machine 1"})
    _undo(started, "point", tmp_path / "trace")
    started.client.finish()
    eventually(started.gone)
    assert start_time(pid) is None
    for folder in (started.state.jobs, started.state.exports, started.state.leases):
        assert os.listdir(folder) == []
    assert os.listdir(started.state.ports) == ["pool.lock"]
    assert not (tmp_path / "trace").exists()
    with pytest.raises(JobNotFoundError):
        started.client.ping()


def test_the_same_job_cannot_be_started_twice(start, state, agent):
    started = start()
    with pytest.raises(JobRunningError):
        start_keeper(state, started.job.job_id, "hub", agent, PYTHON)
    assert started.client.ping()["pid"] == started.pid


@pytest.mark.parametrize(
    "agent_path, python, options, expected",
    [
        ("/nonexistent.pyz", PYTHON, [], "can't open file"),
        (None, "/nonexistent/python3", [], "No such file"),
        (None, PYTHON, ["--no-such-option"], "unrecognized arguments"),
        (None, PYTHON, ["--first-port", "0"], "Port range"),
    ],
)
def test_a_keeper_that_does_not_start_says_why_and_leaves_nothing(state, agent, agent_path, python, options, expected):
    with pytest.raises(KeeperFailedError, match=expected):
        start_keeper(state, uuid.uuid4().hex, "hub", agent_path or agent, python, {}, options)
    assert os.listdir(state.jobs) == []


def test_undos_run_newest_first_when_the_job_is_aborted(start, tmp_path):
    started = start()
    trace = tmp_path / "trace"
    for name in ("one", "two", "gone", "three"):
        _undo(started, name, trace)
    started.client.undo_remove("gone")
    started.client.undo_remove("gone")
    _undo(started, "one", trace)  # replaced, and so the newest
    assert [undo["name"] for undo in started.job.undos()] == ["two", "three", "one"]
    answer = started.client.abort()
    assert answer["undone"] == ["one", "three", "two"] and answer["failed"] == []
    assert trace.read_text().split() == ["one", "three", "two"]
    assert os.listdir(started.state.jobs) == []
    eventually(started.gone)


def test_a_stopped_heart_undoes_the_job(start, image, tmp_path):
    started = start(heartbeat=1.0)
    ports = started.lease(2)
    servers = [started.serve(image, port=ports[0]), started.client.start("copy", ["sleep", "60"], kind="mover")]
    started.client.hold("backup-x-libvirt-1", {"what": "machine 1"})
    _undo(started, "snapshot", tmp_path / "trace")
    before = time.monotonic()
    eventually(started.gone)
    assert 0.8 < time.monotonic() - before < 6
    assert (tmp_path / "trace").read_text() == "snapshot\n"
    assert [pid for pid in servers if start_time(pid)] == []
    assert PortPool(started.state, FIRST, LAST).list() == []
    for folder in (started.state.jobs, started.state.exports, started.state.leases):
        assert os.listdir(folder) == []


def test_a_beaten_heart_keeps_the_job(start):
    started = start(heartbeat=1.0)
    for _ in range(12):
        time.sleep(0.2)
        started.job.beat()
    assert not started.gone()
    started.client.finish()


def test_requests_keep_the_job(start):
    started = start(heartbeat=1.0)
    for _ in range(6):
        time.sleep(0.4)
        started.client.ping()
    started.client.finish()


def test_a_task_of_a_job_whose_keeper_is_dead_says_so_and_what_to_do(start):
    started = start()
    os.kill(started.pid, signal.SIGKILL)
    eventually(lambda: not started.job.alive())
    with pytest.raises(JobNotFoundError, match="no living keeper at this hub.*cleanup playbook"):
        place.attach({"state_dir": started.state.path}, "hub", started.job.job_id)
    assert cleanup_dead_jobs(started.state)


def test_a_caller_that_waits_keeps_the_job(start):
    """Waiting for ports may take longer than the heartbeat allows."""
    started, other = start(heartbeat=1.0), start()
    other.lease(LAST - FIRST + 1)
    with pytest.raises(SendenseError) as refused:
        started.lease(1, wait_s=2.5)
    assert refused.value.error_code == "PORTS_EXHAUSTED"
    assert not started.gone()


def test_a_keeper_that_is_told_to_end_undoes_its_job(start, tmp_path):
    started = start()
    _undo(started, "snapshot", tmp_path / "trace")
    os.kill(started.pid, signal.SIGTERM)
    eventually(started.gone)
    assert (tmp_path / "trace").read_text() == "snapshot\n"
    assert os.listdir(started.state.jobs) == []


@pytest.mark.parametrize("step", ["keeper:alive", "keeper:children-stopped", "keeper:undone", "keeper:released"])
def test_a_keeper_killed_at_any_step_of_its_life_leaves_what_cleanup_removes(start, state, agent, tmp_path, monkeypatch, step):
    hook = tmp_path / "hook"
    hook.touch()
    (tmp_path / "hook.kill").write_text(f"{step}\n")
    monkeypatch.setenv("SENDENSE_STEP_HOOK", str(hook))
    with pytest.raises((KeeperFailedError, JobAbandonedError)):
        started = start()
        _undo(started, "point", tmp_path / "trace")
        started.client.abort()
    monkeypatch.delenv("SENDENSE_STEP_HOOK")
    assert step in hook.read_text().split()
    cleanup_dead_jobs(state)
    assert os.listdir(state.jobs) == [] and os.listdir(state.ports) in ([], ["pool.lock"])
    assert (tmp_path / "trace").exists() == (step != "keeper:alive")
    assert cleanup_dead_jobs(state) == []


def test_a_hang_up_is_nothing(start):
    started = start()
    os.kill(started.pid, signal.SIGHUP)
    assert started.client.ping()["pid"] == started.pid


def test_requests_during_the_end_are_refused(start):
    started = start()
    started.client.undo_add("slow", ["sleep", "1.5"])
    started.job.beat()
    os.kill(started.pid, signal.SIGTERM)
    eventually(lambda: b"ends: signal" in open_bytes(started.job.log_path))
    with pytest.raises(JobAbandonedError, match="told to end"):
        started.lease(1)
    assert started.client.ping()["pid"] == started.pid
    eventually(started.gone)


def open_bytes(path):
    with open(path, "rb") as stream:
        return stream.read()


@pytest.mark.parametrize("line", [b"\n", b"{}\n", b"[]\n", b'{"op": "rm -rf"}\n', b"\xff\xfe\n", b'{"op": ["x"]}\n', b'{"op": {"a": 1}}\n'])
def test_nonsense_is_answered_and_survived(start, line):
    started = start()
    with socket.socket(socket.AF_UNIX) as caller:
        caller.settimeout(10)
        caller.connect(started.job.socket_path)
        caller.sendall(line)
        assert b'"INVALID_INPUT"' in caller.recv(65536)
    assert started.client.ping()["pid"] == started.pid


def test_endless_and_vanishing_callers_are_survived(start):
    started = start()
    with socket.socket(socket.AF_UNIX) as caller:
        caller.settimeout(10)
        caller.connect(started.job.socket_path)
        with pytest.raises(OSError):
            for _ in range(64):
                caller.sendall(b"x" * 65536)
    for _ in range(20):
        with socket.socket(socket.AF_UNIX) as caller:
            caller.connect(started.job.socket_path)
            caller.sendall(b'{"op": "ping"}\n')
    assert started.client.ping()["pid"] == started.pid


@pytest.mark.parametrize("name", ["", "../x", "a/b", "-rf", ".hidden", "a\nb", "a\0", "x" * 300, "{{ x }}"])
def test_hostile_names_reach_no_path(start, name, tmp_path):
    started = start()
    calls = [
        lambda: started.client.hold(name, {}),
        lambda: started.client.start(name, ["true"], kind="mover"),
        lambda: started.client.undo_add(name, ["true"]),
        lambda: started.client.child(name),
        lambda: started.client.stop(name),
    ]
    for call in calls:
        with pytest.raises(InvalidInputError):
            call()
    assert os.listdir(started.state.leases) == []
