# Copyright: (c) 2026, Sendense contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Full or incremental, per disk, with the reason, before anything is touched."""

from __future__ import annotations

from typing import Any, Dict, List, Optional, Set, Tuple

from ...datapath.targets import MAX_CONNECTIONS
from ...errors import (
    DiskExcludedError,
    MachineHasNoDisksError,
    PlatformUnreachableError,
    SendenseError,
    TooManyConnectionsError,
)
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
from .client import Client, mapped
from .discovery import current_snapshot, describe
from .naming import ChangeId, CheckpointName, fingerprint
from .quiesce import expected_consistency
from .xmltext import parse

CHANGE_TRACKING = "change_tracking"

#: Disks of a running machine, all served by its one qemu: a connection each, and one for the audits.
MAX_RUNNING_DISKS = MAX_CONNECTIONS - 1


def make_plan(client: Client, request: SnapshotRequest) -> SnapshotPlan:
    """The decision for one machine; see :meth:`Source.plan` for what it raises."""
    domain = client.domain(request.machine_id)
    machine = describe(client, domain)
    skipped = choose_disks(machine, request.skip_excluded_disks)
    backup_job.refuse_other_jobs(domain, machine, request.job_id)
    if machine.power == "off":
        client.require_local(f"The backup of machine {machine.id}, which is switched off,")
    data = _ask_allocation(domain, machine) if client.remote else _read_images(machine)
    since = _candidates(machine, request, current_snapshot(domain))
    states = _tracking(client, domain, machine, since)
    disks = [_decide(disk, request, since[disk.device], states.get(disk.device), data[disk.device]) for disk in machine.disks]
    consistency, reason = expected_consistency(machine, request.consistency)
    return SnapshotPlan(machine, disks, consistency, skipped, _warnings(machine, skipped, reason))


def choose_disks(machine: Machine, skip_excluded: bool) -> List[Dict[str, str]]:
    """Leave the disks that can be read in ``machine``, with their keys; returns the others.

    MachineHasNoDisksError, DiskExcludedError, TooManyConnectionsError.
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
    if machine.power != "off" and len(machine.disks) > MAX_RUNNING_DISKS:
        raise TooManyConnectionsError(
            f"Machine {machine.id} runs with {len(machine.disks)} disks to back up, and its qemu serves {MAX_RUNNING_DISKS} at once. "
            "Nothing was touched. Switch it off for its backup, or move disks to another machine.",
            details={"machine_id": machine.id, "disks": len(machine.disks), "limit": MAX_RUNNING_DISKS},
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


def _tracking(client: Client, domain: Any, machine: Machine, since: Dict[str, Tuple[str, Optional[ChangeId]]]) -> Dict[str, Tracking]:
    """The state of the bitmaps of all disks that may be incremental; each checkpoint is asked for once."""
    wanted: Dict[str, List[Disk]] = {}
    for disk in machine.disks:
        change_id = since[disk.device][1]
        if change_id is not None:
            wanted.setdefault(change_id.checkpoint, []).append(disk)
    states: Dict[str, Tracking] = {}
    for name, disks in wanted.items():
        states.update(checkpoints.inspect(client, domain, machine, name, disks))
    return states


def _read_images(machine: Machine) -> Dict[str, int]:
    """Upper bound in bytes of the data on each disk, by device; a disk whose image cannot be read is bounded by its size.

    An image of the old qcow2 version holds no bitmaps, which only the file itself says.
    """
    data: Dict[str, int] = {}
    for disk in machine.disks:
        try:
            images = qemu_img.chain(disk.path, disk.format)
        except SendenseError:
            data[disk.device] = disk.size_bytes
            continue
        data[disk.device] = qemu_img.data_bytes(images)
        if disk.tracking and images[0].compat == "0.10":
            disk.tracking, disk.tracking_reason = False, "qcow2 images of version 2 (compat=0.10) cannot hold a bitmap"
    return data


def _ask_allocation(domain: Any, machine: Machine) -> Dict[str, int]:
    """As :func:`_read_images`, of images that only libvirt can read. It tells of the top image only: below it may lie anything."""
    based = _with_backing(domain)
    data: Dict[str, int] = {}
    for disk in machine.disks:
        with mapped(f"Cannot ask for the size of disk {disk.device}", PlatformUnreachableError):
            size, allocated, length = domain.blockInfo(disk.device)
        stored = allocated if disk.format == "raw" else max(allocated, length)
        data[disk.device] = size if disk.device in based else min(stored, size)
    return data


def _with_backing(domain: Any) -> Set[str]:
    """The devices whose image stands on another one."""
    with mapped("Cannot read the machine", PlatformUnreachableError):
        disks = parse(domain.XMLDesc(0)).findall("./devices/disk")
    found = ((disk.find("target"), disk.find("./backingStore/source")) for disk in disks)
    return {target.get("dev", "") for target, below in found if target is not None and below is not None}


def _decide(
    disk: Disk,
    request: SnapshotRequest,
    candidate: Tuple[str, Optional[ChangeId]],
    state: Optional[Tracking],
    data_bytes: int,
) -> DiskPlan:
    disk.allocated_bytes = data_bytes
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
