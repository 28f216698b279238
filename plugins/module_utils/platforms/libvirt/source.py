# Copyright: (c) 2026, Sendense contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""libvirt/KVM as a source: pull backups of running machines, bitmaps in the images of machines that are off."""

from __future__ import annotations

import re
from typing import Any, ClassVar, Dict, List, Optional

from ...errors import InvalidInputError, SnapshotFailedError
from ...model import Machine
from .._base import Snapshot, SnapshotPlan, SnapshotRequest, Source, SourceCapabilities, TrackingFinding
from . import closing, discovery, examination
from .client import Client
from .naming import require_ids
from .offline import open_offline
from .online import open_online
from .plan import choose_disks, make_plan

_JOB_ID_OR_PREFIX = re.compile(r"[0-9a-f]{8}|[0-9a-f]{32}")


class LibvirtSource(Source):
    """One libvirt host. ``connection`` is described in docs/reference/platforms/libvirt.md."""

    NAME: ClassVar[str] = "libvirt"
    CAPABILITIES: ClassVar[SourceCapabilities] = SourceCapabilities(change_tracking=True, quiesce=True, powered_off=True)

    def __init__(self, connection: Dict[str, Any]) -> None:
        self._client = Client(connection)
        local = not self._client.remote
        self.CAPABILITIES = SourceCapabilities(change_tracking=True, quiesce=True, powered_off=local)  # type: ignore[misc]

    def connect(self) -> None:
        self._client.connect()

    def close(self) -> None:
        self._client.close()

    def discover(self) -> List[Machine]:
        return discovery.discover(self._client)

    def machine(self, machine_id: str) -> Machine:
        return discovery.describe(self._client, self._client.domain(machine_id))

    def plan(self, request: SnapshotRequest) -> SnapshotPlan:
        require_ids(request.job_id, request.owner)
        self._require_way()
        return make_plan(self._client, request)

    def open_snapshot(self, request: SnapshotRequest, plan: SnapshotPlan) -> Snapshot:
        require_ids(request.job_id, request.owner)
        self._require_way()
        domain = self._client.domain(request.machine_id)
        machine = discovery.describe(self._client, domain)
        choose_disks(machine, request.skip_excluded_disks)
        _adopt_plan(machine, plan)
        if machine.power == "off":
            self._client.require_local(f"The backup of machine {machine.id}, which is switched off,")
            return open_offline(self._client, domain, machine, request, plan)
        return open_online(self._client, domain, machine, request, plan)

    def close_snapshot(self, machine_id: str, job_id: str, owner: str, committed: bool, known_change_ids: List[str]) -> List[str]:
        if not _JOB_ID_OR_PREFIX.fullmatch(job_id):
            raise InvalidInputError(f"The job id {job_id!r} is neither 32 lower-case hex digits nor their first 8.")
        return closing.close(self._client, machine_id, job_id, owner, committed, known_change_ids)

    def stale(self, machine_id: str) -> List[Dict[str, str]]:
        return closing.stale(self._client, machine_id)

    def tracking_findings(self, machine_id: str, owner: str, known_change_ids: List[str]) -> List[TrackingFinding]:
        return examination.examine(self._client, machine_id, owner, known_change_ids)

    def mend_tracking(self, machine_id: str, owner: str, known_change_ids: List[str], finding: TrackingFinding) -> bool:
        return examination.mend(self._client, machine_id, owner, known_change_ids, finding)

    def reached_from_elsewhere(self) -> bool:
        return self._client.remote

    def files_in_use(self) -> Optional[List[str]]:
        if self._client.remote:
            return None
        return sorted({*(super().files_in_use() or []), *examination.backing_files(self.discover())})

    def _require_way(self) -> None:
        """CapabilityMissingError if the disks of a machine cannot be reached over this connection."""
        if self._client.remote:
            self._client.require_route()


def _adopt_plan(machine: Machine, plan: SnapshotPlan) -> None:
    """Refuse a machine that is not the one that was planned, and take over what only the plan has looked up."""
    now = [(disk.id, disk.device, disk.path, disk.size_bytes) for disk in machine.disks]
    then = [(disk.id, disk.device, disk.path, disk.size_bytes) for disk in plan.machine.disks]
    if now != then or (machine.power == "off") != (plan.machine.power == "off"):
        raise SnapshotFailedError(
            f"Machine {machine.id} is not as it was planned: its disks changed, or it was started or stopped. Try again.",
            details={"machine_id": machine.id},
        )
    for disk, planned in zip(machine.disks, plan.machine.disks):
        disk.allocated_bytes = planned.allocated_bytes
        disk.tracking, disk.tracking_reason = planned.tracking, planned.tracking_reason
