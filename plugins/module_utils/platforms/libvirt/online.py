# Copyright: (c) 2026, Sendense contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The snapshot of a machine whose qemu runs: one backup job for all disks, served by qemu itself."""

from __future__ import annotations

import os
import time
from typing import Any, Dict, List, Optional, Tuple
from xml.etree import ElementTree

from ...datapath.targets import UNIX, NbdTarget
from ...errors import JobRunningError, SendenseError
from ...model import Disk, Machine
from ...steps import reached
from .._base import CRASH, FULL, INCREMENTAL, DiskPlan, DiskSnapshot, Forward, Snapshot, SnapshotPlan, SnapshotRequest
from . import backup_job, checkpoints
from .client import Client, libvirt, mapped
from .discovery import current_snapshot
from .incarnation import incarnation_of
from .naming import ChangeId, CheckpointName, export_name, scratch_name, socket_path
from .quiesce import Quiescer
from .records import iso_time, save_nvram
from .thaw_guard import ThawGuard, guarded


def open_online(client: Client, domain: Any, machine: Machine, request: SnapshotRequest, plan: SnapshotPlan) -> Snapshot:
    """Freeze, begin the job for all disks at once, thaw. On error nothing of it is left; see :meth:`Source.open_snapshot`."""
    directory = client.scratch_dir or request.work_dir
    socket = socket_path(directory, request.job_id, request.owner)
    quiescer = Quiescer(domain, machine, request.consistency, request.allow_downgrade, int(client.options["agent_timeout"]))
    backup_job.refuse_other_jobs(domain, machine, request.job_id)
    if backup_job.active(domain) is not None:
        raise JobRunningError(f"Job {request.job_id} has already opened a snapshot of machine {machine.id}.")
    plans = confirm(client, domain, machine, plan.disks, request.owner)
    name = str(CheckpointName.make(machine.name, int(time.time()), request.owner, request.job_id))
    orders = _backup_xml(plans, machine.disks, request, socket, directory), _checkpoint_xml(name, machine.disks)
    try:
        with guarded(_guard(client, machine, quiescer)):
            created_at = _begin(domain, machine, orders, quiescer)
        forwards = _forwards(client, request, socket)
        here = forwards[0].socket if forwards else socket
        disks = _describe(machine, plans, request, name, here, current_snapshot(domain))
        nvram, warnings = save_nvram(client, machine, request.work_dir)
        # The form for migration would be tidier, but it holds the passwords of graphical consoles.
        native = domain.XMLDesc(0)
        incarnation = incarnation_of(client, domain)
    except (SendenseError, libvirt.libvirtError) as exc:
        _undo(client, domain, machine, request.job_id, name, directory)
        if isinstance(exc, SendenseError):
            raise
        with mapped(f"Cannot describe machine {machine.id} after its snapshot"):
            raise
    return Snapshot(
        machine=machine,
        job_id=request.job_id,
        created_at=created_at,
        consistency=quiescer.reached,
        consistency_wanted=request.consistency,
        consistency_reason=quiescer.reason,
        disks=disks,
        token=name,
        native_format="libvirt-domain-xml",
        native_config=native,
        nvram_path=nvram,
        skipped_disks=plan.skipped_disks,
        warnings=plan.warnings + warnings,
        incarnation=incarnation,
        forwards=forwards,
    )


def _forwards(client: Client, request: SnapshotRequest, socket: str) -> List[Forward]:
    """None where qemu's socket is one of this place."""
    if not client.remote:
        return []
    here = socket_path(request.work_dir, request.job_id, request.owner)
    return [Forward(socket=here, remote_socket=socket, route=client.require_route().to_dict())]


def confirm(client: Client, domain: Any, machine: Machine, plans: List[DiskPlan], owner: str) -> List[DiskPlan]:
    """Make libvirt know and vouch for every checkpoint that an incremental starts from; what fails becomes a full.

    A checkpoint of this owner that serves none of its disks any more is removed.
    """
    by_key = {disk.key: disk for disk in machine.disks}
    groups: Dict[str, List[DiskPlan]] = {}
    for plan in plans:
        change_id = ChangeId.decode(plan.change_id)
        if plan.level == INCREMENTAL and change_id is not None:
            groups.setdefault(change_id.checkpoint, []).append(plan)
    for name, wanted in groups.items():
        disks = [by_key[plan.key] for plan in wanted]
        problems = _vouch(client, domain, machine, name, disks)
        for plan in wanted:
            problem = problems[by_key[plan.key].device]
            if problem:
                plan.level, plan.reason, plan.change_id = FULL, problem, ""
                plan.expected_bytes, plan.expected_exact = by_key[plan.key].allocated_bytes or plan.size_bytes, False
        if all(problems.values()):
            _drop_broken(client, domain, machine, name, owner)
    return plans


def _vouch(client: Client, domain: Any, machine: Machine, name: str, disks: List[Disk]) -> Dict[str, str]:
    """By device: empty if the checkpoint is defined and its bitmap sound, else the reason for a full."""
    states = checkpoints.inspect(client, domain, machine, name, disks)
    sound = [device for device, state in states.items() if not state.problem]
    problems = {device: state.problem for device, state in states.items()}
    if sound and name not in checkpoints.listed(domain):
        try:
            checkpoints.redefine(domain, name, sound)
        except SendenseError:
            problems.update(dict.fromkeys(sound, checkpoints.INCONSISTENT))
    return problems


def _drop_broken(client: Client, domain: Any, machine: Machine, name: str, owner: str) -> None:
    parsed = CheckpointName.parse(name)
    if parsed is None or parsed.owner != owner:
        return
    try:
        checkpoints.drop(client, domain, machine, name, checkpoints.holders(client, domain, machine).get(name, []))
    except SendenseError:
        # It is of no use and in nobody's way; the next clean-up tries again.
        return


def _guard(client: Client, machine: Machine, quiescer: Quiescer) -> Optional[ThawGuard]:
    """Who thaws if the link to the host dies between freeze and thaw; None where neither can happen."""
    if client.route is None or quiescer.reached == CRASH:
        return None
    return ThawGuard(client.route, client.uri_there, machine.id)


def _begin(domain: Any, machine: Machine, orders: Tuple[str, str], quiescer: Quiescer) -> str:
    quiescer.freeze()
    try:
        reached("libvirt:frozen")
        created_at = iso_time(time.time())
        with mapped(f"Cannot snapshot machine {machine.id}"):
            domain.backupBegin(orders[0], orders[1], 0)
    finally:
        quiescer.thaw()
    return created_at


def _undo(client: Client, domain: Any, machine: Machine, job_id: str, name: str, directory: str) -> None:
    """Take back what a failed begin may have left. The first error is the one to report, so none is raised here."""
    try:
        client.connect()  # a broken link may be back
        domain = client.domain(machine.id)
        backup_job.end(domain, job_id)
        if name in checkpoints.listed(domain):
            checkpoints.drop(client, domain, machine, name, [])
    except (SendenseError, libvirt.libvirtError):
        return
    finally:
        for disk in machine.disks:
            _unlink(client, os.path.join(directory, scratch_name(job_id, disk.key)))


def _unlink(client: Client, path: str) -> None:
    """Remove a scratch file of ours if there is one; what cannot be removed goes with the job's directory, or when the job is undone."""
    try:
        client.files.unlink(path)
    except (OSError, SendenseError):
        return


def _backup_xml(plans: List[DiskPlan], disks: List[Disk], request: SnapshotRequest, socket: str, directory: str) -> str:
    root = ElementTree.Element("domainbackup", mode="pull")
    ElementTree.SubElement(root, "server", transport="unix", socket=socket)
    listed = ElementTree.SubElement(root, "disks")
    devices = {disk.key: disk.device for disk in disks}
    for plan in plans:
        element = ElementTree.SubElement(listed, "disk", name=devices[plan.key], backup="yes", type="file")
        element.set("exportname", export_name(request.job_id, plan.key))
        change_id = ChangeId.decode(plan.change_id)
        if plan.level == INCREMENTAL and change_id is not None:
            element.set("backupmode", "incremental")
            element.set("incremental", change_id.checkpoint)
            element.set("exportbitmap", _changed_bitmap(plan.key))
        else:
            element.set("backupmode", "full")
        ElementTree.SubElement(element, "scratch", file=os.path.join(directory, scratch_name(request.job_id, plan.key)))
    return ElementTree.tostring(root, encoding="unicode")


def _checkpoint_xml(name: str, disks: List[Disk]) -> str:
    """Empty if no disk can be tracked: a checkpoint needs at least one bitmap."""
    if not any(disk.tracking for disk in disks):
        return ""
    root = ElementTree.Element("domaincheckpoint")
    ElementTree.SubElement(root, "name").text = name
    listed = ElementTree.SubElement(root, "disks")
    for disk in disks:
        ElementTree.SubElement(listed, "disk", name=disk.device, checkpoint="bitmap" if disk.tracking else "no")
    return ElementTree.tostring(root, encoding="unicode")


def _changed_bitmap(key: str) -> str:
    return f"changed-{key}"


def _describe(
    machine: Machine, plans: List[DiskPlan], request: SnapshotRequest, name: str, socket: str, current: str
) -> List[DiskSnapshot]:
    described = []
    for disk, plan in zip(machine.disks, plans):
        export = export_name(request.job_id, disk.key)
        described.append(
            DiskSnapshot(
                key=disk.key,
                disk_id=disk.id,
                size_bytes=disk.size_bytes,
                level=plan.level,
                reason=plan.reason,
                change_id=ChangeId.of(machine, disk, name, current).encode() if disk.tracking else "",
                export=export,
                uri=NbdTarget(key=disk.key, transport=UNIX, export=export, socket=socket).uri(),
                changed_context=f"qemu:dirty-bitmap:{_changed_bitmap(disk.key)}" if plan.level == INCREMENTAL else "",
                expected_bytes=plan.expected_bytes,
            )
        )
    return described
