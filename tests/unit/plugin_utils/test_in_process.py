# Copyright: (c) 2026, Sendense contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Modules in a fork of the worker: what comes back, what does not come through, and who may run that way."""

from __future__ import annotations

import json
import os
import signal
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import pytest
from ansible.module_utils import _internal, basic

from ansible_collections.sendense.platform.plugins.plugin_utils import in_process

SPEC = {"word": {"type": "str", "required": True}, "secret": {"type": "str", "no_log": True}}


def nothing():
    """There is no other place."""


def module():
    """A module as any other."""
    made = basic.AnsibleModule(argument_spec=SPEC, supports_check_mode=True)
    made.warn("beware")
    made.exit_json(changed=True, word=made.params["word"], said=f"the secret is {made.params['secret']}", pid=os.getpid())


def run(main, meanwhile=nothing, pause_s=5.0, **arguments):
    return in_process.run(main, dict(arguments, _ansible_check_mode=False), meanwhile, pause_s)


def test_a_module_runs_in_a_process_of_its_own_and_its_result_comes_back():
    before = (basic._ANSIBLE_ARGS, basic._ANSIBLE_PROFILE, _internal.is_controller, sys.stdout)
    answer = run(module, word="x" * 300000, secret="tangerine")
    result = json.loads(answer["stdout"])
    assert answer["rc"] == 0 and result["word"] == "x" * 300000 and result["pid"] != os.getpid()
    assert "tangerine" not in answer["stdout"] and result["said"] == "the secret is ********"
    assert "beware" in str(result["warnings"])
    assert (basic._ANSIBLE_ARGS, basic._ANSIBLE_PROFILE, _internal.is_controller, sys.stdout) == before


def test_bad_arguments_are_refused_as_by_the_module():
    answer = run(module, word="x", wrod="x")
    result = json.loads(answer["stdout"])
    assert answer["rc"] == 1 and result["failed"] and "Unsupported parameters" in result["msg"]


def test_a_killed_module_is_told_from_one_that_failed():
    assert run(lambda: os.kill(os.getpid(), signal.SIGKILL))["rc"] == -signal.SIGKILL


def test_what_is_no_module_result_comes_back_as_its_words():
    def broken():
        raise ValueError("no such luck")

    answer = run(broken)
    assert answer["rc"] == 1 and answer["stdout"] == "" and "no such luck" in answer["stderr"]


def test_a_module_is_ended_by_the_signals_that_a_worker_handles_itself():
    previous = signal.signal(signal.SIGTERM, signal.SIG_IGN)
    try:
        assert run(lambda: os.kill(os.getpid(), signal.SIGTERM))["rc"] == -signal.SIGTERM
    finally:
        signal.signal(signal.SIGTERM, previous)


def test_other_places_hear_a_beat_at_once_and_then_as_long_as_the_module_works():
    beats = []
    run(lambda: time.sleep(0.35), lambda: beats.append(time.monotonic()), 0.1)
    assert 3 <= len(beats) <= 5 and beats[1] - beats[0] >= 0.1


def test_no_process_and_no_descriptor_is_left():
    before = sorted(os.listdir("/proc/self/fd")), children()
    for _number in range(3):
        run(module, word="x")
    assert (sorted(os.listdir("/proc/self/fd")), children()) == before


def children():
    """The processes that this one has started, dead ones that nobody awaited included: other tests may have some."""
    found = set()
    for entry in os.listdir("/proc"):
        try:
            fields = Path("/proc", entry, "stat").read_text().rsplit(")", 1)[1].split() if entry.isdigit() else ["", ""]
        except (FileNotFoundError, ProcessLookupError):
            continue
        if fields[1] == str(os.getpid()):
            found.add(int(entry))
    return found


def action(**changes):
    """An action whose module may run in a fork."""
    task = SimpleNamespace(delegate_to=changes.pop("delegate_to", None), async_val=changes.pop("async_val", 0))
    return SimpleNamespace(
        _connection=SimpleNamespace(transport=changes.pop("transport", "local"), become=changes.pop("become_plugin", None)),
        _play_context=SimpleNamespace(become=changes.pop("become", False)),
        _task=task,
        _templar=SimpleNamespace(template=lambda value: value),
        _compute_environment_string=lambda: changes.get("environment", ""),
    )


@pytest.fixture
def own_python(tmp_path, monkeypatch):
    """An interpreter with two names, which runs this process."""
    (tmp_path / "python3").symlink_to(os.path.realpath(sys.executable))
    (tmp_path / "python").symlink_to("python3")
    monkeypatch.setattr(sys, "executable", str(tmp_path / "python3"))
    return tmp_path


def test_the_own_interpreter_at_this_machine_may_run_in_a_fork(own_python):
    assert in_process.is_possible(action(), {"ansible_python_interpreter": str(own_python / "python3")})
    assert in_process.is_possible(action(), {"ansible_python_interpreter": str(own_python / "python")})


@pytest.mark.parametrize(
    "change",
    [
        {"transport": "ssh"},
        {"become": True},
        {"become_plugin": object()},
        {"async_val": 60},
        {"environment": "A=1"},
        {"delegate_to": "node01"},
    ],
)
def test_anything_else_goes_the_usual_way(own_python, change):
    assert not in_process.is_possible(action(**change), {"ansible_python_interpreter": str(own_python / "python")})


@pytest.mark.parametrize("interpreter", ["", "auto_silent", "/usr/bin/env", "/nonexistent/python", os.path.realpath(sys.executable)])
def test_another_interpreter_goes_the_usual_way(own_python, interpreter):
    assert not in_process.is_possible(action(), {"ansible_python_interpreter": interpreter})


def test_the_interpreter_is_that_of_the_place_not_of_the_machine(own_python):
    delegated = {"ansible_delegated_vars": {"node01": {"ansible_python_interpreter": str(own_python / "python")}}}
    assert in_process.is_possible(action(delegate_to="node01"), delegated)
    assert not in_process.is_possible(action(delegate_to="node02"), dict(delegated, ansible_python_interpreter=str(own_python / "python")))


def test_who_wants_to_keep_the_files_of_modules_gets_them(own_python, monkeypatch):
    monkeypatch.setattr(in_process.constants, "DEFAULT_KEEP_REMOTE_FILES", True)
    assert not in_process.is_possible(action(), {"ansible_python_interpreter": str(own_python / "python")})
