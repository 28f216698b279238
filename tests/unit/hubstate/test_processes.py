# Copyright: (c) 2026, Sendense contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

import multiprocessing
import os
import signal
import subprocess
import time

from ansible_collections.sendense.platform.plugins.module_utils.hubstate import undo
from ansible_collections.sendense.platform.plugins.module_utils.hubstate.jobs import JobDir
from ansible_collections.sendense.platform.plugins.module_utils.hubstate.processes import is_alive, kill_group, spawn, start_time
from ansible_collections.sendense.platform.plugins.module_utils.hubstate.undo import run_undos

FORK = multiprocessing.get_context("fork")


def _wait(condition, seconds=10.0):
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def _drive(steps):
    while True:
        try:
            time.sleep(next(steps))
        except StopIteration as stopped:
            return stopped.value


def _parent(pipe):
    child = spawn(["sleep", "60"], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    pipe.send((child.pid, start_time(child.pid)))
    signal.pause()


def test_a_child_dies_with_its_parent():
    ours, theirs = FORK.Pipe()
    parent = FORK.Process(target=_parent, args=(theirs,))
    parent.start()
    pid, started = ours.recv()
    assert is_alive(pid, started)
    parent.kill()
    parent.join()
    _wait(lambda: not is_alive(pid, started))
    ours.close()
    theirs.close()


def test_a_child_has_a_session_of_its_own_and_its_environment():
    child = spawn(["sh", "-c", 'test "$X" = y && test "$(ps -o sid= -p $$ | tr -d " ")" = $$'], stdout=None, stderr=None, env={"X": "y"})
    assert child.wait() == 0


def test_a_pid_alone_names_nobody():
    mine = start_time(os.getpid())
    assert is_alive(os.getpid(), mine)
    assert not is_alive(os.getpid(), mine + 1)
    assert not is_alive(None, None)
    assert start_time(2**22 + 1) is None


def test_a_zombie_is_not_alive():
    child = subprocess.Popen(["true"])
    _wait(lambda: start_time(child.pid) is None)
    child.wait()
    kill_group(child.pid)


def test_undos_run_newest_first_and_the_failed_stay(state):
    job = JobDir.create(state, "a" * 32, "hub", {})
    trace = os.path.join(state.path, "trace")
    script = 'echo "$1" >> "$2"; exit "$3"'
    undos = [{"name": name, "argv": ["sh", "-c", script, "sh", name, trace, code]} for name, code in (("a", "0"), ("b", "3"), ("c", "0"))]
    undos.append({"name": "d", "argv": ["/nonexistent/program"]})
    undos.append({"name": "e", "argv": ["sleep", "60"]})
    job.save_undos(undos)
    report = _drive(run_undos(job, timeout_s=0.3))
    with open(trace, encoding="ascii") as stream:
        assert stream.read().split() == ["c", "b", "a"]
    assert report.undone == ["c", "a"]
    assert [failure["name"] for failure in report.failed] == ["e", "d", "b"]
    assert "no end within 0.3 s" in report.failed[0]["error"]
    assert "cannot start" in report.failed[1]["error"]
    assert "exit code 3" in report.failed[2]["error"]
    assert [undo["name"] for undo in job.undos()] == ["b", "d", "e"]
    job.lock.release()


def test_what_is_out_of_reach_is_tried_again_for_a_while(state, monkeypatch):
    monkeypatch.setattr(undo, "PAUSE_SECONDS", 0.01)
    job = JobDir.create(state, "c" * 32, "hub", {})
    script = 'echo >> "$1"; [ "$(wc -l < "$1")" -ge "$2" ] || exit 3'
    argvs = {name: ["sh", "-c", script, "sh", os.path.join(state.path, name), tries] for name, tries in (("a", "3"), ("b", "1"))}
    job.save_undos([{"name": name, "argv": argv} for name, argv in {**argvs, "c": ["false"]}.items()])
    report = _drive(run_undos(job, again_s=60.0))
    assert (report.undone, [failure["name"] for failure in report.failed], report.unreachable) == (["b", "a"], ["c"], False)
    job.save_undos([{"name": "d", "argv": ["sh", "-c", "exit 3"]}])
    report = _drive(run_undos(job, again_s=0.05))
    assert report.unreachable and [failure["name"] for failure in report.failed] == ["d"]
    assert [left["name"] for left in job.undos()] == ["d"]
    job.lock.release()


def test_an_interpreter_that_is_gone_is_replaced(state):
    job = JobDir.create(state, "b" * 32, "hub", {})
    job.save_undos([{"name": "a", "argv": ["/old/python3", "-c", "print('undone')"]}])
    report = _drive(run_undos(job, python="/usr/bin/python3"))
    assert report.undone == ["a"] and job.undos() == []
    with open(os.path.join(job.path, "undo.log"), encoding="ascii") as stream:
        assert "undone" in stream.read()
    job.lock.release()
