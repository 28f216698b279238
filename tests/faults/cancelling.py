# Copyright: (c) 2026, Sendense contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Cancel the jobs of machines of a fleet, and measure until nothing of them is left."""

from __future__ import annotations

import os
import time
from typing import Dict, List

from ansible_collections.sendense.platform.plugins.module_utils.hubstate.statedir import StateDir
from ansible_collections.sendense.platform.plugins.module_utils.jobs.cancel import cancel_jobs, living

from .fleet import Fleet

#: Seconds from a cancel until nothing of the job may be left (issue: 10), on a machine that has nothing else to do.
LEFT_NOTHING_SECONDS = 10.0


def cancel(fleet: Fleet, name: str) -> List[str]:
    """What playbooks/cancel.yml does for one machine, without the wait; the roles whose jobs were cancelled now."""
    params = {"platform": "libvirt", "machine_id": fleet.guests[name].uuid, "machine_key": "", "job_ids": [], "wait": 0}
    found: List[str] = []
    for state_dir in (fleet.site.node_state, fleet.site.hub_state, fleet.site.node_state):
        if os.path.isdir(state_dir):
            jobs = cancel_jobs(dict(params, state_dir=state_dir), check_mode=False)["jobs"]
            found += [job["role"] for job in jobs if not job["requested_before"]]
    return found


def has_job(fleet: Fleet, name: str) -> bool:
    """Whether a job of the machine lives at hub or node."""
    return any(living(StateDir(state), fleet.key(name), []) for state in {fleet.site.hub_state, fleet.site.node_state})


def notes(fleet: Fleet) -> List[str]:
    """Notes of cancelled jobs that no play has taken."""
    folders = [os.path.join(state, "cancelled") for state in (fleet.site.hub_state, fleet.site.node_state)]
    return [os.path.join(folder, name) for folder in folders if os.path.isdir(folder) for name in os.listdir(folder)]


class Cancels:
    """Cancels machines during one run, and times their ends; call :meth:`look` often."""

    def __init__(self, fleet: Fleet) -> None:
        self._fleet = fleet
        self._asked: Dict[str, float] = {}
        self.seconds: Dict[str, float] = {}

    def strike(self, name: str) -> bool:
        """Cancel one machine's jobs now; False if none lives."""
        if not cancel(self._fleet, name):
            return False
        self._asked[name] = time.monotonic()
        return True

    def look(self) -> None:
        """Note the machines of which no job is left."""
        for name, asked in list(self._asked.items()):
            if not has_job(self._fleet, name):
                self.seconds[name] = time.monotonic() - asked
                del self._asked[name]

    def wait(self) -> None:
        """Until every cancelled job has ended; AssertionError if one does not."""
        deadline = time.monotonic() + 6 * LEFT_NOTHING_SECONDS
        while self._asked:
            assert time.monotonic() < deadline, f"jobs of {sorted(self._asked)} do not end"
            self.look()
            time.sleep(0.05)
