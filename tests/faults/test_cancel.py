# Copyright: (c) 2026, Sendense contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Cancel one machine at named steps of its job, and whole runs by a signal: what was begun is undone, and what is published stays."""

from __future__ import annotations

import os
import signal
import time
from typing import Any, Callable, Dict, List, Tuple

import pytest

from ansible_collections.sendense.platform.plugins.module_utils.repositories._base import PointFilter
from tests.e2e.site import Started

from .cancelling import LEFT_NOTHING_SECONDS, Cancels, has_job, notes
from .fleet import Fleet
from .kills import Fault
from .oracle import backup_xml

#: A copy that takes some seconds, and patience with many modules that stand still at their steps.
SLOW: Dict[str, Any] = {"backup_vm_max_bytes_per_second": 512 * 1024, "backup_vm_heartbeat_timeout": 60}
#: Steps at which a cancel leaves nothing.
BEFORE = [
    "open:leased",
    "snapshot:opened",
    "serve:checked",
    "export:checked",
    "copy:started",
    "copy:done",
    "commit:reread-started",
    "reread:files-synced",
]
#: From the manifest on, the commit holds the machine's lock, and whoever wants to take the point back comes after it.
AFTER = ["commit:manifest-written", "commit:renamed", "close:source-closed"]
#: Seconds that a stopped module is left alone with keepers that undo its job.
ALONE_SECONDS = 0.7


def _cancelling(cancels: Cancels, fleet: Fleet, name: str) -> Callable[[], None]:
    """Cancel while the module stands at its step, and let the keepers get ahead of it."""

    def act() -> None:
        cancels.strike(name)
        deadline = time.monotonic() + ALONE_SECONDS
        while has_job(fleet, name) and time.monotonic() < deadline:
            time.sleep(0.02)
        cancels.look()

    return act


def test_a_cancel_at_any_step_leaves_nothing_or_a_whole_backup_and_no_other_machine_is_touched(fleet: Fleet) -> None:
    steps = [*BEFORE, *AFTER]
    names = [f"m{number:02d}" for number in range(len(steps))]
    fleet.add(*names, "other")
    fleet.backup()
    fleet.scribble()
    fleet.remember()
    points = {name: len(fleet.oracle.repository.list(_of(fleet, name))) for name in [*names, "other"]}

    cancels = Cancels(fleet)
    faults = {name: Fault("act", step, act=_cancelling(cancels, fleet, name)) for name, step in zip(names, steps, strict=True)}
    run = fleet.backup(faults, ok=False, tick=lambda *_run: cancels.look(), **SLOW)
    cancels.wait()
    print({step: round(cancels.seconds.get(name, -1), 1) for name, step in zip(names, steps, strict=True)})
    assert fleet.hit == names, run.output
    assert sorted(cancels.seconds) == names
    assert fleet.oracle.check(fleet.before) == []  # without any clean-up
    assert notes(fleet) == []

    for name, step in zip(names, steps, strict=True):
        new = len(fleet.oracle.repository.list(_of(fleet, name))) - points[name]
        error = run.error(name).get("error_code", "")
        assert (step, new, error) == (step, int(step in AFTER), "" if step in AFTER else "JOB_CANCELLED"), run.error(name)
    assert len(fleet.oracle.repository.list(_of(fleet, "other"))) == points["other"] + 1 and not run.error("other")

    fleet.scribble()
    fleet.remember()
    run = fleet.backup()
    assert fleet.oracle.next_backup(run, [*names, "other"], set()) + fleet.oracle.check(fleet.before) == []


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM], ids=lambda number: number.name)
def test_the_end_of_ansible_playbook_ends_its_jobs(fleet: Fleet, number: signal.Signals) -> None:
    names = ["m00", "m01", "m02"]
    fleet.add(*names).backup()
    for step in ("snapshot:opened", "copy:started", "commit:renamed"):
        fleet.scribble()
        fleet.remember()
        struck: List[Tuple[float, str]] = []

        def interrupt(started: Started, _watch: Any, struck: List[Tuple[float, str]] = struck, step: str = step) -> None:
            if not struck and any(line.startswith(step) for line in (fleet.directory / "steps").read_text().splitlines()):
                os.kill(started.process.pid, number)
                struck.append((time.monotonic(), step))

        run = fleet.backup(ok=False, tick=interrupt, **SLOW)
        assert struck and run.returncode != 0, run.output
        fleet.settle(6 * LEFT_NOTHING_SECONDS)
        print(f"{number.name} at {step}: nothing left after {time.monotonic() - struck[0][0]:.1f} s")
        assert [name for name in names if backup_xml(fleet.guests[name].domain)] == []
        assert fleet.oracle.check(fleet.before) == []  # without any clean-up
        assert notes(fleet) == []
    fleet.scribble()
    fleet.remember()
    run = fleet.backup()
    assert fleet.oracle.next_backup(run, names, set()) + fleet.oracle.check(fleet.before) == []


def _of(fleet: Fleet, name: str) -> PointFilter:
    return PointFilter(machine_key=fleet.key(name))
