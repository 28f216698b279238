# Copyright: (c) 2026, Sendense contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The doctor's part at a machine: what is wrong with checkpoints, bitmaps, images and scratch files, and how it is mended."""

from __future__ import annotations

import os
from typing import Any, Dict, List, Optional, Set

from ...errors import MachineNotFoundError, SendenseError, SnapshotFailedError
from ...model import Disk, Machine
from .._base import TrackingFinding
from . import backup_job, checkpoints, qemu_img
from .client import Client, libvirt, mapped
from .discovery import describe
from .naming import ChangeId, CheckpointName, checkpoints_in, parse_scratch, parse_socket
from .xmltext import parse

#: Kinds whose mending is to remove the checkpoint with its bitmaps.
_DROPPED = ("tracking_inconsistent", "checkpoint_without_bitmap", "bitmap_without_checkpoint", "tracking_unneeded")


def examine(client: Client, machine_id: str, owner: str, known_change_ids: List[str]) -> List[TrackingFinding]:
    """See :meth:`Source.tracking_findings`."""
    try:
        domain = client.domain(machine_id)
        machine = describe(client, domain)
    except MachineNotFoundError:
        return []
    found = [finding for disk in machine.disks if not disk.excluded and not client.remote for finding in _images(disk)]
    registered, held = checkpoints.listed(domain), checkpoints.holders(client, domain, machine)
    job = backup_job.active(domain) if machine.power != "off" else None
    needed = checkpoints_in(known_change_ids)
    for name in sorted(registered | set(held) | needed):
        parsed = CheckpointName.parse(name)
        if parsed is None or parsed.owner != owner or (job is not None and job.job_id.startswith(parsed.job)):
            continue
        devices = _devices(known_change_ids, name) if name in needed else _registered_devices(domain, name, registered)
        state = _State(client, domain, machine, name, name in registered, held.get(name, []), devices)
        one = _needed(state) if name in needed else _unneeded(state)
        one = one or (_chain(domain, name, registered) if name in registered else None)
        if one is not None:
            found.append(TrackingFinding(one.kind, name, one.message, parsed.job, parsed.created))
    return found + _scratch(client)


def mend(client: Client, machine_id: str, owner: str, known_change_ids: List[str], finding: TrackingFinding) -> bool:
    """See :meth:`Source.mend_tracking`."""
    there = examine(client, machine_id, owner, known_change_ids)
    if not any((one.kind, one.name) == (finding.kind, finding.name) for one in there):
        return False
    if finding.kind == "scratch_left":
        return _remove_scratch(client, finding.name)
    domain = client.domain(machine_id)
    machine = describe(client, domain)
    if finding.kind == "checkpoint_chain_broken":
        _register_again(domain, finding.name)
        return True
    if finding.kind not in _DROPPED or not checkpoints.can_drop(client, machine):
        return False
    checkpoints.drop(client, domain, machine, finding.name, checkpoints.holders(client, domain, machine).get(finding.name, []))
    return True


def backing_files(machines: List[Machine]) -> List[str]:
    """Paths of the images that the machines' disks stand on; a chain that cannot be read ends where it cannot."""
    found: List[str] = []
    for disk in [disk for machine in machines for disk in machine.disks if not disk.excluded]:
        try:
            found += [image.path for image in qemu_img.chain(disk.path, disk.format)]
        except SendenseError:
            continue  # it is a finding of its own
    return found


class _State:
    """What libvirt and the images say of one checkpoint."""

    def __init__(
        self, client: Client, domain: Any, machine: Machine, name: str, registered: bool, holders: List[Disk], devices: Set[str]
    ) -> None:
        self.name, self.registered = name, registered
        self.holders = [disk.device for disk in holders]
        disks = [disk for disk in machine.disks if not disk.excluded and disk.device in devices | set(self.holders)]
        self.problems: Dict[str, str] = {
            device: tracking.problem for device, tracking in checkpoints.inspect(client, domain, machine, name, disks).items()
        }
        self.wanted = devices

    def of(self, problem: str) -> List[str]:
        """The devices with this problem, of those that matter."""
        return sorted(device for device, found in self.problems.items() if found == problem and (device in self.wanted or not self.wanted))


def _needed(state: _State) -> Optional[TrackingFinding]:
    """Of a checkpoint that the next incremental would start from. That libvirt has forgotten a sound one is no finding."""
    broken = state.of(checkpoints.INCONSISTENT)
    wiped = [device for device in broken if device not in state.holders]
    if wiped and state.registered:
        return TrackingFinding("checkpoint_without_bitmap", state.name, f"its bitmap of {', '.join(wiped)} is gone")
    if broken:
        return TrackingFinding("tracking_inconsistent", state.name, f"its bitmap of {', '.join(broken)} was not stored cleanly (in-use)")
    lost = sorted(state.wanted - set(state.problems)) + state.of(checkpoints.MISSING)
    if lost:
        return TrackingFinding("tracking_lost", state.name, f"the newest backup needs its bitmap of {', '.join(lost)}, which is gone")
    return None


def _unneeded(state: _State) -> Optional[TrackingFinding]:
    broken = state.of(checkpoints.INCONSISTENT)
    wiped = [device for device in broken if device not in state.holders]
    if wiped and state.registered:
        return TrackingFinding("checkpoint_without_bitmap", state.name, f"its bitmap of {', '.join(wiped)} is gone, and no backup needs it")
    if broken:
        text = f"its bitmap of {', '.join(broken)} was not stored cleanly (in-use), and no backup needs it"
        return TrackingFinding("tracking_inconsistent", state.name, text)
    if state.registered:
        return TrackingFinding("tracking_unneeded", state.name, "a checkpoint that no backup of this repository needs")
    return TrackingFinding(
        "bitmap_without_checkpoint", state.name, f"a bitmap in {', '.join(state.holders)} that libvirt does not know and no backup needs"
    )


def _devices(known_change_ids: List[str], name: str) -> Set[str]:
    decoded = (ChangeId.decode(text) for text in known_change_ids)
    return {change_id.device for change_id in decoded if change_id is not None and change_id.checkpoint == name}


def _registered_devices(domain: Any, name: str, registered: Set[str]) -> Set[str]:
    if name not in registered:
        return set()
    return checkpoints.devices_of(domain, name)


def _described(domain: Any, name: str) -> Any:
    with mapped(f"Cannot read checkpoint {name}"):
        return parse(domain.checkpointLookupByName(name).getXMLDesc(libvirt.VIR_DOMAIN_CHECKPOINT_XML_NO_DOMAIN))


def _chain(domain: Any, name: str, registered: Set[str]) -> Optional[TrackingFinding]:
    parent = (_described(domain, name).findtext("./parent/name") or "").strip()
    if not parent or parent in registered:
        return None
    return TrackingFinding("checkpoint_chain_broken", name, f"libvirt does not know its parent {parent!r}")


def _register_again(domain: Any, name: str) -> None:
    """Without the lost parent. The bitmaps are not touched; if they are refused now, libvirt is told without a check as before."""
    devices = sorted(_registered_devices(domain, name, {name}))
    with mapped(f"Cannot forget checkpoint {name}"):
        domain.checkpointLookupByName(name).delete(libvirt.VIR_DOMAIN_CHECKPOINT_DELETE_METADATA_ONLY)
    try:
        checkpoints.redefine(domain, name, devices)
    except SnapshotFailedError:
        checkpoints.redefine(domain, name, devices, validate=False)


def _images(disk: Disk) -> List[TrackingFinding]:
    try:
        qemu_img.chain(disk.path, disk.format)
    except SendenseError as error:
        return [TrackingFinding("source_image_unreadable", disk.device, error.msg)]
    return []


def _scratch(client: Client) -> List[TrackingFinding]:
    """Files of backup jobs in the host's directory for them; no machine of this host runs a job of that name any more."""
    directory = client.scratch_dir
    if not directory or (client.remote and client.route is None):
        return []
    jobs = {name: job for name, job in ((name, _job_of(name)) for name in client.files.names(directory)) if job}
    running = _running_jobs(client) if jobs else []
    return [
        TrackingFinding("scratch_left", os.path.join(directory, name), f"job {job} made it and runs no more", job)
        for name, job in jobs.items()
        if not any(one.startswith(job) for one in running)
    ]


def _job_of(name: str) -> str:
    """The job (8 hex) whose scratch file or socket this is; empty for everything foreign."""
    socket = parse_socket(name)
    return socket[0] if socket is not None else parse_scratch(name)


def _running_jobs(client: Client) -> List[str]:
    with mapped("Cannot list the machines"):
        active = client.handle.listAllDomains(libvirt.VIR_CONNECT_LIST_DOMAINS_ACTIVE)
    jobs = [backup_job.active(domain) for domain in active]
    return [job.job_id for job in jobs if job is not None and job.ours]


def _remove_scratch(client: Client, path: str) -> bool:
    if os.path.dirname(path) != client.scratch_dir.rstrip("/") or not _job_of(os.path.basename(path)):
        return False
    return client.files.unlink(path)
