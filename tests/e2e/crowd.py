# Copyright: (c) 2026, Sendense contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""As many disks at once as a hub has ports, over machines with very many disks each, held at a step to be looked at."""

from __future__ import annotations

import json
import os
import time
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Dict, Iterator, List, Optional

from ansible_collections.sendense.platform.plugins.module_utils.datapath.export_table import ExportTable
from ansible_collections.sendense.platform.plugins.module_utils.hubstate.jobs import JobDir, list_jobs
from ansible_collections.sendense.platform.plugins.module_utils.hubstate.ports import PortPool
from ansible_collections.sendense.platform.plugins.module_utils.hubstate.statedir import StateDir
from ansible_collections.sendense.platform.plugins.module_utils.steps import HOOK_VARIABLE
from tests.faults.kills import process_state, resume
from tests.lab import disks
from tests.lab.disks import MIB, DiskSpec, ImageFile
from tests.lab.guest import Guest
from tests.lab.host import LibvirtHost

from .points import StoredPoint, stored_point
from .site import Run, Site, Started

#: Disks of the machines of a crowd: together one for every port of a hub.
DISKS = {"crowd0": 34, "crowd1": 34, "crowd2": 33}
DISK_BYTES = 64 * MIB
#: Each disk has a mark of its own here, and random data, written zeros and holes as all others.
MARK_BYTES = 65536
ZEROS_BYTES = 4 * MIB
#: Seconds in which all machines have to reach a step, and in which a keeper has to miss a module that is stopped at one.
PATIENCE_SECONDS = 300.0


@dataclass
class Crowd:
    """Machines with their disks, all suspended."""

    site: Site
    host: LibvirtHost
    guests: Dict[str, Guest]

    @property
    def limit(self) -> str:
        """All of them, as ``-l`` names them."""
        return ",".join(self.guests)

    def add(self, name: str, specs: List[DiskSpec]) -> Guest:
        """One more machine, suspended; every disk has a mark of its own."""
        guest = Guest.create(self.host, name, specs, memory_mib=64, agent=False).start(paused=True)
        number = sum(len(other.disks) for other in self.guests.values())
        for target in guest.disks:
            guest.write(target, 1 + number % 255, (1 + number) * MARK_BYTES, MARK_BYTES)
            number += 1
        guest.flush()
        self.guests[name] = guest
        return guest

    def points(self, run: Run) -> Dict[str, StoredPoint]:
        """What a run has committed, by machine. AssertionError if it did not."""
        reports = {name: run.report(name) for name in self.guests if name in run.stats}
        assert reports and all(report.get("point") for report in reports.values()), run.output
        return {name: stored_point(self.site.repository, self.guests[name], report["point"]["id"]) for name, report in reports.items()}


@contextmanager
def crowd(directory: Path, host: LibvirtHost, data_bytes: int) -> Iterator[Crowd]:
    """Machines with ``DISKS`` on a running host, each disk with so many random bytes, and a repository for them."""
    template = made_template(directory / "template.qcow2", data_bytes)
    site = Site(directory / "s", [host.uri])
    site.initialise()
    made = Crowd(site, host, {})
    for name, count in DISKS.items():
        made.add(name, disks.scsi_disks(count, template, DISK_BYTES))
    template.unlink()
    yield made


def made_template(path: Path, data_bytes: int) -> Path:
    """A qcow2 image with random data, after it zeros that were written, and then nothing."""
    disks.create(DiskSpec("sda", DISK_BYTES), path)
    image = ImageFile(str(path))
    disks.write(image, 0, os.urandom(data_bytes))
    disks.write(image, data_bytes, bytes(ZEROS_BYTES))
    return path


def differing(guest: Guest, point: StoredPoint) -> List[str]:
    """Disks of a suspended machine that are not, byte for byte, what the point holds."""
    assert len(guest.disks) == len(point.manifest["disks"])
    return [target for target, disk in guest.disks.items() if not disks.identical(disk.image, point.image(target))]


class Held:
    """A run whose modules stop at a step until they are let on: for all machines of a crowd at the same time."""

    def __init__(self, crowd: Crowd, step: str, extra: Optional[Dict[str, Any]] = None) -> None:
        self._hook = crowd.site.directory / "steps"
        self._hook.write_text("")
        self._stop_at(step)
        self._site = crowd.site
        self._machines = len(crowd.guests)
        #: Most bytes that each mover was seen resident with, by its process.
        self.movers: Dict[int, int] = {}
        crowd.site.environment[HOOK_VARIABLE] = str(self._hook)
        patient = {"backup_vm_heartbeat_timeout": int(PATIENCE_SECONDS)}
        self.started: Started = crowd.site.start("backup", crowd.limit, dict(patient, **(extra or {})))
        # Other runs of the site are not to stop.
        del crowd.site.environment[HOOK_VARIABLE]

    def __enter__(self) -> "Held":
        return self

    def __exit__(self, *exc: object) -> None:
        """Nothing stays stopped, whatever went wrong."""
        self._stop_at("")
        for line in self._hook.read_text().splitlines():
            resume(int(line.split(" ")[2]))
        if self.started.process.poll() is None:
            self.started.kill()

    def await_all(self, step: str) -> List[int]:
        """Wait until all machines are stopped at the step; the processes. AssertionError if the run ends or it takes too long."""
        deadline = time.monotonic() + PATIENCE_SECONDS
        while True:
            pids = [int(line.split(" ")[2]) for line in self.lines(step)]
            if len(pids) == self._machines and all(process_state(pid) == "T" for pid in pids):
                return pids
            self._look(deadline)

    def await_done(self, state_dir: str, name: str) -> None:
        """Wait until the children of this name have done their work for all machines, while their modules are stopped."""
        deadline = time.monotonic() + PATIENCE_SECONDS
        while [_status(job, name) for job in list_jobs(StateDir(state_dir)) if job.alive()].count("done") < self._machines:
            self._look(deadline)

    def let_on(self, pids: List[int], until: str = "") -> None:
        """Let these processes go on, to the end or to another step."""
        self._stop_at(until)
        for pid in pids:
            resume(pid)

    def lines(self, step: str) -> List[str]:
        """What was noted about a step: one line for each time that it was reached."""
        return [line for line in self._hook.read_text().splitlines() if line.startswith(f"{step} ")]

    def _look(self, deadline: float) -> None:
        assert self.started.process.poll() is None and time.monotonic() < deadline, self.started.log.read_text()
        for job in list_jobs(StateDir(self._site.node_state)):
            for child in job.children():
                if child["kind"] == "mover":
                    self.movers[child["pid"]] = max(self.movers.get(child["pid"], 0), _kib(f"/proc/{child['pid']}/status", "VmHWM:"))
        time.sleep(0.05)

    def _stop_at(self, step: str) -> None:
        Path(f"{self._hook}.stop").write_text(f"{step}\n")


@dataclass(frozen=True)
class Memory:
    """Proportional set size, in bytes, of one process after another."""

    each: List[int]

    @property
    def total_mib(self) -> float:
        """Of all of them."""
        return round(sum(self.each) / MIB, 1)

    @property
    def largest_mib(self) -> float:
        """Of the largest."""
        return round(max(self.each, default=0) / MIB, 1)


def servers(site: Site) -> List[Dict[str, Any]]:
    """The export servers of the hub that run now, as its export table has them."""
    return [record for record in ExportTable(StateDir(site.hub_state)).list() if record["state"] == "running"]


def memory_of(records: List[Dict[str, Any]]) -> Memory:
    """What these servers hold now."""
    return Memory([proportional_size(int(record["pid"])) for record in records])


def leased(site: Site) -> int:
    """How many ports of the hub are leased now."""
    return int(PortPool(StateDir(site.hub_state)).metrics()["allocated"])


def _status(job: JobDir, name: str) -> str:
    try:
        return str(json.loads(Path(job.path, f"{name}.status.json").read_text())["state"])
    except FileNotFoundError:
        return ""


def proportional_size(pid: int) -> int:
    """What a process holds in bytes, a shared page by halves, thirds and so on; 0 if it is gone."""
    return _kib(f"/proc/{pid}/smaps_rollup", "Pss:")


def _kib(path: str, field: str) -> int:
    """A field of a file in /proc, in bytes; 0 if the process is gone."""
    try:
        lines = Path(path).read_text().splitlines()
    except (FileNotFoundError, ProcessLookupError):
        return 0
    return next((int(line.split()[1]) * 1024 for line in lines if line.startswith(field)), 0)
