# Copyright: (c) 2026, Sendense contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A source and a target on :class:`MemoryHypervisor`: the contract with nothing but memory behind it."""

from __future__ import annotations

import os
import shutil
import time
import uuid
from pathlib import Path
from typing import Any, ClassVar, Dict, List, Optional, Tuple

from ansible_collections.sendense.platform.plugins.module_utils.datapath import images
from ansible_collections.sendense.platform.plugins.module_utils.errors import (
    DiskExcludedError,
    InvalidInputError,
    JobRunningError,
    MachineExistsError,
    MachineHasNoDisksError,
    MachineNotFoundError,
    PlatformUnreachableError,
    RepositoryFullError,
    SendenseError,
)
from ansible_collections.sendense.platform.plugins.module_utils.model import Disk, Machine
from ansible_collections.sendense.platform.plugins.module_utils.platforms._base import (
    CRASH,
    FULL,
    INCREMENTAL,
    DiskPlan,
    DiskSnapshot,
    PreparedMachine,
    PreviousDisk,
    Snapshot,
    SnapshotPlan,
    SnapshotRequest,
    Source,
    SourceCapabilities,
    Target,
    TargetDisk,
    TargetRequest,
    TrackingFinding,
    assign_keys,
)
from tests.doubles.memory_hypervisor import BITMAP, BLOCK, MemoryDisk, MemoryHypervisor, MemoryJob, MemoryMachine

NAME = "memory"


def described(machine: MemoryMachine) -> Machine:
    """The machine as the model has it."""
    found = Machine(platform=NAME, id=machine.id, name=machine.name, power=machine.power, memory_bytes=1 << 20)
    found.tags, found.snapshots = list(machine.tags), list(machine.snapshots)
    for disk in machine.disks:
        found.disks.append(Disk(disk.id, len(disk.content), device=disk.device, format="memory", tracking=disk.tracking))
        found.disks[-1].excluded = disk.excluded
    return found


class _Connected:
    """What both sides share: a connection to the hypervisor, ``connection["hypervisor"]``."""

    NAME: ClassVar[str] = NAME

    def __init__(self, connection: Dict[str, Any]) -> None:
        self._given: MemoryHypervisor = connection["hypervisor"]
        self._hypervisor: Optional[MemoryHypervisor] = None

    def connect(self) -> None:
        if not self._given.reachable:
            raise PlatformUnreachableError("The memory hypervisor does not answer. Make it reachable.")
        self._hypervisor = self._given

    def close(self) -> None:
        self._hypervisor = None

    @property
    def host(self) -> MemoryHypervisor:
        if self._hypervisor is None or not self._hypervisor.reachable:
            raise PlatformUnreachableError("Not connected to the memory hypervisor: call connect() first.")
        return self._hypervisor


class MemorySource(_Connected, Source):
    """A source whose checkpoints are ``<owner>-<job id>-<random>``; that text is also the change id."""

    CAPABILITIES: ClassVar[SourceCapabilities] = SourceCapabilities(change_tracking=True, quiesce=False, powered_off=True)

    def discover(self) -> List[Machine]:
        return [described(self.host.machines[machine_id]) for machine_id in sorted(self.host.machines)]

    def machine(self, machine_id: str) -> Machine:
        return described(self.host.find(machine_id))

    def plan(self, request: SnapshotRequest) -> SnapshotPlan:
        stored = self.host.find(request.machine_id)
        machine = described(stored)
        if not machine.disks:
            raise MachineHasNoDisksError(f"Machine {machine.id!r} has no disk.")
        skipped = [{"disk_id": disk.id, "reason": disk.excluded} for disk in machine.disks if disk.excluded]
        if skipped and not request.skip_excluded_disks:
            raise DiskExcludedError(f"Disk {skipped[0]['disk_id']!r} of {machine.id!r} is excluded.", details={"disks": skipped})
        machine.disks = assign_keys([disk for disk in machine.disks if not disk.excluded])
        self._refuse_jobs(stored, request.job_id)
        by_id = {disk.disk_id: disk for disk in request.previous or []}
        plans = [_plan_disk(request, disk, by_id.get(disk.id), _stored(stored, disk)) for disk in machine.disks]
        return SnapshotPlan(machine, plans, CRASH, skipped)

    def open_snapshot(self, request: SnapshotRequest, plan: SnapshotPlan) -> Snapshot:
        stored = self.host.find(request.machine_id)
        self._refuse_jobs(stored, "")
        token = f"{request.owner}-{request.job_id}-{uuid.uuid4().hex[:8]}"
        job = stored.jobs[request.job_id] = MemoryJob(request.owner, token)
        disks = []
        try:
            for wanted in plan.disks:
                disks.append(self._open_disk(job, next(disk for disk in stored.disks if disk.id == wanted.disk_id), wanted, token))
        except (SendenseError, OSError):
            self.close_snapshot(stored.id, request.job_id, request.owner, False, [])
            raise
        now = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
        reason = "" if request.consistency == CRASH else "no_agent"
        return Snapshot(plan.machine, request.job_id, now, CRASH, request.consistency, reason, disks, token)

    def _open_disk(self, job: MemoryJob, disk: MemoryDisk, plan: DiskPlan, token: str) -> DiskSnapshot:
        export = f"{token}-{plan.key}"
        since = plan.change_id if plan.level == INCREMENTAL else ""
        uri = self.host.serve(job, disk, export, since)
        if disk.tracking:
            disk.dirty[token] = set()
        context = f"qemu:dirty-bitmap:{BITMAP}" if since else ""
        change_id = token if disk.tracking else ""
        return DiskSnapshot(plan.key, disk.id, plan.size_bytes, plan.level, plan.reason, change_id, export, uri, None, "", context)

    def close_snapshot(self, machine_id: str, job_id: str, owner: str, committed: bool, known_change_ids: List[str]) -> List[str]:
        try:
            machine = self.host.find(machine_id)
        except MachineNotFoundError:
            return []
        removed = []
        if job_id in machine.jobs:
            self.host.end(machine, job_id)
            removed.append(f"job {job_id}")
        for token in sorted({token for disk in machine.disks for token in disk.dirty}):
            its_owner, its_job, _random = token.split("-")
            doomed = token not in known_change_ids if committed else its_job == job_id
            if owner and its_owner == owner and doomed and its_job not in machine.jobs:
                for disk in machine.disks:
                    disk.dirty.pop(token, None)
                removed.append(f"checkpoint {token}")
        return removed

    def stale(self, machine_id: str) -> List[Dict[str, str]]:
        try:
            machine = self.host.find(machine_id)
        except MachineNotFoundError:
            return []
        found = [{"kind": "job", "name": job, "job_id": job, "owner": machine.jobs[job].owner} for job in sorted(machine.jobs)]
        for token in sorted({token for disk in machine.disks for token in disk.dirty}):
            owner, job_id, _random = token.split("-")
            found.append({"kind": "checkpoint", "name": token, "job_id": job_id, "owner": owner})
        return found

    def tracking_findings(self, machine_id: str, owner: str, known_change_ids: List[str]) -> List[TrackingFinding]:
        try:
            machine = self.host.find(machine_id)
        except MachineNotFoundError:
            return []
        tokens = {token for disk in machine.disks for token in disk.dirty}
        ours = {token for token in tokens if token.split("-")[0] == owner and token.split("-")[1] not in machine.jobs}
        lost = {token for token in known_change_ids if token and token.split("-")[0] == owner} - tokens
        found = [TrackingFinding("tracking_unneeded", token, "needless", token.split("-")[1]) for token in ours - set(known_change_ids)]
        return found + [TrackingFinding("tracking_lost", token, "gone", token.split("-")[1]) for token in sorted(lost)]

    def mend_tracking(self, machine_id: str, owner: str, known_change_ids: List[str], finding: TrackingFinding) -> bool:
        if finding not in self.tracking_findings(machine_id, owner, known_change_ids) or finding.kind != "tracking_unneeded":
            return False
        for disk in self.host.find(machine_id).disks:
            disk.dirty.pop(finding.name, None)
        return True

    @staticmethod
    def _refuse_jobs(machine: MemoryMachine, job_id: str) -> None:
        for other in machine.jobs:
            if other != job_id:
                raise JobRunningError(f"Job {other} is reading machine {machine.id!r}.", details={"job_id": other})


def _stored(machine: MemoryMachine, disk: Disk) -> MemoryDisk:
    return next(found for found in machine.disks if found.id == disk.id)


def _plan_disk(request: SnapshotRequest, disk: Disk, previous: Optional[PreviousDisk], stored: MemoryDisk) -> DiskPlan:
    reason, token = _compare(request, disk, previous, stored)
    if reason:
        return DiskPlan(disk.key, disk.id, disk.size_bytes, FULL, reason, "", disk.size_bytes)
    expected = min(disk.size_bytes, BLOCK * len(stored.dirty[token]))
    return DiskPlan(disk.key, disk.id, disk.size_bytes, INCREMENTAL, "change_tracking", token, expected, True)


def _compare(request: SnapshotRequest, disk: Disk, previous: Optional[PreviousDisk], stored: MemoryDisk) -> Tuple[str, str]:
    if request.previous is None:
        return request.full_reason, ""
    if previous is None:
        return "disk_set_changed", ""
    if previous.size_bytes != disk.size_bytes:
        return "disk_size_changed", ""
    if not disk.tracking:
        return "tracking_unsupported", ""
    if not previous.change_id:
        return "tracking_missing", ""
    if previous.change_id.split("-")[0] != request.owner or previous.change_id.count("-") != 2:
        return "change_id_of_another_epoch", ""
    return ("", previous.change_id) if previous.change_id in stored.dirty else ("tracking_missing", "")


class MemoryTarget(_Connected, Target):
    """A target that takes written disk files into memory when the machine is defined."""

    networks = ("lan", "dmz")

    def check(self, request: TargetRequest) -> str:
        keys = {disk.key for disk in request.machine.disks}
        if not set(request.disks) <= keys or not os.path.isdir(request.storage):
            raise InvalidInputError(f"Unknown disk or storage: {request.disks}, {request.storage!r}.")
        for nic in request.machine.nics:
            wanted = request.networks.get(nic.network, request.networks.get("*", nic.network))
            if wanted not in self.networks:
                raise InvalidInputError(f"There is no network {wanted!r} in memory.")
        for machine in self.host.machines.values():
            if machine.name == request.name:
                if machine.restored.get("point") != request.point_id or machine.restored.get("disks") != repr(sorted(_wanted(request))):
                    raise MachineExistsError(f"There is already a machine {request.name!r}.")
                return machine.id
        free = shutil.disk_usage(request.storage).free
        if sum(disk.size_bytes for disk in request.machine.disks if disk.key in _wanted(request)) > free:
            raise RepositoryFullError(f"{request.storage} has only {free} bytes free.")
        for key in _wanted(request):
            if os.path.lexists(_path(request, key)):
                raise MachineExistsError(f"{_path(request, key)} exists.")
        return ""

    def planned(self, request: TargetRequest) -> PreparedMachine:
        disks = [disk for disk in request.machine.disks if disk.key in _wanted(request)]
        made = [TargetDisk(disk.key, disk.id, disk.size_bytes, _path(request, disk.key)) for disk in disks]
        return PreparedMachine(request.name, request.job_id, request.point_id, made)

    def prepare(self, request: TargetRequest) -> PreparedMachine:
        prepared = PreparedMachine(request.name, request.job_id, request.point_id, [], self.check(request))
        for disk in [] if prepared.existing_id else request.machine.disks:
            if disk.key in _wanted(request):
                path = _path(request, disk.key)
                images.create_raw(path, disk.size_bytes)
                prepared.disks.append(TargetDisk(disk.key, disk.id, disk.size_bytes, path, images.raw_node(path)))
        return prepared

    def finish(self, request: TargetRequest, prepared: PreparedMachine) -> Machine:
        machine_id = prepared.existing_id or f"m-{prepared.job_id}"
        if machine_id not in self.host.machines:
            if any(machine.name == request.name for machine in self.host.machines.values()):
                raise MachineExistsError(f"There is already a machine {request.name!r}.")
            disks = [MemoryDisk(disk.disk_id, disk.key, bytearray(Path(disk.path).read_bytes())) for disk in prepared.disks]
            machine = self.host.add(MemoryMachine(machine_id, request.name, disks, power="off"))
            machine.restored = {"point": request.point_id, "disks": repr(sorted(_wanted(request))), "job": prepared.job_id}
        return described(self.host.find(machine_id))

    def power_on(self, machine_id: str) -> bool:
        return self._switch(machine_id, "running")

    def power_off(self, machine_id: str) -> bool:
        return self._switch(machine_id, "off")

    def _switch(self, machine_id: str, state: str) -> bool:
        machine = self.host.find(machine_id)
        before, machine.power = machine.power, state
        return before != state

    def destroy(self, prepared: PreparedMachine) -> List[str]:
        removed = []
        machine_id = f"m-{prepared.job_id}"
        if prepared.existing_id:
            return []
        if self.host.machines.pop(machine_id, None) is not None:
            removed.append(f"machine {machine_id}")
        for disk in prepared.disks:
            if os.path.basename(disk.path).startswith(prepared.job_id) and os.path.lexists(disk.path):
                os.unlink(disk.path)
                removed.append(f"file {disk.path}")
        return removed


def _wanted(request: TargetRequest) -> List[str]:
    return request.disks or [disk.key for disk in request.machine.disks]


def _path(request: TargetRequest, key: str) -> str:
    return os.path.join(request.storage, f"{request.job_id}-{key}.raw")
