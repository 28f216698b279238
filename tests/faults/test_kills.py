# Copyright: (c) 2026, Sendense contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Kill what works on a backup, at every step of it; then one clean-up, and the oracle holds."""

from __future__ import annotations

import time
from typing import Any, Dict, List

import pytest

from tests.e2e.site import ROOT

from .fleet import Fleet
from .kills import Fault
from .oracle import LOST

#: A copy that takes some seconds, so that "while it copies" is a time and not a hope.
SLOW: Dict[str, Any] = {"backup_vm_max_bytes_per_second": 512 * 1024}

#: By round its runs, in each of which every machine has another fault. After each run there is one clean-up and the oracle's
#: O1 to O4; that the machine's next backup gets as far as its next fault, and at last to its end, is O5.
ROUNDS: Dict[str, List[List[Fault]]] = {
    "one process of one machine": [
        [
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
        ],
        [
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
        ],
        [
            Fault("module", "seal:files-adopted"),
            Fault("module", "commit:files-synced"),
            Fault("module", "commit:manifest-written"),
            Fault("module", "commit:renamed"),
            Fault("hub keeper", "commit:renamed"),
            Fault("module", "commit:finished"),
            Fault("module", "close:source-closed"),
            Fault("node keeper", "close:children-stopped"),
        ],
    ],
    "libvirtd": [
        [Fault("libvirtd", "snapshot:planned")],
        [Fault("libvirtd", "copy:started", copied=True)],
        [Fault("libvirtd", "close:children-stopped")],
    ],
    "ansible": [
        [Fault("ansible", "open:leased")],
        [Fault("ansible", "snapshot:opened")],
        [Fault("ansible", "copy:started", copied=True)],
        [Fault("ansible", "commit:renamed")],
    ],
}
#: Machines of rounds whose faults concern everybody.
MACHINES = 2


def test_there_are_at_least_thirty_kills_of_every_victim() -> None:
    faults = [fault for runs in ROUNDS.values() for faults in runs for fault in faults]
    assert len(faults) >= 30
    wanted = {"module", "mover", "hub keeper", "node keeper", "export", "qemu", "libvirtd", "ansible"}
    assert wanted <= {fault.victim for fault in faults}


def test_every_step_exists() -> None:
    code = "".join(path.read_text() for path in (ROOT / "plugins" / "module_utils").rglob("*.py"))
    steps = {fault.step for runs in ROUNDS.values() for faults in runs for fault in faults}
    places = {"hub:keeper-started", "node:keeper-started"}  # the role is put in at run time
    assert [step for step in sorted(steps - places) if f'reached("{step}")' not in code] == []


@pytest.mark.parametrize("round_name", ROUNDS)
def test_oracle_holds_after_kills(fleet: Fleet, round_name: str) -> None:
    runs = ROUNDS[round_name]
    names = [f"m{number:02d}" for number in range(max(MACHINES, *map(len, runs)))]
    fleet.add(*names)
    fleet.backup()
    for faults in runs:
        planned = dict(zip(names, faults, strict=False))
        fleet.scribble()
        fleet.remember()
        began = time.monotonic()
        run = fleet.backup(planned, ok=False, **(SLOW if any(fault.copied for fault in faults) else {}))
        copied = time.monotonic()
        found = fleet.recover()
        print(
            f"{round_name}: {fleet.hit} of {len(faults)} faults hit in {copied - began:.0f} s, {time.monotonic() - copied:.0f} s clean-up"
        )
        assert {name: fault for name, fault in planned.items() if name not in fleet.hit} == {}, run.output
        assert found == []

    fleet.scribble()
    fleet.remember()
    run = fleet.backup()
    lost = {name for faults in runs for name, fault in zip(names, faults, strict=False) if fault.victim == "qemu"}
    problems = fleet.oracle.next_backup(run, sorted(set(names) - lost), set())
    problems += fleet.oracle.next_backup(run, sorted(lost), LOST)
    assert problems + fleet.oracle.check(fleet.before) == []
