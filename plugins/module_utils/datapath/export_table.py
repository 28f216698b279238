# Copyright: (c) 2026, Sendense contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The export servers of a place for those who ask: list, count, status, metrics, stop by port, stop by job."""

from __future__ import annotations

import os
from typing import Any, Dict, List, Optional

from ..errors import InvalidInputError, JobNotFoundError
from ..hubstate.jobs import ROLES, JobDir
from ..hubstate.locks import holder
from ..hubstate.processes import is_alive
from ..hubstate.statedir import StateDir
from .children import EXPORT
from .export_records import DEAD, RUNNING, STARTING, read_records
from .keeper_client import KeeperClient


class ExportTable:
    """Reads the keepers' records and checks them against the living; changes go through the keeper that owns the server."""

    def __init__(self, state: StateDir) -> None:
        self.state = state

    def list(self) -> List[Dict[str, Any]]:
        """Every server: port (None on a unix socket), socket, job, role, machine, export, name, pid, state, started_at.

        ``state`` is starting, running or dead; what a killed keeper left behind is dead.
        """
        return [dict(record, state=self._state(record)) for record in read_records(self.state)]

    def status(self, port: int) -> Optional[Dict[str, Any]]:
        """The server on this port, None if there is none."""
        return next((record for record in self.list() if record.get("port") == port), None)

    def count(self) -> int:
        """How many servers are known, in any state."""
        return len(self.list())

    def is_active(self, port: int) -> bool:
        """Whether the server on this port is running."""
        status = self.status(port)
        return status is not None and status["state"] == RUNNING

    def metrics(self) -> Dict[str, Any]:
        """``total``, ``starting``, ``running``, ``dead``, ``jobs``: numbers."""
        records = self.list()
        metrics = {state: sum(record["state"] == state for record in records) for state in (STARTING, RUNNING, DEAD)}
        return dict(metrics, total=len(records), jobs=len({(record.get("job"), record.get("role")) for record in records}))

    def stop_port(self, port: int) -> bool:
        """Stop the server on this port (TERM, KILL after 5 s) and give the port back; False if no living job holds it."""
        lease = holder(os.path.join(self.state.ports, f"{int(port)}.lease")) or {}
        return any(client.release_port(port) for client in self._clients(str(lease.get("job"))))

    def stop_job(self, job_id: str) -> List[str]:
        """Stop all servers of a job, in any role, and give back all its ports; returns the names of those stopped."""
        stopped: List[str] = []
        for client in self._clients(job_id):
            answer = client.ping()
            names = [name for name, child in answer["children"].items() if child.get("kind") == EXPORT]
            for port in answer["ports"]:
                client.release_port(port)
            for name in names:
                client.stop(name)  # repetition for those on ports, which is no error
            stopped += names
        return sorted(stopped)

    def _state(self, record: Dict[str, Any]) -> str:
        return str(record.get("state")) if is_alive(record.get("pid"), record.get("starttime")) else DEAD

    def _clients(self, job_id: str) -> List[KeeperClient]:
        """The living keepers of a job; the servers of dead ones died with them."""
        found = []
        for role in ROLES:
            try:
                job = JobDir.open(self.state, job_id, role)
            except (JobNotFoundError, InvalidInputError):
                continue
            if job.alive():
                found.append(KeeperClient(job.socket_path))
        return found
