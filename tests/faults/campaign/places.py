# Copyright: (c) 2026, Sendense contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Pull each cable between controller, hub and node, and kill each of the three, while machines are held at moments of their backups."""

from __future__ import annotations

import itertools
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Dict, List, Set, Tuple

import libvirt

from tests.e2e.site import Run
from tests.faults.oracle import LOST
from tests.faults.remote_fleet import SHARES, Holding, RemoteFleet, remote_fleet_at
from tests.faults.restores import Restores
from tests.lab.disks import MIB
from tests.lab.guest import Guest
from tests.lab.places import CONTROLLER, HUB, NODE

from ._base import Family, Outcome
from .waves import Ground

#: The keepers' patience, in seconds: the product's default; in a short round less, so that it is one.
PATIENCE_SECONDS, SHORT_PATIENCE_SECONDS = 30, 12
#: Seconds after the fault within which the play has ended: what ssh and movers need to notice, and the rescue.
ENDED_SECONDS = 120.0
#: Seconds beyond the keepers' patience within which nothing of a job lives any more at a machine that was not killed.
SETTLED_SECONDS = 60.0
#: Bytes per second, such that machines come to their shares of the copy at about the same time.
CAPS = {"copy:25%": 224 * 1024, "copy:50%": 384 * 1024, "copy:75%": 576 * 1024}
#: Where the other machines are: around snapshot and tunnel, while the hub commits, while the node closes; the one with a guest agent
#: while it is frozen, half of the time.
FROZEN = "libvirt:frozen"
OPENED = ("tunnel:proved", "snapshot:opened", "serve:checked", "export:checked", "tunnel:forwarded")
COMMIT = ("commit:writers-stopped", "commit:reread-done", "seal:files-adopted", "commit:manifest-written", "commit:renamed")
CLOSING = ("close:children-stopped", "close:source-closed")


@dataclass(frozen=True)
class Blow:
    """A cable (two names) that is pulled or a machine (one) that is killed, ``silent``: its cables first, so that nobody hears of it."""

    where: Tuple[str, ...]
    silent: bool = False

    def __str__(self) -> str:
        what = "cable" if len(self.where) == 2 else "kill"
        return f"{what} {'-'.join(self.where)}{' silently' if self.silent else ''}"

    def strike(self, fleet: RemoteFleet) -> None:
        """Make it happen."""
        network = fleet.places.network
        if len(self.where) == 2:
            network.cut(*self.where)
            return
        for cable in network.cables if self.silent else []:
            if self.where[0] in cable:
                network.cut(*cable)
        fleet.places.all[self.where[0]].kill()

    @property
    def kills_keepers(self) -> bool:
        """Whether somebody has to clean up after dead keepers."""
        return self.where in ((HUB,), (NODE,))


MACHINES_OF_A_PLAY = 6
ALIVE = "alive"
CABLES = [(CONTROLLER, HUB), (CONTROLLER, NODE), (HUB, NODE)]
MACHINES = [(CONTROLLER,), (HUB,), (NODE,)]


class PlacesFamily(Family):
    """A hit is a machine whose job stood at its moment when the blow came."""

    NAME = "places"
    FULL = 36  # every cable and every machine
    SHORT = 1

    def run(self, base: Path, seed: int, count: int) -> Outcome:
        with remote_fleet_at(base, "pl", seed) as fleet:
            ground = Ground(fleet)
            short = count <= self.SHORT
            fleet.patience_s = SHORT_PATIENCE_SECONDS if short else PATIENCE_SECONDS
            _people(fleet, count, short)
            fleet.backup()
            silences = itertools.cycle(fleet.random.sample([True, False], 2))
            blows = [Blow(where) for where in CABLES] + [Blow(where, next(silences)) for where in MACHINES]
            for blow in itertools.islice(itertools.cycle(fleet.random.sample(blows, len(blows))), 4 * len(blows)):
                if ground.outcome.hit >= count:
                    break
                _blow(ground, fleet, blow)
            if not short:
                ground.restores = Restores(fleet, Path(fleet.directory, "storage"))
                ground.last()
            return ground.outcome


def _people(fleet: RemoteFleet, count: int, short: bool) -> None:
    """Guests that never run an instruction, and one that runs and has an agent, which can be frozen."""
    fleet.add(*(f"m{number}" for number in range(count if short else MACHINES_OF_A_PLAY - 1)))
    for guest in fleet.guests.values():
        guest.write("vdb", fleet.random.randrange(1, 256), 0, 3 * MIB)  # all of it is copied every time
    if not short:
        alive = Guest.bootable(fleet.host, ALIVE, quiet=True, odd_mib=4, raw_mib=2).start()
        alive.wait_ready()
        alive.agent.wait()
        fleet.adopt(alive)


def _blow(ground: Ground, fleet: RemoteFleet, blow: Blow) -> None:
    """One backup of all machines that is struck, the world mended, and one that is not."""
    moments = _moments(fleet)
    caps = {name: CAPS[moment] for name, moment in moments.items() if moment in SHARES}
    holding = Holding(fleet, moments, lambda: blow.strike(fleet))
    fleet.scribble()
    fleet.remember()
    run = fleet.backup(ok=False, tick=holding, **_slow(fleet, caps))
    outcome, ended = ground.outcome, time.monotonic()
    outcome.attempted += len(moments)
    if holding.at is None:
        outcome.problems.append(f"{blow}: no machine came to its moment: {run.output[-2000:]}")
        return
    outcome.hit += len(holding.held)
    findings = _in_time(blow, ended - holding.at)
    if not blow.kills_keepers:
        findings += _settled(fleet, holding.at)  # while the cable is still out
        findings += _frozen(fleet)
    fleet.places.start()
    if not blow.kills_keepers:
        # A node that could not hear whether its backup was published keeps both checkpoints until the next backup.
        findings += fleet.oracle.jobs() + [finding for finding in fleet.oracle.leaks() if "checkpoint" not in finding]
    findings += _next(fleet, ground, blow, holding.held)
    outcome.judge([f"{finding} [{blow}]" for finding in findings])
    told = {name: run.error(name).get("error_code", "-") for name in holding.held}
    seconds = f"ended after {ended - holding.at:.0f} s"
    print(f"    {blow}: {len(holding.held)} held, {seconds}: {holding.held} {told}", *findings, sep="\n    ! ", flush=True)


def _moments(fleet: RemoteFleet) -> Dict[str, str]:
    """One moment for each machine; the shares of a copy and one of each other kind."""
    chosen = [*SHARES, fleet.random.choice(COMMIT), fleet.random.choice(CLOSING), fleet.random.choice(OPENED)]
    moments: Dict[str, str] = {}
    if ALIVE in fleet.guests:
        moments[ALIVE] = fleet.random.choice([FROZEN, chosen.pop()])
    names = [name for name in fleet.guests if name != ALIVE]
    return dict(moments, **dict(zip(names, fleet.random.sample(chosen, len(names)), strict=True)))


def _slow(fleet: RemoteFleet, caps: Dict[str, int]) -> Dict[str, Any]:
    return {
        "backup_vm_heartbeat_timeout": fleet.patience_s,
        "backup_vm_max_bytes_per_second": "{{ faults_caps[inventory_hostname] | default(0) }}",
        "faults_caps": caps,
    }


def _in_time(blow: Blow, seconds: float) -> List[str]:
    return [f"O2 the play ended only after {seconds:.0f} s"] if seconds > ENDED_SECONDS else []


def _settled(fleet: RemoteFleet, struck_at: float) -> List[str]:
    """Keepers give up what nobody wants any more, without anybody's help."""
    try:
        fleet.settle(max(1.0, fleet.patience_s + SETTLED_SECONDS - (time.monotonic() - struck_at)))
    except AssertionError as error:
        return [f"O2 {error}"]
    return []


def _frozen(fleet: RemoteFleet) -> List[str]:
    """The guest that can be frozen is not. (That none is paused or off is among the leaks of the oracle.)"""
    if ALIVE not in fleet.guests:
        return []
    try:
        status = fleet.guests[ALIVE].agent.freeze_status()
    except libvirt.libvirtError as error:
        return [f"O3 the agent of {ALIVE} does not answer: {error}"]
    return [] if status == "thawed" else [f"O3 {ALIVE} is {status}"]


def _next(fleet: RemoteFleet, ground: Ground, blow: Blow, held: Dict[str, str]) -> List[str]:
    """O5: the next backup takes away what dead jobs left, and is what it should be."""
    fleet.scribble()
    fleet.settle()
    run: Run = fleet.backup(ok=False)
    findings = []
    for name in fleet.guests:
        lost: Set[str] = set(LOST) if held.get(name) in COMMIT + CLOSING else set()
        findings += fleet.oracle.next_backup(run, [name], lost)
    return findings + _frozen(fleet) + fleet.oracle.check(fleet.before)
