# Copyright: (c) 2026, Sendense contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Full or incremental, per disk, with the reason, before anything is touched."""

from __future__ import annotations

from typing import Any, Dict, List, Optional, Tuple

from ...errors import DiskExcludedError, MachineHasNoDisksError, SendenseError
from ...model import Disk, Machine
from .._base import (
    FULL,
    INCREMENTAL,
    DiskPlan,
    PreviousDisk,
    SnapshotPlan,
    SnapshotRequest,
    assign_keys,
)
from . import backup_job, checkpoints, qemu_img
from .checkpoints import Tracking
from .client import Client
from .discovery import current_snapshot, describe
from .naming import ChangeId, CheckpointName, fingerprint
from .quiesce import expected_consistency

CHANGE_TRACKING = "change_tracking"


def make_plan(client: Client, request: SnapshotRequest) -> SnapshotPlan:
    """The decision for one machine; see :meth:`Source.plan` for what it raises."""
    domain = client.domain(request.machine_id)
    machine = describe(client, domain)
    skipped = choose_disks(machine, request.skip_excluded_disks)
    backup_job.refuse_other_jobs(domain, machine, request.job_id)
    images = _read_images(machine)
    since = _candidates(machine, request, current_snapshot(domain))
    states = _tracking(domain, machine, since)
    disks = [_decide(disk, request, since[disk.device], states.get(disk.device), images) for disk in machine.disks]
    consistency, reason = expected_consistency(machine, request.consistency)
    return SnapshotPlan(machine, disks, consistency, skipped, _warnings(machine, skipped, reason))


def choose_disks(machine: Machine, skip_excluded: bool) -> List[Dict[str, str]]:
    """Leave the disks that can be read in ``machine``, with their keys; returns the others.

    MachineHasNoDisksError, DiskExcludedError.
    """
    if not machine.disks:
        raise MachineHasNoDisksError(f"Machine {machine.id} has no disk.", details={"machine_id": machine.id})
    skipped = [{"disk_id": disk.id, "device": disk.device, "reason": disk.excluded} for disk in machine.disks if disk.excluded]
    if skipped and not skip_excluded:
        first = skipped[0]
        raise DiskExcludedError(
            f"Disk {first['device']} of machine {machine.id} cannot be backed up: {first['reason']}. "
            "Allow excluded disks to be left out, or change the disk.",
            details={"machine_id": machine.id, "disks": skipped},
        )
    machine.disks = assign_keys([disk for disk in machine.disks if not disk.excluded])
    if not machine.disks:
        raise MachineHasNoDisksError(
            f"Machine {machine.id} has no disk that can be backed up: all are excluded.", details={"disks": skipped}
        )
    return skipped


def _candidates(machine: Machine, request: SnapshotRequest, current: str) -> Dict[str, Tuple[str, Optional[ChangeId]]]:
    """By device: the reason for a full that is known without asking about bitmaps, or the change id to start from."""
    previous = {disk.disk_id: disk for disk in request.previous or []}
    found: Dict[str, Tuple[str, Optional[ChangeId]]] = {}
    for disk in machine.disks:
        if request.previous is None:
            found[disk.device] = (request.full_reason, None)
        else:
            found[disk.device] = compare(machine, disk, previous.get(disk.id), request.owner, current)
    return found


def compare(machine: Machine, disk: Disk, previous: Optional[PreviousDisk], owner: str, current: str) -> Tuple[str, Optional[ChangeId]]:
    """What a disk's last backup and its present state say: a reason for a full, or the change id to start from. Pure."""
    if previous is None:
        return "disk_set_changed", None
    if previous.size_bytes != disk.size_bytes:
        return "disk_size_changed", None
    if not disk.tracking:
        return "tracking_unsupported", None
    if not previous.change_id:
        return checkpoints.MISSING, None
    since = ChangeId.decode(previous.change_id)
    name = None if since is None else CheckpointName.parse(since.checkpoint)
    if since is None or name is None or name.owner != owner or since.machine_id != machine.id:
        return "change_id_of_another_epoch", None
    if since.size_bytes != disk.size_bytes:
        return "disk_size_changed", None
    if since.device != disk.device or since.path != fingerprint(disk.path):
        return "disk_path_changed", None
    now = ChangeId.of(machine, disk, since.checkpoint, current)
    if since.snapshots != now.snapshots:
        return "foreign_snapshot", None
    if since.current_snapshot != now.current_snapshot:
        return "machine_reverted", None
    return "", since


def _tracking(domain: Any, machine: Machine, since: Dict[str, Tuple[str, Optional[ChangeId]]]) -> Dict[str, Tracking]:
    """The state of the bitmaps of all disks that may be incremental; each checkpoint is asked for once."""
    wanted: Dict[str, List[Disk]] = {}
    for disk in machine.disks:
        change_id = since[disk.device][1]
        if change_id is not None:
            wanted.setdefault(change_id.checkpoint, []).append(disk)
    states: Dict[str, Tracking] = {}
    for name, disks in wanted.items():
        states.update(checkpoints.inspect(domain, machine, name, disks))
    return states


def _read_images(machine: Machine) -> Dict[str, List[qemu_img.ImageInfo]]:
    """What the images say, by device; a disk whose image cannot be read is bounded by its size instead.

    An image of the old qcow2 version holds no bitmaps, which only the file itself says.
    """
    images: Dict[str, List[qemu_img.ImageInfo]] = {}
    for disk in machine.disks:
        try:
            images[disk.device] = qemu_img.chain(disk.path, disk.format)
        except SendenseError:
            images[disk.device] = []
            continue
        if disk.tracking and images[disk.device][0].compat == "0.10":
            disk.tracking, disk.tracking_reason = False, "qcow2 images of version 2 (compat=0.10) cannot hold a bitmap"
    return images


def _decide(
    disk: Disk,
    request: SnapshotRequest,
    candidate: Tuple[str, Optional[ChangeId]],
    state: Optional[Tracking],
    images: Dict[str, List[qemu_img.ImageInfo]],
) -> DiskPlan:
    chain = images[disk.device]
    disk.allocated_bytes = qemu_img.data_bytes(chain) if chain else disk.size_bytes
    reason, since = candidate
    if since is not None:
        reason = state.problem if state is not None else checkpoints.ERROR
    if since is None or reason:
        return DiskPlan(disk.key, disk.id, disk.size_bytes, FULL, reason, "", disk.allocated_bytes)
    dirty = None if state is None else state.dirty_bytes
    expected = disk.allocated_bytes if dirty is None else min(dirty, disk.size_bytes)
    return DiskPlan(disk.key, disk.id, disk.size_bytes, INCREMENTAL, CHANGE_TRACKING, since.encode(), expected, dirty is not None)


def _warnings(machine: Machine, skipped: List[Dict[str, str]], consistency_reason: str) -> List[str]:
    warnings = [f"disk {disk['device']} is left out: {disk['reason']}" for disk in skipped]
    if consistency_reason:
        warnings.append(f"the point will not be as consistent as wanted: {consistency_reason}")
    warnings += [f"disk {disk.device} is read in full every time: {disk.tracking_reason}" for disk in machine.disks if not disk.tracking]
    if machine.tpm:
        warnings.append("the state of the machine's TPM is not part of the backup: keep recovery keys of encrypted disks elsewhere")
    if machine.snapshots:
        warnings.append(f"the machine has {len(machine.snapshots)} snapshots of its own, which are not part of the backup")
    return warnings
