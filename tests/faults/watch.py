# Copyright: (c) 2026, Sendense contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""One run of a playbook with faults: many machines at once, each with its own, at the steps that they reach."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any, Callable, Dict, List, Mapping, Optional, Sequence, Tuple, Union

from ansible_collections.sendense.platform.plugins.module_utils.errors import JobNotFoundError
from ansible_collections.sendense.platform.plugins.module_utils.hubstate.jobs import JobDir, list_jobs
from ansible_collections.sendense.platform.plugins.module_utils.hubstate.processes import is_alive
from ansible_collections.sendense.platform.plugins.module_utils.hubstate.statedir import StateDir
from tests.e2e.site import Run, Started
from tests.lab.paths import LabError

from .kills import CHILDREN, Fault, Strike, process_state, resume, send

if TYPE_CHECKING:
    from .fleet import Fleet

#: Seconds that a condition of a fault may need.
PATIENCE_SECONDS = 30.0
#: Seconds between two searches for the secret, and the longest that a run may take.
SECRET_SECONDS = 0.5
RUN_SECONDS = 600.0
ANYONE = "*"

#: What is called all the time while a run lasts.
Tick = Callable[[Started, "Watch"], None]
Faults = Mapping[str, Union[Fault, Sequence[Fault]]]


class Watch:
    """One run. ``struck`` has what happened; a machine may have several faults, at different steps.

    ``tick`` is called about fifty times a second while the run lasts.
    """

    def __init__(self, fleet: "Fleet", faults: Faults, tick: Optional[Tick] = None) -> None:
        self._fleet = fleet
        self._faults = {
            (fault.step, ANYONE if fault.anyone else fleet.key(name)): (name, fault)
            for name, planned in faults.items()
            for fault in ([planned] if isinstance(planned, Fault) else planned)
        }
        self._tick = tick
        self._read = 0
        self._waiting: List[Tuple[str, Fault, int, float]] = []
        self.struck: List[Strike] = []
        self._hook = fleet.directory / "steps"
        self._hook.write_text("")
        for suffix in ("kill", "stop"):
            lines = [
                step if subject == ANYONE else f"{step} {subject}"
                for (step, subject), (_name, fault) in self._faults.items()
                if (fault.victim == "module") == (suffix == "kill")
            ]
            Path(f"{self._hook}.{suffix}").write_text("\n".join(lines) + "\n")

    def run(self, playbook: str, limit: str, extra: Dict[str, Any]) -> Run:
        """Run the playbook to its end, striking on the way. AssertionError if it never ends."""
        site = self._fleet.site
        site.environment["SENDENSE_STEP_HOOK"] = str(self._hook)
        started = site.start(playbook, limit, extra)
        began = searched = time.monotonic()
        try:
            while started.process.poll() is None:
                self._look(started)
                if self._tick is not None:
                    self._tick(started, self)
                now = time.monotonic()
                if now - searched > SECRET_SECONDS:
                    searched = now
                    self._fleet.oracle.watch_secret()
                assert now - began < RUN_SECONDS, f"{playbook} did not end within {RUN_SECONDS:.0f} s:\n{started.log.read_text()}"
                time.sleep(0.02)
        finally:
            self._release()
            del site.environment["SENDENSE_STEP_HOOK"]
            if started.process.poll() is None:
                started.kill()
        return started.wait()

    def steps(self) -> List[str]:
        """The names of all steps that were reached, in order."""
        return [line.split(" ")[0] for line in self._hook.read_text().splitlines()]

    def job(self, name: str, role: str) -> Optional[JobDir]:
        """The living job of a machine at a place."""
        site = self._fleet.site
        for job in list_jobs(StateDir(site.hub_state if role == "hub" else site.node_state)):
            try:
                if job.role == role and job.alive() and job.meta().get("machine_key") == self._fleet.key(name):
                    return job
            except JobNotFoundError:
                continue
        return None

    def pid_of(self, name: str, victim: str) -> Optional[int]:
        """The process of a victim that is no module: qemu, a keeper or a keeper's child; None if it does not live."""
        if victim == "qemu":
            try:
                return self._fleet.guests[name].qemu_pid
            except LabError:
                return None
        role, child = CHILDREN.get(victim, victim).split(" ", 1)
        job = self.job(name, role)
        if job is None:
            return None
        if child == "keeper":
            return int(job.meta()["pid"] or 0) or None
        pids = (int(one["pid"]) for one in job.children() if one["name"] == child and is_alive(one["pid"], one["starttime"]))
        return next(pids, None)

    def count_late(self) -> None:
        """Count what reached its step after the end of the run: keepers that were left alone, and ended themselves there."""
        self._read_steps()
        self._waiting.clear()

    def _look(self, started: Started) -> None:
        self._read_steps()
        for waiting in list(self._waiting):
            name, fault, pid, since = waiting
            if self._ready(name, fault, pid):
                self._waiting.remove(waiting)
                self._strike(name, fault, pid, started)
                resume(pid)
            elif time.monotonic() - since > PATIENCE_SECONDS:
                self._waiting.remove(waiting)
                resume(pid)

    def _read_steps(self) -> None:
        lines = self._hook.read_text().splitlines()
        for line in lines[self._read :]:
            step, subject, reached_by = line.split(" ")
            found = self._faults.pop((step, subject), None) or self._faults.pop((step, ANYONE), None)
            if found is None:
                continue
            name, fault = found
            if fault.victim == "module":
                self.struck.append(Strike(name, fault, int(reached_by), time.monotonic()))
            else:
                self._waiting.append((name, fault, int(reached_by), time.monotonic()))
        self._read = len(lines)

    def _ready(self, name: str, fault: Fault, pid: int) -> bool:
        return process_state(pid) == "T" and (not fault.copied or self.copying(name))

    def copying(self, name: str) -> bool:
        """Whether the machine's mover has moved some bytes and not all."""
        for role in ("node", "hub"):
            job = self.job(name, role)
            try:
                status = json.loads(Path(job.path if job else "/nonexistent", "copy.status.json").read_text())
            except (FileNotFoundError, ValueError):
                continue
            return bool(0 < status["bytes_done"] < status["bytes_total"])
        return False

    def _strike(self, name: str, fault: Fault, stopped: int, started: Started) -> None:
        pid: Optional[int] = None
        done = True
        if fault.act is not None:
            fault.act()
        elif fault.victim.startswith("ansible"):
            started.kill()
            done = fault.victim == "ansible" or send(stopped)
        elif fault.victim == "libvirtd":
            self._fleet.host.kill()
            self._fleet.host.start()
        else:
            pid = self.pid_of(name, fault.victim)
            done = pid is not None and send(pid, fault.number)
        if done:
            self.struck.append(Strike(name, fault, pid, time.monotonic()))

    def _release(self) -> None:
        """Let whatever is or will be stopped at a step go on: modules that outlive a killed ansible-playbook."""
        Path(f"{self._hook}.stop").write_text("")
        pids = {int(line.split(" ")[2]) for line in self._hook.read_text().splitlines()}
        deadline = time.monotonic() + 0.5
        while time.monotonic() < deadline:
            for pid in pids:
                resume(pid)
            time.sleep(0.05)
