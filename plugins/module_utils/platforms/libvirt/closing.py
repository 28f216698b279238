# Copyright: (c) 2026, Sendense contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The end of a job at its machine, and what jobs have left behind. Every step may already have been done."""

from __future__ import annotations

import os
from typing import Any, Dict, List, Optional

from ...errors import MachineNotFoundError, SendenseError
from ...model import Disk, Machine
from . import backup_job, checkpoints, monitor
from .client import Client
from .discovery import describe
from .naming import CheckpointName, checkpoints_in, parse_socket, scratch_prefix
from .quiesce import thaw_leftover


def close(client: Client, machine_id: str, job_id: str, owner: str, committed: bool, known_change_ids: List[str]) -> List[str]:
    """See :meth:`Source.close_snapshot`. Everything is tried before the first error is raised."""
    try:
        domain = client.domain(machine_id)
        machine = describe(client, domain)
    except MachineNotFoundError:
        return _remove_files(client, job_id)
    removed: List[str] = []
    ended: Optional[backup_job.BackupJob] = None
    other: Optional[backup_job.BackupJob] = None
    if machine.power != "off":
        if thaw_leftover(domain, machine, int(client.options["agent_timeout"])):  # first: a guest waits, whatever else fails
            removed.append("freeze of the guest's file systems")
        ended = backup_job.end(domain, job_id)
        if ended is not None:
            removed.append(f"backup job {ended.job_id}")
        other = backup_job.active(domain)
        if ended is None and other is None and not committed:  # it may have been cut off while it began
            removed += [f"scratch file {path} in qemu" for path in monitor.remove_scratch_nodes(domain, job_id)]
    if ended is None or not client.remote:  # libvirt removes the files of a job that it ends, and each look at another host is a login
        removed += _remove_files(client, job_id)
    if owner and checkpoints.can_drop(client, machine):  # else a later backup, of the machine as it runs, finds them
        held = checkpoints.holders(client, domain, machine)
        names = sorted(checkpoints.listed(domain) | set(held))
        keep = checkpoints_in(known_change_ids)
        doomed = [name for name in names if _is_doomed(name, job_id, owner, committed, keep, other)]
        removed += _drop_all(client, domain, machine, doomed, held)
    return removed


def stale(client: Client, machine_id: str) -> List[Dict[str, str]]:
    """See :meth:`Source.stale`."""
    try:
        domain = client.domain(machine_id)
        machine = describe(client, domain)
    except MachineNotFoundError:
        return []
    found: List[Dict[str, str]] = []
    job = backup_job.active(domain) if machine.power != "off" else None
    if job is not None and job.ours:
        found.append({"kind": "job", "name": os.path.basename(job.socket), "job_id": job.job_id, "owner": job.owner})
    names = checkpoints.listed(domain) | set(checkpoints.holders(client, domain, machine))
    for name in sorted(names):
        parsed = CheckpointName.parse(name)
        if parsed is not None:
            running = job is not None and job.job_id.startswith(parsed.job)
            job_id = job.job_id if job is not None and running else parsed.job
            found.append({"kind": "checkpoint", "name": name, "job_id": job_id, "owner": parsed.owner})
    return found


def _is_doomed(name: str, job_id: str, owner: str, committed: bool, keep: "set[str]", other: Optional[backup_job.BackupJob]) -> bool:
    """Whether this close may and must remove the checkpoint."""
    parsed = CheckpointName.parse(name)
    if parsed is None or parsed.owner != owner:
        return False
    if other is not None and other.job_id.startswith(parsed.job):
        return False
    if not committed:
        return parsed.job == job_id[:8]
    return name not in keep


def _drop_all(client: Client, domain: Any, machine: Machine, names: List[str], held: Dict[str, List[Disk]]) -> List[str]:
    removed: List[str] = []
    failure: Optional[SendenseError] = None
    for name in names:
        try:
            checkpoints.drop(client, domain, machine, name, held.get(name, []))
            removed.append(f"checkpoint {name}")
        except SendenseError as exc:
            failure = failure or exc
    if failure is not None:
        failure.details["removed"] = removed
        raise failure
    return removed


def _remove_files(client: Client, job_id: str) -> List[str]:
    """Scratch files and socket in the directory of the host; those in a job's own directory go with it."""
    directory = client.scratch_dir
    if not directory or (client.remote and client.route is None):  # over another transport nothing was ever opened
        return []
    removed = []
    for name in client.files.names(directory):
        socket = parse_socket(name)
        if name.startswith(scratch_prefix(job_id)) or (socket is not None and socket[0] == job_id[:8]):
            if client.files.unlink(os.path.join(directory, name)):
                removed.append(f"file {name}")
    return removed
