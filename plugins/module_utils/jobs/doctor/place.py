# Copyright: (c) 2026, Sendense contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What is wrong at a place itself: dead jobs and their children, hung keepers, files that mean nothing any more."""

from __future__ import annotations

import os
import time
from typing import FrozenSet, List

from ...agent.cleanup import cleanup_dead_jobs
from ...datapath.export_records import read_records
from ...errors import JobNotFoundError, SendenseError
from ...hubstate.files import unlink_if_there
from ...hubstate.jobs import ROLES, JobDir, half_made, list_jobs, sweep_jobs
from ...hubstate.locks import holder, sweep
from ...hubstate.ports import PortPool
from ...hubstate.processes import is_alive
from ...hubstate.statedir import StateDir
from .kinds import Diagnosis

#: Seconds without a heartbeat after which a keeper that still lives cannot be in order: each gives its job up long before.
HUNG_SECONDS = 600.0


def examine_place(state: StateDir, where: str) -> List[Diagnosis]:
    """All findings of a state directory. Reads only; a place where no job ever ran has none."""
    found = _jobs(state) + _half_made(state) + _leases(state) + _exports(state)
    for one in found:
        one.where = where
    return found


def mend_place(state: StateDir, found: List[Diagnosis], wanted: FrozenSet[str]) -> None:
    """Mend what is wanted; sets ``mended`` and ``why_not``. Whatever lives is never touched."""
    chosen = [one for one in found if one.kind in wanted]
    jobs = {one.details["job"] for one in chosen if one.kind in ("dead_job", "stray_process")}
    entries = {entry["name"]: entry for entry in cleanup_dead_jobs(state)} if jobs else {}
    kinds = {one.kind for one in chosen}
    if "half_made_job" in kinds:
        sweep_jobs(state)
    if "stale_lease" in kinds:
        sweep(state.leases)
        PortPool(state).sweep()
    # Undoing dead jobs tidies up after them, whatever was asked for: what is gone is gone.
    for one in found if jobs else chosen:
        if one.kind == "stale_export" and one in chosen and _is_stale_export(state, one.details):
            unlink_if_there(one.object)
        failed = entries.get(one.details.get("job", ""), {}).get("failed", [])
        one.mended = not _is_there(one)
        if not one.mended and one in chosen:
            one.why_not = "; ".join(f"{undo['name']}: {undo['error']}" for undo in failed) or "it is in use now"


def _is_there(one: Diagnosis) -> bool:
    if one.kind == "stray_process":
        return is_alive(one.details["pid"], one.details["starttime"])
    return os.path.lexists(one.object)


def living_job_ids(state: StateDir) -> List[str]:
    """Ids of the jobs that are alive at this place."""
    return [job.job_id for job in list_jobs(state) if job.alive()]


def machines_at_work(state: StateDir) -> List[str]:
    """Keys of the machines that living jobs of this place work on."""
    keys = []
    for job in list_jobs(state):
        if job.alive():
            keys.append(_machine_key(job))
    return keys


def _jobs(state: StateDir) -> List[Diagnosis]:
    found = []
    for job in list_jobs(state):
        name = os.path.basename(job.path)
        about = {"job": name, "job_id": job.job_id, "role": job.role}
        if job.alive():
            age = time.time() - _heartbeat(job)
            if age > HUNG_SECONDS:
                text = f"its keeper lives, but nobody has beaten its heart for {age:.0f} s"
                found.append(Diagnosis("hung_job", job.path, text, machine_key=_machine_key(job), details=about))
            continue
        undos = ", ".join(undo["name"] for undo in job.undos()) or "nothing"
        found.append(Diagnosis("dead_job", job.path, f"its keeper is dead; to undo: {undos}", machine_key=_machine_key(job), details=about))
        for child in job.children():
            if is_alive(child.get("pid"), child.get("starttime")):
                text = f"process {child['pid']} ({child['name']}) outlived the keeper of its job"
                facts = dict(about, pid=child["pid"], starttime=child["starttime"])
                found.append(Diagnosis("stray_process", f"{name}/{child['name']}", text, machine_key=_machine_key(job), details=facts))
    return found


def _heartbeat(job: JobDir) -> float:
    try:
        return os.stat(job.heartbeat_path).st_mtime
    except FileNotFoundError:
        return time.time()  # it ended just now


def _machine_key(job: JobDir) -> str:
    try:
        return str(job.meta().get("machine_key", ""))
    except JobNotFoundError:
        return ""


def _half_made(state: StateDir) -> List[Diagnosis]:
    return [Diagnosis("half_made_job", path, "a directory that a job had not finished making or removing") for path in half_made(state)]


def _leases(state: StateDir) -> List[Diagnosis]:
    found = []
    for folder in (state.leases, state.ports):
        for name in _names(folder):
            path = os.path.join(folder, name)
            if name.endswith(".lease") and os.path.exists(path) and holder(path) is None:
                found.append(Diagnosis("stale_lease", path, "a lease file that no process holds"))
    return found


def _exports(state: StateDir) -> List[Diagnosis]:
    found = []
    for record in read_records(state):
        if record.get("port") is None or not _is_stale_export(state, record):
            continue
        path = os.path.join(state.exports, f"{int(record['port'])}.json")
        found.append(Diagnosis("stale_export", path, f"the record of a dead server on port {record['port']}", details=dict(record)))
    return found


def _is_stale_export(state: StateDir, record: "dict[str, object]") -> bool:
    """Whether both the server and the job of a record are dead, and no dead job is left whose clean-up would remove it."""
    role, pid, started = record.get("role"), record.get("pid"), record.get("starttime")
    try:
        job = JobDir(state, str(record.get("job")), str(role)) if role in ROLES else None
    except SendenseError:
        job = None
    if job is not None and os.path.isdir(job.path):
        return False
    return not (isinstance(pid, int) and isinstance(started, int) and is_alive(pid, started))


def _names(folder: str) -> List[str]:
    try:
        return sorted(os.listdir(folder))
    except (FileNotFoundError, NotADirectoryError):
        return []
