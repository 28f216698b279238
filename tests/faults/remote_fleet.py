# Copyright: (c) 2026, Sendense contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A fleet whose controller, hub and node are three machines, and jobs of it that are held at named moments until a fault has struck."""

from __future__ import annotations

import json
import shutil
import signal
import tempfile
import time
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Callable, Dict, Iterator, List, Optional

from ansible_collections.sendense.platform.plugins.module_utils.errors import JobNotFoundError
from ansible_collections.sendense.platform.plugins.module_utils.hubstate.jobs import JobDir, list_jobs
from ansible_collections.sendense.platform.plugins.module_utils.hubstate.statedir import StateDir
from ansible_collections.sendense.platform.plugins.module_utils.steps import HOOK_VARIABLE
from tests.e2e.remote_site import RemoteSite
from tests.e2e.site import Run, Site
from tests.lab.host import LibvirtHost
from tests.lab.places import Places

from .fleet import HEARTBEAT_SECONDS, Fleet
from .kills import process_state, send
from .watch import RUN_SECONDS, SECRET_SECONDS, Faults

#: A controller that lost its power leaves its sessions at the others; their sshd ends them, as the docs say. The limits are Debian's.
SSHD = ("ClientAliveInterval 5", "ClientAliveCountMax 3", "MaxSessions 10", "MaxStartups 10:30:100")
#: The mover has moved this share of the bytes.
SHARES = {"copy:25%": 0.25, "copy:50%": 0.5, "copy:75%": 0.75}
#: Seconds less than the keepers' patience for which jobs are held until the others have come to their moments.
HOLD_MARGIN_SECONDS = 6.0


@dataclass
class RemoteFleet(Fleet):
    """``hook`` is where modules and keepers of hub and node note their steps; ``patience_s`` is that of the keepers."""

    places: Places = field(kw_only=True)
    patience_s: int = HEARTBEAT_SECONDS

    @property
    def hook(self) -> Path:
        """The file of the step hook."""
        return self.directory / "hook" / "steps"

    def _make_site(self) -> Site:
        return RemoteSite(self.directory, [self.host.uri], places=self.places).furnish(self.host, [self.hook.parent])

    def play(self, playbook: str, faults: Optional[Faults] = None, tick: Optional[Callable[[Any], None]] = None, **extra: Any) -> Run:
        """Run a playbook for the whole fleet; ``tick`` is called about twenty times a second while it runs."""
        assert not faults, "what happens to places is done by a tick"
        for name in ("steps", "steps.stop", "steps.kill"):
            (self.hook.parent / name).write_text("")
        started = self.site.start(playbook, ",".join(self.guests), extra)
        began = searched = time.monotonic()
        try:
            while started.process.poll() is None:
                if tick is not None:
                    tick(started)
                now = time.monotonic()
                if now - searched > SECRET_SECONDS:
                    searched = now
                    self.oracle.watch_secret()
                assert now - began < RUN_SECONDS, f"{playbook} did not end within {RUN_SECONDS:.0f} s:\n{started.log.read_text()}"
                time.sleep(0.05)
        finally:
            self.release()
            if started.process.poll() is None:
                started.kill()
        return started.wait()

    def release(self) -> None:
        """Let everything go on that stands still at a step."""
        Path(f"{self.hook}.stop").write_text("")
        for place in self.places.all.values():
            for pid in place.processes() if place.running else {}:
                if process_state(pid) == "T":
                    send(pid, signal.SIGCONT)

    def job(self, name: str, role: str) -> Optional[JobDir]:
        """The living job of a machine at a place."""
        for job in list_jobs(StateDir(self.site.hub_state if role == "hub" else self.site.node_state)):
            try:
                if job.role == role and job.alive() and job.meta().get("machine_key") == self.key(name):
                    return job
            except JobNotFoundError:
                continue
        return None


class Holding:
    """Called all the time while a play runs: holds each machine's job at its moment, and calls ``act`` once all of them are there.

    A moment is a named step or one of ``SHARES``. Those that have not come to theirs in time are not held; ``held`` says who was.
    """

    def __init__(self, fleet: RemoteFleet, moments: Dict[str, str], act: Callable[[], None]) -> None:
        self._fleet = fleet
        self._moments = moments
        self._act = act
        self._since: Optional[float] = None
        self.held: Dict[str, str] = {}
        self.at: Optional[float] = None

    def __call__(self, _started: object) -> None:
        if self.at is not None:
            return
        stop = Path(f"{self._fleet.hook}.stop")
        if not stop.read_text():
            steps = [f"{moment} {self._fleet.key(name)}\n" for name, moment in self._moments.items() if moment not in SHARES]
            stop.write_text("".join(steps) or "-\n")
        lines = self._fleet.hook.read_text().splitlines()
        for name, moment in self._moments.items():
            if name not in self.held and self._is_there(name, moment, lines):
                self.held[name] = moment
                self._since = self._since or time.monotonic()
        late = self._since is not None and time.monotonic() - self._since > self._fleet.patience_s - HOLD_MARGIN_SECONDS
        if late or len(self.held) == len(self._moments):
            self.at = time.monotonic()
            self._act()
            self._fleet.release()

    def _is_there(self, name: str, moment: str, lines: List[str]) -> bool:
        if moment not in SHARES:
            return any(line.startswith(f"{moment} {self._fleet.key(name)} ") for line in lines)
        job = self._fleet.job(name, "node")
        try:
            status = json.loads(Path(job.path if job else "/nonexistent", "copy.status.json").read_text())
            movers = [int(child["pid"]) for child in job.children() if child["name"] == "copy"] if job else []
        except (FileNotFoundError, JobNotFoundError, ValueError):
            return False
        if not movers or not SHARES[moment] <= status["bytes_done"] / max(1, status["bytes_total"]) < 1.0:
            return False
        mover = self._fleet.places.node.outside(movers[0])
        return mover is not None and send(mover, signal.SIGSTOP)


@contextmanager
def remote_fleet_at(base: Path, name: str, seed: int) -> Iterator[RemoteFleet]:
    """A fleet on three machines beside a libvirt host below ``base``; nothing of it is left afterwards."""
    directory = Path(tempfile.mkdtemp(prefix="sf-"))
    (directory / "hook").mkdir()
    host = LibvirtHost(f"{name}h", base)
    with tempfile.TemporaryDirectory(prefix="sl-") as lab:
        places = Places(Path(lab), [*SSHD, f"SetEnv {HOOK_VARIABLE}={directory}/hook/steps"])
        try:
            fleet = RemoteFleet(directory, host.start(), seed, places=places)
            places.start()
            fleet.site.initialise()
            yield fleet
        finally:
            places.stop()
            host.stop()
            shutil.rmtree(directory)
