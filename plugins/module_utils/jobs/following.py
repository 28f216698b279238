# Copyright: (c) 2026, Sendense contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Long work of a job as a child of its keeper: start it, wait a little, and let the controller follow the rest.

A module must not run for hours (nobody sees its progress and its heartbeat would outlive the controller), so it starts
the mover or verifier under the keeper, waits for ``GRACE_SECONDS``, and returns either the outcome or where the status
file is. The action plugin reads that file, beats the hearts and calls the module again to collect.
"""

from __future__ import annotations

import json
import os
import sys
import time
from dataclasses import dataclass
from typing import Any, Dict, List, Optional

from ..datapath.keeper_client import KeeperClient
from ..errors import CopyFailedError, SendenseError, from_result
from ..hubstate.cancelling import cancelled_error, was_cancelled
from ..hubstate.jobs import JobDir

#: Seconds that a module waits itself before it hands over to the controller. Far below the keeper's 30 s.
GRACE_SECONDS = 4.0


@dataclass
class FollowedChild:
    """One mover, verifier or checker of a job (``kind``); ``name`` is also the stem of its files in the job directory."""

    job: JobDir
    client: KeeperClient
    name: str
    kind: str

    @property
    def status_path(self) -> str:
        """Where the child reports (schema in docs/design/backup-flow.md)."""
        return os.path.join(self.job.path, f"{self.name}.status.json")

    @property
    def cancel_path(self) -> str:
        """The job's cancel marker, which the child watches."""
        return os.path.join(self.job.path, "cancel")

    def start(self, agent_path: str, plan: Dict[str, Any]) -> None:
        """Write the plan and start ``agent <kind> --plan ...`` under the keeper."""
        plan_path = os.path.join(self.job.path, f"{self.name}.plan.json")
        with open(plan_path, "w", encoding="utf-8") as stream:
            json.dump(plan, stream)
        argv = [sys.executable, agent_path, self.kind]
        argv += ["--plan", plan_path, "--status", self.status_path, "--cancel", self.cancel_path]
        self.client.start(self.name, argv, kind="mover" if self.kind == "mover" else "verifier")

    def status(self) -> Optional[Dict[str, Any]]:
        """The child's last report, None if there is none yet."""
        try:
            with open(self.status_path, encoding="utf-8") as stream:
                return json.load(stream)
        except FileNotFoundError:
            return None

    def wait(self, seconds: Optional[float]) -> bool:
        """Wait until the child has ended; False if it still runs after ``seconds`` (None: for ever)."""
        deadline = None if seconds is None else time.monotonic() + seconds
        pause = 0.01
        while True:
            if self.client.child(self.name)["state"] != "running":
                return True
            if deadline is not None and time.monotonic() >= deadline:
                return False
            time.sleep(pause)
            pause = min(pause * 1.5, 0.25)

    def outcome(self) -> Dict[str, Any]:
        """The final status of an ended child; its error is raised with the result of each disk in the details."""
        child = self.client.child(self.name)
        status = self.status() or {}
        state = status.get("state")
        if state == "done" and child.get("returncode") == 0:
            return status
        if status.get("error"):
            error: SendenseError = from_result(status["error"])
        else:
            error = CopyFailedError(
                f"The {self.kind} of job {self.job.path.rsplit('/', 1)[-1]} ended without a result "
                f"(exit code {child.get('returncode')}). Look at its last words and run the job again.",
                details={"stderr": child.get("stderr_tail", "")},
            )
        if was_cancelled(self.job.path):
            error = cancelled_error(self.job.path)
        error.details.setdefault("disks", status.get("disks", {}))
        raise error

    def handover(self) -> Dict[str, str]:
        """What the action plugin needs to follow the child."""
        return {"name": self.name, "status_path": self.status_path, "heartbeat_path": self.job.heartbeat_path}


def follow(child: FollowedChild, phase: str) -> Optional[Dict[str, Any]]:
    """Wait as the phase asks: the final status, or None if the controller has to follow (on)."""
    ended = child.wait(None if phase == "run" else GRACE_SECONDS)
    return child.outcome() if ended else None


def disk_results(status: Dict[str, Any]) -> List[Dict[str, Any]]:
    """One result per disk, in disk order."""
    disks = status.get("disks", {})
    return [dict(disks[key], key=key) for key in sorted(disks, key=lambda key: int(key[4:]))]


def failed_result(error: SendenseError) -> Dict[str, Any]:
    """The fields of a failed task, with one result per disk where there are any."""
    return dict(error.as_result(), disks=disk_results({"disks": error.details.get("disks", {})}))
