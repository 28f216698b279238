# Copyright: (c) 2026, Sendense contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Kill what works on a backup at every named step of it: many machines of one play at once, each with another fault."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Dict, List

from tests.faults.fleet import Fleet, fleet_at
from tests.faults.kills import Fault
from tests.faults.oracle import LOST

from ._base import Family, Outcome

#: A copy that takes some seconds, so that "while it copies" is a time and not a hope.
SLOW: Dict[str, Any] = {"backup_vm_max_bytes_per_second": 512 * 1024}

BACKUP: List[Fault] = [
    Fault("module", "hub:keeper-started"),
    Fault("module", "open:leased"),
    Fault("module", "generation:raised"),
    Fault("module", "open:saved"),
    Fault("hub keeper", "open:saved"),
    Fault("module", "node:keeper-started"),
    Fault("module", "snapshot:undo-registered"),
    Fault("module", "snapshot:opened"),
    Fault("node keeper", "snapshot:opened"),
    Fault("module", "serve:checked"),
    Fault("hub keeper", "export:ports-leased"),
    Fault("module", "create:partial-made"),
    Fault("module", "export:ports-leased"),
    Fault("export", "export:checked"),
    Fault("mover", "copy:started", copied=True),
    Fault("export of the second disk", "copy:started", copied=True),
    Fault("qemu", "copy:started", copied=True),
    Fault("node keeper", "copy:started", copied=True),
    Fault("checker", "commit:reread-started"),
    Fault("reader", "commit:reread-started"),
    Fault("hub keeper", "reread:files-synced"),
    Fault("qemu", "snapshot:opened"),
    Fault("module", "seal:files-adopted"),
    Fault("module", "commit:files-synced"),
    Fault("module", "commit:manifest-written"),
    Fault("module", "commit:renamed"),
    Fault("hub keeper", "commit:renamed"),
    Fault("module", "commit:finished"),
    Fault("module", "close:source-closed"),
    Fault("node keeper", "close:children-stopped"),
]
#: Machines of one play.
MACHINES = 10


class KillStep(Family):
    """One process of one machine's job per fault."""

    NAME = "kill-step"
    FULL = len(BACKUP)
    SHORT = 5

    def run(self, base: Path, seed: int, count: int) -> Outcome:
        outcome = Outcome()
        with fleet_at(base, "ks", seed) as fleet:
            faults = fleet.random.sample(BACKUP, len(BACKUP))[:count]
            names = [f"m{number:02d}" for number in range(min(MACHINES, len(faults)))]
            fleet.add(*names).backup()
            for first in range(0, len(faults), len(names)):
                _wave(fleet, dict(zip(names, faults[first:], strict=False)), outcome)
            _last(fleet, names, faults, outcome)
        return outcome


def _wave(fleet: Fleet, planned: Dict[str, Fault], outcome: Outcome) -> None:
    """One play with its faults, one clean-up, and the oracle."""
    fleet.scribble()
    fleet.remember()
    run = fleet.backup(planned, ok=False, **(SLOW if any(fault.copied for fault in planned.values()) else {}))
    outcome.attempted += len(planned)
    outcome.hit += len(fleet.hit)
    missed = {name: fault for name, fault in planned.items() if name not in fleet.hit}
    outcome.problems += [f"{fault.victim} at {fault.step} was not hit: {run.error(name).get('msg')}" for name, fault in missed.items()]
    outcome.judge(fleet.recover())


def _last(fleet: Fleet, names: List[str], faults: List[Fault], outcome: Outcome) -> None:
    """O5 for all: one more backup, incremental but for machines whose qemu was killed."""
    fleet.scribble()
    fleet.remember()
    run = fleet.backup(ok=False)
    lost = {names[number % len(names)] for number, fault in enumerate(faults) if fault.victim == "qemu"}
    outcome.judge(fleet.oracle.next_backup(run, sorted(set(names) - lost), set()))
    outcome.judge(fleet.oracle.next_backup(run, sorted(lost), LOST | {"no_previous_backup"}))
    outcome.judge(fleet.oracle.check(fleet.before))
