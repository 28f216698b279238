# Copyright: (c) 2026, Sendense contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A module that runs in a fork of the worker and one that is packed and started anew give the same results."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import pytest
import yaml

from tests.e2e.site import ROOT

CANARY = "kumquat-7f3a"
MISSING = {"platform": "libvirt", "connection": {"uri": "qemu:///system?socket=/nonexistent", "password": CANARY}, "machine_id": "0" * 36}
JOB = {"job_id": "ab" * 16, "owner": "nobody"}
TASKS = [
    {"sendense.platform.cleanup": {"role": "hub"}},
    {"sendense.platform.cleanup": {"role": "hub", "wrong": 1}},
    {"sendense.platform.cleanup": {"role": "landlord"}},
    {"sendense.platform.vm_snapshot": dict(MISSING, **JOB)},
    {"sendense.platform.vm_snapshot": dict(MISSING, **JOB), "check_mode": True},
    {"sendense.platform.vm_snapshot": dict(MISSING, **JOB), "no_log": True},
    {"sendense.platform.vm": dict(MISSING, state="stopped"), "diff": True},
    {"sendense.platform.backup": {"state": "open", "repository": {"path": "/nonexistent"}, "machine_id": "é \ud83d\ude00"}},
    {"sendense.platform.nbd_copy": {"job_id": "ab" * 16, "sources": [], "nbd_targets": ""}},
    {"sendense.platform.nbd_export": {"state": "stopped", "job_id": "ab" * 16}},
    {"sendense.platform.vm_export": {"job_id": "ab" * 16, "state": "stopped"}, "check_mode": True},
    {"sendense.platform.backup_verify": {"repository": {"path": "/nonexistent"}}},
]
PACKED = "Using module file"


def results(directory, state, **environment):
    """The result of every task, and the output."""
    tasks = [{**task, "name": f"task {number}", "ignore_errors": True} for number, task in enumerate(TASKS)]
    for task in tasks:
        next(value for name, value in task.items() if name.startswith("sendense."))["state_dir"] = str(state)
    host = {"ansible_connection": "local", "ansible_python_interpreter": sys.executable}
    directory.mkdir()
    (directory / "hosts.yml").write_text(yaml.safe_dump({"all": {"hosts": {"here": host}}}))
    (directory / "play.yml").write_text(json.dumps([{"hosts": "here", "gather_facts": False, "tasks": tasks}]))
    kept = {name: value for name, value in os.environ.items() if not name.startswith("ANSIBLE_")}
    kept.update(ANSIBLE_CONFIG=str(ROOT / "ansible.cfg"), ANSIBLE_CALLBACK_PLUGINS=str(ROOT / "tests" / "e2e" / "callbacks"))
    kept.update(ANSIBLE_STDOUT_CALLBACK="results", ANSIBLE_LOCAL_TEMP=str(directory / "tmp"), ANSIBLE_REMOTE_TEMP=str(directory / "tmp"))
    argv = [os.path.join(os.path.dirname(sys.executable), "ansible-playbook"), "-vvv", "-i", str(directory / "hosts.yml")]
    done = subprocess.run(
        [*argv, str(directory / "play.yml")],
        cwd=ROOT,
        env=dict(kept, SENDENSE_TEST_RESULTS=str(directory / "results.json"), **environment),
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    found = json.loads((directory / "results.json").read_text())["tasks"]
    return {task["task"]: task["result"] for task in found}, done.stdout


@pytest.fixture(scope="module")
def ways(tmp_path_factory):
    """The same tasks, first in forks, then packed."""
    base = tmp_path_factory.mktemp("ways")
    forked = results(base / "forked", base / "state")
    return {"forked": forked, "packed": results(base / "packed", base / "state", ANSIBLE_KEEP_REMOTE_FILES="1")}


def test_each_way_is_the_one_that_it_claims_to_be(ways):
    assert ways["forked"][1].count(PACKED) == 0 and ways["packed"][1].count(PACKED) >= len(TASKS) - 1


@pytest.mark.parametrize("number", range(len(TASKS)))
def test_both_ways_give_the_same_result(ways, number):
    forked, packed = (ways[way][0][f"task {number}"] for way in ("forked", "packed"))
    made_up = ("exception", "job_id", "controller")  # random and process ids, and line numbers of the packed file
    for result in (forked, packed):
        arguments = result.get("invocation", {}).get("module_args", {})
        for name in made_up:
            result.pop(name, None)
            arguments.pop(name, None)
    assert forked == packed
    assert "changed" in forked or "censored" in forked


def test_secrets_stay_secret_in_both_ways(ways):
    for results_of_way, output in ways.values():
        assert CANARY not in output and CANARY not in json.dumps(results_of_way)
