# Copyright: (c) 2026, Sendense contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""One play in which every machine suffers something else, then one clean-up, and the oracle."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Dict, List, Optional, Sequence, Tuple

from tests.e2e.site import Run
from tests.faults.fleet import Fleet
from tests.faults.kills import Fault
from tests.faults.oracle import LOST
from tests.faults.restores import Restores

from ._base import Outcome

#: A copy that takes some seconds, so that "while it copies" is a time and not a hope.
BYTES_PER_SECOND = 512 * 1024
SLOW: Dict[str, Dict[str, Any]] = {
    "backup": {"backup_vm_max_bytes_per_second": BYTES_PER_SECOND},
    "restore": {"restore_vm_max_bytes_per_second": BYTES_PER_SECOND},
    "verify": {},
}

#: What one machine suffers: every fault of it has to happen.
Suffering = Tuple[Fault, ...]


@dataclass(frozen=True)
class Wave:
    """One play: a suffering for each of the first machines. ``kind``: backup, restore, files (a restore to files), verify."""

    kind: str
    sufferings: Sequence[Suffering]

    @property
    def faults(self) -> List[Fault]:
        """All of them."""
        return [fault for suffering in self.sufferings for fault in suffering]

    @property
    def playbook(self) -> str:
        """The name of its playbook."""
        return "restore" if self.kind == "files" else self.kind


@dataclass
class Ground:
    """A fleet with what waves need: where restores go, and whose change tracking was lost with its qemu."""

    fleet: Fleet
    outcome: Outcome = field(default_factory=Outcome)
    lost: set[str] = field(default_factory=set)

    def __post_init__(self) -> None:
        self.restores = Restores(self.fleet)

    def play(self, kind: str, planned: Dict[str, Suffering], slow: bool, tick: Optional[Any] = None) -> Run:
        """One play of a kind with these faults; scribbles before a backup, and takes the digests of O4."""
        fleet = self.fleet
        playbook = "restore" if kind == "files" else kind
        extra = dict(SLOW[playbook] if slow else {})
        if kind == "backup":
            fleet.scribble()
        fleet.remember()
        if kind == "backup":
            return fleet.backup(planned, ok=False, tick=tick, **extra)
        if kind == "verify":
            extra["verify_vm_all_points"] = True
        elif kind != "cleanup":
            extra.update(self.restores.to_files() if kind == "files" else self.restores.to_machines())
        return fleet.play(playbook, planned, tick, **extra)

    def strike(self, wave: Wave) -> None:
        """Play a wave; every fault of it that does not happen is a problem."""
        planned = dict(zip(self.fleet.guests, wave.sufferings, strict=False))
        run = self.play(wave.kind, planned, any(fault.copied for fault in wave.faults))
        self.after(wave.kind, run)
        struck = {(strike.name, strike.fault) for strike in self.fleet.struck}
        self.outcome.attempted += len(wave.faults)
        for name, suffering in planned.items():
            for fault in suffering:
                if (name, fault) not in struck:
                    self.outcome.problems.append(f"{wave.kind}: {fault} was not hit: {run.error(name).get('msg')}")

    def after(self, kind: str, run: Run) -> None:
        """One clean-up, then the oracle; what was struck counts as hit."""
        fleet = self.fleet
        try:
            findings = fleet.recover()
        except AssertionError as error:
            findings = [f"O2 {error}", *(f"O3 process {text}" for text in fleet.kill_left().values()), *fleet.recover()]
        qemus = {strike.name for strike in fleet.struck if strike.fault.victim == "qemu"}
        if kind == "backup":
            for name in fleet.guests:
                findings += fleet.oracle.levels(run, name, LOST if name in self.lost | qemus else set())
                if run.result(name, "Make it durable, re-read it, publish it").get("point"):
                    self.lost.discard(name)
        elif kind in ("restore", "files"):
            findings += self.restores.check()
            self.restores.remove()
        self.lost |= qemus
        self.outcome.hit += len(fleet.struck)
        self.outcome.judge([f"{finding} [after {kind}]" for finding in findings])
        struck = ", ".join(f"{strike.name} {strike.fault}" for strike in fleet.struck)
        print(f"    {kind}: {len(fleet.struck)} hit: {struck}", *findings, sep="\n    ! ", flush=True)

    def last(self) -> None:
        """O5 for all: a backup, incremental but for machines whose qemu was killed; it verifies and restores."""
        fleet = self.fleet
        run = self.play("backup", {}, slow=False)
        for name in fleet.guests:
            self.outcome.judge(fleet.oracle.next_backup(run, [name], self._may_be_full(name)))
        self.lost.clear()
        if self.play("verify", {}, slow=False).returncode != 0:
            self.outcome.judge(["O5 verify failed after all faults"])
        self.play("restore", {}, slow=False)
        self.outcome.judge(self.restores.missing(list(fleet.guests)) + self.restores.check() + fleet.oracle.check(fleet.before))
        self.restores.remove()

    def _may_be_full(self, name: str) -> set[str]:
        return LOST if name in self.lost else set()
