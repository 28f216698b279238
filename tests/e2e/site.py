# Copyright: (c) 2026, Sendense contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A whole installation in one directory: inventory, state directories and a repository, driven by ansible-playbook."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Dict, List, Optional, Sequence

import yaml

ROOT = Path(__file__).resolve().parents[2]
#: Roles that report.
REPORTING = ("backup_vm", "restore_vm", "verify_vm", "prune_points", "doctor_machine", "list_backups")


@dataclass
class Run:
    """One finished ansible-playbook."""

    returncode: int
    output: str
    stats: Dict[str, Dict[str, int]]
    tasks: List[Dict[str, Any]]

    def changed(self, host: str) -> int:
        """How many tasks changed something for this host."""
        return self.stats.get(host, {}).get("changed", 0)

    def error(self, host: str) -> Dict[str, Any]:
        """The result of the last task that failed for this host."""
        failed = [task for task in self.tasks if task["host"] == host and task["result"].get("failed")]
        return dict(failed[-1]["result"]) if failed else {}

    def report(self, host: str) -> Dict[str, Any]:
        """What job_report said, also of a failed job."""
        reports = [task["result"]["report"] for task in self.tasks if task["host"] == host and "report" in task["result"]]
        return dict(reports[-1]) if reports else {}

    def result(self, host: str, task_name: str) -> Dict[str, Any]:
        """The result of one task, by the end of its name."""
        found = [task["result"] for task in self.tasks if task["host"] == host and task["task"].endswith(task_name)]
        return dict(found[-1]) if found else {}


@dataclass
class Site:
    """``directory`` must be short enough for unix sockets below ``state``."""

    directory: Path
    uris: Sequence[str]
    environment: Dict[str, str] = field(default_factory=dict)
    hub_state: str = ""
    node_state: str = ""
    repository: str = ""

    def __post_init__(self) -> None:
        self.hub_state = self.hub_state or str(self.directory / "hub")
        self.node_state = self.node_state or str(self.directory / "node")
        self.repository = self.repository or str(self.directory / "repo")
        inventory = self.directory / "inventory"
        inventory.mkdir(parents=True, exist_ok=True)
        local = {"ansible_connection": "local", "ansible_python_interpreter": sys.executable}
        hosts = {"sendense_hubs": {"hosts": {"hub01": local}}, "sendense_nodes": {"hosts": {"node01": local}}}
        (inventory / "hosts.yml").write_text(yaml.safe_dump(hosts))
        sources = [{"platform": "libvirt", "connection": {"uri": uri, "domain_type": "qemu"}, "node": "node01"} for uri in self.uris]
        machines = {"plugin": "sendense.platform.vms", "sources": sources}
        (inventory / "machines.sendense.yml").write_text(yaml.safe_dump(machines))

    def variables(self) -> Dict[str, Any]:
        """Extra variables of every run."""
        roles = ("backup_vm", "restore_vm", "verify_vm", "prune_points", "cleanup_jobs", "doctor_machine", "cancel_jobs")
        found: Dict[str, Any] = {f"{role}_hub_state_dir": self.hub_state for role in roles}
        found.update({f"{role}_node_state_dir": self.node_state for role in roles})
        return dict(found, sendense_repository={"path": self.repository, "reserve_bytes": 1 << 20})

    def argv(self, playbook: str, limit: str = "", extra: Optional[Dict[str, Any]] = None, options: Sequence[str] = ()) -> List[str]:
        """The command line of a run."""
        argv = [os.path.join(os.path.dirname(sys.executable), "ansible-playbook"), f"playbooks/{playbook}.yml"]
        argv += ["-i", str(self.directory / "inventory"), "-e", json.dumps(dict(self.variables(), **(extra or {})))]
        return self.at_controller(argv + (["-l", limit] if limit else []) + list(options))

    def at_controller(self, argv: Sequence[str]) -> List[str]:
        """The command line that runs a command where Ansible runs."""
        return list(argv)

    def environ(self) -> Dict[str, str]:
        """The environment of a run: results as data, and nothing of the caller's Ansible settings."""
        kept = {name: value for name, value in os.environ.items() if not name.startswith("ANSIBLE_")}
        kept.update(ANSIBLE_CONFIG=str(ROOT / "ansible.cfg"), ANSIBLE_CALLBACK_PLUGINS=str(ROOT / "tests" / "e2e" / "callbacks"))
        kept.update(ANSIBLE_STDOUT_CALLBACK="results", ANSIBLE_LOCAL_TEMP=str(self.directory / "tmp"), ANSIBLE_FORKS="10")
        kept.update(ANSIBLE_REMOTE_TEMP=str(self.directory / "tmp"), **self.environment)
        return kept

    def start(self, playbook: str, limit: str = "", extra: Optional[Dict[str, Any]] = None, options: Sequence[str] = ()) -> "Started":
        """Start a run in a session of its own."""
        results = self.directory / f"results-{len(list(self.directory.glob('results-*')))}.json"
        log = results.with_suffix(".log")
        extra = dict({f"{role}_report_dir": str(results.with_suffix(".reports")) for role in REPORTING}, **(extra or {}))
        with log.open("wb") as stream:
            process = subprocess.Popen(
                self.argv(playbook, limit, extra, options),
                cwd=ROOT,
                env=dict(self.environ(), SENDENSE_TEST_RESULTS=str(results)),
                stdout=stream,
                stderr=subprocess.STDOUT,
                stdin=subprocess.DEVNULL,
                start_new_session=True,
            )
        return Started(process, results, log)

    def play(
        self, playbook: str, limit: str = "", extra: Optional[Dict[str, Any]] = None, options: Sequence[str] = (), ok: bool = True
    ) -> Run:
        """Run a playbook to its end; with ``ok`` a failure is an AssertionError with the output."""
        run = self.start(playbook, limit, extra, options).wait()
        assert (run.returncode == 0) == ok or not ok, run.output
        return run

    def backup(self, limit: str, ok: bool = True, **extra: Any) -> Run:
        """Run the backup playbook."""
        return self.play("backup", limit, extra, ok=ok)

    def initialise(self) -> None:
        """Make the repository."""
        argv = [os.path.join(os.path.dirname(sys.executable), "ansible"), "hub01", "-i", str(self.directory / "inventory")]
        argv += ["-m", "sendense.platform.repository", "-a", json.dumps({"repository": {"path": self.repository}})]
        environ = dict(self.environ(), ANSIBLE_STDOUT_CALLBACK="ansible.builtin.default")
        done = subprocess.run(self.at_controller(argv), cwd=ROOT, env=environ, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stdout + done.stderr


@dataclass
class Started:
    """A running ansible-playbook."""

    process: "subprocess.Popen[bytes]"
    results: Path
    log: Path

    def wait(self, timeout_s: float = 600.0) -> Run:
        """Its end."""
        try:
            self.process.wait(timeout_s)
        except subprocess.TimeoutExpired:
            self.kill()
            raise AssertionError(f"ansible-playbook did not end within {timeout_s} s:\n{self.log.read_text()}") from None
        data = json.loads(self.results.read_text()) if self.results.exists() else {"stats": {}, "tasks": []}
        for task in data["tasks"]:
            _complete(task["result"])
        return Run(self.process.returncode, self.log.read_text(errors="replace"), data["stats"], data["tasks"])

    def kill(self) -> None:
        """Kill ansible-playbook itself, as an operator's kill -9 would; its workers follow or end by themselves."""
        os.kill(self.process.pid, signal.SIGKILL)
        self.process.wait()


def _complete(result: Dict[str, Any]) -> None:
    """A failed task returns a short report; the whole one is in its file."""
    if result["failed"] and (result.get("report") or {}).get("file"):
        result["report"] = json.loads(Path(result["report"]["file"]).read_text())
