# Copyright: (c) 2026, Sendense contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A place that cannot be reached fails the task, so that the rescue of its role runs, and is named."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import pytest
import yaml

from tests.e2e.site import ROOT

GONE = {
    "ansible_connection": "ssh",
    "ansible_host": "127.0.0.1",
    "ansible_port": 1,  # nobody listens
    "ansible_python_interpreter": "/usr/bin/python3",
}
HERE = {"ansible_connection": "local", "ansible_python_interpreter": sys.executable}
JOB = "ab" * 16


def played(directory, task):
    """The result of a task that has a rescue."""
    hosts = {"all": {"hosts": {"gone": GONE, "here": HERE}}}
    rescue = [{"name": "rescue", "ansible.builtin.debug": {"msg": "rescued"}}]
    tasks = [{"block": [dict(task, name="task")], "rescue": rescue}]
    (directory / "hosts.yml").write_text(yaml.safe_dump(hosts))
    (directory / "play.yml").write_text(json.dumps([{"hosts": "here", "gather_facts": False, "tasks": tasks}]))
    kept = {name: value for name, value in os.environ.items() if not name.startswith("ANSIBLE_")}
    kept.update(ANSIBLE_CONFIG=str(ROOT / "ansible.cfg"), ANSIBLE_CALLBACK_PLUGINS=str(ROOT / "tests" / "e2e" / "callbacks"))
    kept.update(ANSIBLE_STDOUT_CALLBACK="results", ANSIBLE_LOCAL_TEMP=str(directory / "tmp"))
    kept.update(SENDENSE_TEST_RESULTS=str(directory / "results.json"))
    argv = [os.path.join(os.path.dirname(sys.executable), "ansible-playbook"), "-i", str(directory / "hosts.yml")]
    done = subprocess.run([*argv, str(directory / "play.yml")], cwd=ROOT, env=kept, capture_output=True, text=True, check=False)
    assert "rescued=1" in done.stdout, done.stdout + done.stderr
    found = {task["task"]: task["result"] for task in json.loads((directory / "results.json").read_text())["tasks"]}
    assert found["rescue"]["msg"] == "rescued"
    return found["task"]


@pytest.mark.parametrize(
    "task",
    [
        {"sendense.platform.cleanup": {"role": "hub"}, "delegate_to": "gone"},
        {"sendense.platform.vm_export": {"job_id": JOB, "state": "stopped"}, "delegate_to": "gone"},
        {"sendense.platform.nbd_copy": {"job_id": JOB, "sources": [], "nbd_targets": "", "audit": {
            "host": "gone", "folder": "/nonexistent", "files": {"disk0": "/nonexistent"}}}},
    ],
    ids=["storing the agent", "with a job", "the other place"],
)  # fmt: skip
def test_a_place_that_cannot_be_reached_fails_the_task_with_its_name(tmp_path, task):
    for name in ("sendense.platform.cleanup", "sendense.platform.vm_export", "sendense.platform.nbd_copy"):
        if name in task:
            task[name]["state_dir"] = str(tmp_path / "state")
    result = played(tmp_path, task)
    assert result["failed"] and not result.get("unreachable")
    assert (result["error_code"], result["retryable"], result["details"]) == ("PLACE_UNREACHABLE", True, {"place": "gone"})
    assert "The connection to gone failed" in result["msg"] and "Connection refused" in result["msg"]
