# Copyright: (c) 2026, Sendense contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Kill one named process of one machine's job at one named step of it, for many machines of one run at once."""

from __future__ import annotations

import json
import os
import signal
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Callable, Dict, List, Optional, Tuple

from ansible_collections.sendense.platform.plugins.module_utils.errors import JobNotFoundError
from ansible_collections.sendense.platform.plugins.module_utils.hubstate.jobs import JobDir, list_jobs
from ansible_collections.sendense.platform.plugins.module_utils.hubstate.statedir import StateDir
from tests.e2e.site import Run, Started

if TYPE_CHECKING:
    from .fleet import Fleet

#: Victims that are children of a keeper: (role, name of the child).
CHILDREN = {
    "export": ("hub", "target-disk0"),
    "export of the second disk": ("hub", "target-disk1"),
    "mover": ("node", "copy"),
    "checker": ("hub", "verify"),
    "reader": ("hub", "reread-disk0"),
}
#: Seconds that a condition of a kill may need.
PATIENCE_SECONDS = 30.0


@dataclass(frozen=True)
class Fault:
    """Kill ``victim`` when the machine's job has reached ``step``; ``copied``: not before the mover has moved some bytes.

    Victims: module (the process that reached the step), hub keeper, node keeper, one of ``CHILDREN``, qemu, libvirtd
    (restarted at once), ansible (the whole run), ansible and module; act: call ``act`` instead of a kill.
    """

    victim: str
    step: str
    copied: bool = False
    act: Optional[Callable[[], None]] = None


class Watch:
    """One run with its faults. ``hit`` has the machines whose fault happened."""

    def __init__(self, fleet: "Fleet", faults: Dict[str, Fault]) -> None:
        self._fleet = fleet
        self._faults = {(fault.step, fleet.key(name)): (name, fault) for name, fault in faults.items()}
        self._read = 0
        self._waiting: List[Tuple[str, Fault, int, float]] = []
        self.hit: List[str] = []
        self._hook = fleet.directory / "steps"
        self._hook.write_text("")
        for suffix in ("kill", "stop"):
            lines = [
                f"{step} {key}" for (step, key), (_name, fault) in self._faults.items() if (fault.victim == "module") == (suffix == "kill")
            ]
            Path(f"{self._hook}.{suffix}").write_text("\n".join(lines) + "\n")

    def run(self, playbook: str, limit: str, extra: Dict[str, Any]) -> Run:
        """Run the playbook to its end, killing on the way. The run gets ``hit``."""
        site = self._fleet.site
        site.environment["SENDENSE_STEP_HOOK"] = str(self._hook)
        started = site.start(playbook, limit, extra)
        try:
            while started.process.poll() is None:
                self._look(started)
                time.sleep(0.02)
        finally:
            self._release()
            del site.environment["SENDENSE_STEP_HOOK"]
        run = started.wait()
        self._fleet.hit = sorted(self.hit)
        return run

    def steps(self) -> List[str]:
        """The names of all steps that were reached, in order."""
        return [line.split()[0] for line in self._hook.read_text().splitlines()]

    def _look(self, started: Started) -> None:
        lines = self._hook.read_text().splitlines()
        for line in lines[self._read :]:
            step, subject, reached_by = line.split()
            found = self._faults.pop((step, subject), None)
            if found is None:
                continue
            name, fault = found
            if fault.victim == "module":
                self.hit.append(name)
            else:
                self._waiting.append((name, fault, int(reached_by), time.monotonic()))
        self._read = len(lines)
        for waiting in list(self._waiting):
            name, fault, pid, since = waiting
            if self._ready(name, fault, pid):
                self._waiting.remove(waiting)
                if self._strike(name, fault, pid, started):
                    self.hit.append(name)
                resume(pid)
            elif time.monotonic() - since > PATIENCE_SECONDS:
                self._waiting.remove(waiting)
                resume(pid)

    def _ready(self, name: str, fault: Fault, pid: int) -> bool:
        if process_state(pid) != "T":
            return False
        if not fault.copied:
            return True
        job = self._job(name, "node")
        try:
            status = json.loads(Path(job.path if job else "/nonexistent", "copy.status.json").read_text())
        except (FileNotFoundError, ValueError):
            return False
        return 0 < status["bytes_done"] < status["bytes_total"]

    def _strike(self, name: str, fault: Fault, stopped: int, started: Started) -> bool:
        if fault.act is not None:
            fault.act()
            return True
        if fault.victim.startswith("ansible"):
            started.kill()
            return fault.victim == "ansible" or kill(stopped)
        if fault.victim == "libvirtd":
            self._fleet.host.kill()
            self._fleet.host.start()
            return True
        if fault.victim == "qemu":
            pid: Optional[int] = self._fleet.guests[name].qemu_pid
        elif fault.victim in ("hub keeper", "node keeper"):
            job = self._job(name, fault.victim.split()[0])
            pid = job.meta()["pid"] if job else None
        else:
            role, child = CHILDREN[fault.victim]
            job = self._job(name, role)
            pid = next((one["pid"] for one in job.children() if one["name"] == child), None) if job else None
        return pid is not None and kill(pid)

    def _job(self, name: str, role: str) -> Optional[JobDir]:
        site = self._fleet.site
        for job in list_jobs(StateDir(site.hub_state if role == "hub" else site.node_state)):
            try:
                if job.role == role and job.alive() and job.meta().get("machine_key") == self._fleet.key(name):
                    return job
            except JobNotFoundError:
                continue
        return None

    def _release(self) -> None:
        """Let whatever is or will be stopped go on: modules that outlive a killed ansible-playbook."""
        Path(f"{self._hook}.stop").write_text("")
        pids = {int(line.split()[2]) for line in self._hook.read_text().splitlines()}
        deadline = time.monotonic() + 0.5
        while time.monotonic() < deadline:
            for pid in pids:
                resume(pid)
            time.sleep(0.05)


def process_state(pid: int) -> str:
    """The state letter of a process; empty if it is gone."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0]
    except (FileNotFoundError, ProcessLookupError):
        return ""


def resume(pid: int) -> None:
    """Continue a process that stopped itself at a step."""
    if process_state(pid) == "T":
        os.kill(pid, signal.SIGCONT)


def kill(pid: int) -> bool:
    """SIGKILL; False if there is no such process any more."""
    try:
        os.kill(pid, signal.SIGKILL)
    except ProcessLookupError:
        return False
    return True
