# Copyright: (c) 2026, Sendense contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The export servers of a place for those who ask: list, count, status, metrics, stop by port, stop by job."""

from __future__ import annotations

from typing import Any, Dict, List, Optional

from ..errors import JobNotFoundError
from ..hubstate.jobs import ROLES, JobDir
from ..hubstate.processes import is_alive
from ..hubstate.statedir import StateDir
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
        """Stop the server on this port (TERM, KILL after 5 s) and give the port back; False if nothing was there."""
        record = self.status(port)
        client = self._client(record) if record else None
        return client.release_port(port) if client else False

    def stop_job(self, job_id: str) -> List[str]:
        """Stop all servers of a job, in any role, and give back their ports; returns the names of those stopped."""
        stopped = []
        for record in self.list():
            client = self._client(record) if record.get("job") == job_id else None
            if client is None:
                continue
            if record.get("port") is not None:
                client.release_port(record["port"])
            else:
                client.stop(record["name"])
            stopped.append(record["name"])
        return stopped

    def _state(self, record: Dict[str, Any]) -> str:
        return str(record.get("state")) if is_alive(record.get("pid"), record.get("starttime")) else DEAD

    def _client(self, record: Dict[str, Any]) -> Optional[KeeperClient]:
        """The living keeper of a record; the servers of a dead one died with it."""
        if record.get("role") not in ROLES:
            return None
        try:
            job = JobDir.open(self.state, str(record.get("job")), record["role"])
        except JobNotFoundError:
            return None
        return KeeperClient(job.socket_path) if job.alive() else None
