# Copyright: (c) 2026, Sendense contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Jobs on a machine: whose is the one that runs, and how ours is ended."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import Any, Iterable, Optional

from ...errors import ForeignJobError, JobRunningError, PlatformJobLostError, PlatformUnreachableError, SnapshotFailedError
from ...model import Disk, Machine
from .client import libvirt, mapped
from .naming import parse_export, parse_socket
from .xmltext import parse

_ABORT_TIMEOUT_S = 30.0


@dataclass(frozen=True)
class BackupJob:
    """The backup job that libvirt runs on a machine. ``job_id`` (32 hex) and ``owner`` are empty if it is not ours."""

    job_id: str
    owner: str
    socket: str

    @property
    def ours(self) -> bool:
        """Whether socket and exports carry our names."""
        return bool(self.job_id)


def active(domain: Any) -> Optional[BackupJob]:
    """The backup job that runs on this machine, or None."""
    try:
        root = parse(domain.backupGetXMLDesc())
    except libvirt.libvirtError as exc:
        if exc.get_error_code() == libvirt.VIR_ERR_NO_DOMAIN_BACKUP:
            return None
        with mapped("Cannot ask for the backup job of the machine", PlatformUnreachableError):
            raise
    server = root.find("server")
    socket = "" if server is None else server.get("socket", "")
    mark = parse_socket(socket)
    exports = [disk.get("exportname", "") for disk in root.findall("./disks/disk") if disk.get("backup") != "no"]
    jobs = {parse_export(name) for name in exports}
    if root.get("mode") != "pull" or mark is None or len(jobs) != 1 or not "".join(jobs).startswith(mark[0]):
        return BackupJob("", "", socket)
    return BackupJob(jobs.pop(), mark[1], socket)


def refuse_other_jobs(domain: Any, machine: Machine, job_id: str) -> None:
    """ForeignJobError or JobRunningError if anything but ``job_id`` works on this machine; nothing is touched."""
    if machine.power == "off":
        return
    job = active(domain)
    if job is not None and job.ours and job.job_id != job_id:
        raise JobRunningError(
            f"Machine {machine.id} is being backed up by job {job.job_id}. Wait for it, or run cleanup if it is dead.",
            details={"job_id": job.job_id, "owner": job.owner},
        )
    if job is not None and not job.ours:
        raise _foreign(machine, f"another product's backup job (socket {job.socket!r})")
    if job is None:
        _refuse_domain_job(domain, machine)
        _refuse_block_jobs(domain, machine, machine.disks)


def end(domain: Any, job_id: str) -> Optional[BackupJob]:
    """End the backup job that carries this job id (or its first 8 hex) and wait until it is gone; None if there is none."""
    job = active(domain)
    if job is None or not job.ours or not job.job_id.startswith(job_id):
        return None
    with mapped(f"Cannot end backup job {job.job_id}"):
        domain.abortJob()
    deadline = time.monotonic() + _ABORT_TIMEOUT_S
    while active(domain) is not None:
        if time.monotonic() > deadline:
            raise SnapshotFailedError(f"Backup job {job.job_id} did not end within {_ABORT_TIMEOUT_S:.0f} s of being aborted.")
        time.sleep(0.02)
    return job


def _refuse_domain_job(domain: Any, machine: Machine) -> None:
    """Called only where no backup job runs, as far as libvirt can tell."""
    try:
        kind = domain.jobInfo()[0]
    except libvirt.libvirtError as exc:
        # The statistics of a backup job without its data: what remains of one in whose beginning libvirtd was killed.
        if exc.get_error_code() == libvirt.VIR_ERR_INTERNAL_ERROR:
            raise _lost(machine, exc) from exc
        with mapped("Cannot ask for the jobs of the machine", PlatformUnreachableError):
            raise
    if kind not in (libvirt.VIR_DOMAIN_JOB_NONE, libvirt.VIR_DOMAIN_JOB_COMPLETED):
        raise _foreign(machine, "a migration, save or dump")


def _refuse_block_jobs(domain: Any, machine: Machine, disks: Iterable[Disk]) -> None:
    for disk in disks:
        with mapped(f"Cannot ask for the block jobs of {disk.device}", PlatformUnreachableError):
            job = domain.blockJobInfo(disk.device, 0)
        if job:
            raise _foreign(machine, f"a block job on {disk.device}")


def _lost(machine: Machine, exc: Exception) -> PlatformJobLostError:
    return PlatformJobLostError(
        f"Cannot back up machine {machine.id}: libvirt was killed while a backup of it began, and believes since then in a job that it has"
        f" lost ({exc}). It refuses every new one until the machine is shut down and started again, or until its record of the job is"
        " removed: see docs/runbooks/libvirt-lost-job.md. Nothing was touched.",
        details={"machine_id": machine.id},
    )


def _foreign(machine: Machine, what: str) -> ForeignJobError:
    return ForeignJobError(
        f"Cannot back up machine {machine.id}: {what} is running. It was not touched; try again when it has ended.",
        details={"machine_id": machine.id, "job": what},
    )
