# Copyright: (c) 2026, Sendense contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Several small guests on a libvirt host of their own, one site that backs them up, and the oracle over both."""

from __future__ import annotations

import random
import shutil
import tempfile
import time
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Dict, Iterator, List, Optional, Sequence

import libvirt

from ansible_collections.sendense.platform.plugins.module_utils.hubstate.jobs import list_jobs
from ansible_collections.sendense.platform.plugins.module_utils.hubstate.statedir import StateDir
from tests.e2e.canary import new_canary, plant
from tests.e2e.site import Run, Site
from tests.lab.disks import MIB, DiskSpec
from tests.lab.guest import Guest
from tests.lab.host import LibvirtHost

from .kills import Strike, send
from .oracle import Oracle, sha256
from .watch import Faults, Tick, Watch

#: Seconds: shorter than the product's default, longer than any task takes on a busy machine.
HEARTBEAT_SECONDS = 15


def small_disks() -> List[DiskSpec]:
    """One qcow2 disk of an odd size and one raw disk."""
    return [DiskSpec("vda", 8 * MIB + 512), DiskSpec("vdb", 3 * MIB, "raw")]


@dataclass
class Fleet:
    """The guests by name; ``struck`` and ``hit`` are the faults of the last run. Call :meth:`close` at the end, whatever happened."""

    directory: Path
    host: LibvirtHost
    seed: int
    guests: Dict[str, Guest] = field(default_factory=dict)
    struck: List[Strike] = field(default_factory=list)
    before: Dict[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.random = random.Random(self.seed)
        self.site = self._make_site()
        canary = new_canary()
        plant(self.site, canary)
        self.oracle = Oracle(self.site, [], secret=canary, logs=[self.host.dir / "log"])
        self._watch: Optional[Watch] = None

    def _make_site(self) -> Site:
        return Site(self.directory, [self.host.uri])

    @property
    def hit(self) -> List[str]:
        """The machines to which something happened in the last run, sorted."""
        return sorted(strike.name for strike in self.struck)

    def add(self, *names: str, disks: Optional[Sequence[DiskSpec]] = None) -> "Fleet":
        """Make guests, start them paused, and write something to each disk."""
        for name in names:
            guest = Guest.create(self.host, name, list(disks or small_disks()), memory_mib=64, agent=False)
            self.adopt(guest.start(paused=True))
            for target in guest.disks:
                guest.write(target, self.random.randrange(1, 256), 0, MIB)
        return self

    def adopt(self, guest: Guest) -> None:
        """Make a running guest one of the fleet."""
        self.guests[guest.name] = guest
        self.oracle.guests.append(guest)
        self.oracle.remember_states()

    def scribble(self) -> None:
        """A few random writes and zeros to every disk of every guest that runs no instruction: others have file systems on them."""
        for guest in self.guests.values():
            if guest.active and guest.domain.state()[0] != libvirt.VIR_DOMAIN_PAUSED:
                continue
            for target, disk in guest.disks.items():
                for _number in range(3):
                    offset = self.random.randrange(disk.size_bytes // 4096 - 32) * 4096
                    guest.write(target, self.random.randrange(1, 256), offset, 4096 * self.random.randrange(1, 32))
                guest.zero(target, self.random.randrange(disk.size_bytes // 65536) * 65536, 65536)

    def contents(self) -> Dict[str, Dict[str, str]]:
        """Sha256 of every disk of paused guests as it is now, by machine key and disk key."""
        found: Dict[str, Dict[str, str]] = {}
        for guest in self.guests.values():
            if guest.domain.state()[0] != libvirt.VIR_DOMAIN_PAUSED:
                continue
            guest.flush()
            raw = self.directory / "reference.raw"
            for number, target in enumerate(guest.disks):
                found.setdefault(self.key(guest.name), {})[f"disk{number}"] = sha256(guest.copy_disk(target, raw))
                raw.unlink()
        return found

    def key(self, name: str) -> str:
        """The machine's key in the repository."""
        return f"libvirt-{self.guests[name].uuid}"

    def play(self, playbook: str, faults: Optional[Faults] = None, tick: Optional[Tick] = None, **extra: Any) -> Run:
        """Run a playbook for the whole fleet, with faults by machine; its outcome is for the caller to judge."""
        watch = self._watch = Watch(self, faults or {}, tick)
        run = watch.run(playbook, ",".join(self.guests), extra)
        self.struck = watch.struck
        return run

    def backup(
        self,
        faults: Optional[Faults] = None,
        ok: bool = True,
        contents: bool = True,
        tick: Optional[Tick] = None,
        **extra: Any,
    ) -> Run:
        """Back up the fleet, with faults by machine; points that appear must hold what the disks hold now.

        Without ``contents`` nobody reads the disks before: nothing is known of what the points must hold.
        """
        held, known = self.contents() if contents else {}, set(self._point_ids())
        extra.setdefault("backup_vm_heartbeat_timeout", HEARTBEAT_SECONDS)
        run = self.play("backup", faults, tick, **extra)
        assert not ok or run.returncode == 0, run.output
        for point_id, key in self._point_ids().items():
            if point_id not in known:
                self.oracle.references[point_id] = held.get(key, {})
        return run

    def _point_ids(self) -> Dict[str, str]:
        return {point.manifest.point_id: point.manifest.machine_key for point in self.oracle.repository.list()}

    def settle(self, timeout_s: float = 90.0) -> float:
        """Wait until no keeper lives and no process of a run is left; seconds it took. AssertionError after the timeout."""
        began = time.monotonic()
        states = [StateDir(self.site.hub_state), StateDir(self.site.node_state)]
        while True:
            alive = [job.path for state in states for job in list_jobs(state) if job.alive()]
            left = self.oracle.processes()
            if not alive and not left:
                return time.monotonic() - began
            brief = {pid: text[:120] for pid, text in left.items()}
            assert time.monotonic() - began < timeout_s, f"still alive after {timeout_s:.0f} s: {alive} {brief}"
            time.sleep(0.1)

    def kill_left(self) -> Dict[int, str]:
        """Kill every process of the site that still runs; what they were."""
        left = {pid: text[:120] for pid, text in self.oracle.processes().items()}
        for pid in left:
            send(pid)
        return left

    def revive(self) -> None:
        """What an init system does: libvirtd runs again, and so does every guest whose qemu was killed.

        And what docs/runbooks/libvirt-lost-job.md tells a person: no product can end a job that libvirt itself has lost.
        """
        self.host.start()
        lost = [guest.name for guest in self.guests.values() if guest.active and job_is_lost(guest.domain)]
        if lost:
            print(f"    libvirt has lost its job of {', '.join(lost)}")
            self.host.kill()
            for name in lost:
                record = self.host.dir / "run" / "qemu" / f"{name}.xml"
                lines = record.read_text().splitlines(keepends=True)
                record.write_text("".join(line for line in lines if "<job type='none' async='backup'" not in line))
            self.host.start()
        for guest in self.guests.values():
            if not guest.active:
                guest.start(paused=True)

    def recover(self) -> List[str]:
        """Settle, revive, one clean-up; what the oracle finds then. ``before`` was taken by :meth:`remember`.

        What happens to keepers while they settle belongs to the last run.
        """
        self.settle()
        if self._watch is not None:
            self._watch.count_late()
        self.revive()
        run = self.site.play("cleanup", ",".join(self.guests))
        return self.oracle.check(self.before) + ([] if run.returncode == 0 else [f"cleanup failed: {run.output}"])

    def remember(self) -> None:
        """Take the digests that O4 compares with."""
        self.before = self.oracle.committed_files()

    def close(self) -> None:
        """Stop everything and delete it."""
        self.host.stop()
        shutil.rmtree(self.directory)


def job_is_lost(domain: libvirt.virDomain) -> bool:
    """Whether libvirt believes in a backup job without its data: it was killed while it began one."""
    try:
        domain.jobInfo()
    except libvirt.libvirtError as error:
        return bool(error.get_error_code() == libvirt.VIR_ERR_INTERNAL_ERROR)
    return False


def open_fleet(base: Path, name: str, seed: int) -> Iterator[Fleet]:
    """A fleet whose host is below ``base`` and whose site has a short path; nothing of it is left afterwards. For fixtures."""
    host = LibvirtHost(f"{name}h", base)
    fleet = None
    try:
        fleet = Fleet(Path(tempfile.mkdtemp(prefix="sf-")), host.start(), seed)
        fleet.site.initialise()
        yield fleet
    finally:
        if fleet is not None:
            left = fleet.kill_left()
            fleet.close()
            assert not left, f"left running: {left}"
        else:
            host.stop()


#: The same for a ``with`` statement.
fleet_at = contextmanager(open_fleet)
