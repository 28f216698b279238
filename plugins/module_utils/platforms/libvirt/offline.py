# Copyright: (c) 2026, Sendense contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The snapshot of a machine that is switched off: bitmaps in its images, which the caller then serves read-only.

While they are served the machine cannot be started (qemu's image lock), so all disks stay of one instant.
"""

from __future__ import annotations

import time
from typing import Any, Dict, List, Tuple

from ...errors import ForeignJobError, SendenseError, SnapshotFailedError
from ...model import Disk, Machine
from .._base import FULL, INCREMENTAL, DiskPlan, DiskSnapshot, Snapshot, SnapshotPlan, SnapshotRequest
from . import checkpoints, qemu_img
from .client import Client, libvirt, mapped
from .discovery import current_snapshot
from .incarnation import incarnation_of
from .naming import ChangeId, CheckpointName, export_name
from .quiesce import expected_consistency
from .records import iso_time, save_nvram


def open_offline(client: Client, domain: Any, machine: Machine, request: SnapshotRequest, plan: SnapshotPlan) -> Snapshot:
    """Add the new bitmap to every disk that can hold one, and say how each disk is to be served."""
    now = time.time()
    name = str(CheckpointName.make(machine.name, int(now), request.owner, request.job_id))
    chains = {disk.device: qemu_img.chain(disk.path, disk.format) for disk in machine.disks}
    with mapped(f"Cannot describe machine {machine.id}"):
        native = domain.XMLDesc(libvirt.VIR_DOMAIN_XML_INACTIVE)
    current = current_snapshot(domain)
    added: List[Disk] = []
    try:
        _refuse_started(domain, machine)
        for disk in machine.disks:
            if disk.tracking:
                _add(disk, name)
                added.append(disk)
        nvram, warnings = save_nvram(client, machine, request.work_dir)
        incarnation = incarnation_of(client, domain)
        disks = _describe(machine, plan.disks, request, name, current, chains)
    except (SendenseError, libvirt.libvirtError):
        _take_back(added, name)
        raise
    reached, reason = expected_consistency(machine, request.consistency)
    return Snapshot(
        machine=machine,
        job_id=request.job_id,
        created_at=iso_time(now),
        consistency=reached,
        consistency_wanted=request.consistency,
        consistency_reason=reason,
        disks=disks,
        token=name,
        native_format="libvirt-domain-xml",
        native_config=native,
        nvram_path=nvram,
        skipped_disks=plan.skipped_disks,
        warnings=plan.warnings + warnings,
        incarnation=incarnation,
    )


def _refuse_started(domain: Any, machine: Machine) -> None:
    if domain.isActive():
        raise SnapshotFailedError(f"Machine {machine.id} was started meanwhile; try again.")


def _add(disk: Disk, name: str) -> None:
    try:
        qemu_img.add_bitmap(disk.path, name)
    except SnapshotFailedError as exc:
        if "lock" not in exc.msg:
            raise
        raise ForeignJobError(
            f"Cannot snapshot disk {disk.device}: its image {disk.path} is in use by another program. Try again when it has ended.",
            details={"disk_id": disk.id, "path": disk.path},
        ) from exc


def _take_back(disks: List[Disk], name: str) -> None:
    for disk in disks:
        try:
            qemu_img.remove_bitmap(disk.path, name)
        except SendenseError:
            # The first error is the one to report; the bitmap carries our name, so clean-up finds it.
            continue


def _describe(
    machine: Machine,
    plans: List[DiskPlan],
    request: SnapshotRequest,
    name: str,
    current: str,
    chains: Dict[str, List[qemu_img.ImageInfo]],
) -> List[DiskSnapshot]:
    described = []
    for disk, plan in zip(machine.disks, plans):
        level, reason, bitmap = _settle(disk, plan)
        described.append(
            DiskSnapshot(
                key=disk.key,
                disk_id=disk.id,
                size_bytes=disk.size_bytes,
                level=level,
                reason=reason,
                change_id=ChangeId.of(machine, disk, name, current).encode() if disk.tracking else "",
                export=export_name(request.job_id, disk.key),
                image=qemu_img.node(chains[disk.device]),
                image_bitmap=bitmap,
                changed_context=f"qemu:dirty-bitmap:{bitmap}" if bitmap else "",
                expected_bytes=plan.expected_bytes,
            )
        )
    return described


def _settle(disk: Disk, plan: DiskPlan) -> Tuple[str, str, str]:
    """Level, reason and bitmap of a disk: the machine may have run and crashed since it was planned."""
    change_id = ChangeId.decode(plan.change_id)
    if plan.level != INCREMENTAL or change_id is None:
        return FULL, plan.reason, ""
    image = qemu_img.info(disk.path, disk.format)
    if change_id.checkpoint not in image.bitmaps:
        return FULL, checkpoints.MISSING, ""
    if not image.bitmap_usable(change_id.checkpoint):
        return FULL, checkpoints.INCONSISTENT, ""
    return INCREMENTAL, plan.reason, change_id.checkpoint
