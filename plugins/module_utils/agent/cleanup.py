# Copyright: (c) 2026, Sendense contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Undo what jobs left whose keeper is dead. Living jobs are never touched.

A job is dead when nobody holds its ``keeper.lock``. The clean-up takes that lock first, so two of them never undo one job.
"""

from __future__ import annotations

import os
import re
import time
from typing import Any, Dict, List, Optional

from ..datapath.export_records import read_records, remove_records_of
from ..errors import JobNotFoundError
from ..hubstate.cancelling import sweep_notes
from ..hubstate.files import unlink_if_there
from ..hubstate.jobs import ROLES, JobDir, list_jobs, sweep_jobs
from ..hubstate.locks import sweep
from ..hubstate.ports import PortPool
from ..hubstate.processes import is_alive, kill_group
from ..hubstate.statedir import StateDir
from ..hubstate.undo import UndoReport, run_undos
from ..steps import reached

#: Seconds in which a killed orphan must be gone.
KILL_SECONDS = 5.0
#: What a controller lays beside the agent for one task, and removes itself unless its link dies; and after how many seconds it has.
_BROUGHT = re.compile(r"nvram-[0-9]+\.fd|[0-9a-f]{64}\.pyz\.[0-9]+\.tmp")
BROUGHT_SECONDS = 86400.0


def cleanup_dead_jobs(state: StateDir, python: Optional[str] = None, dry_run: bool = False) -> List[Dict[str, Any]]:
    """Undo every dead job of this place; one entry per job, empty if there was nothing to do.

    An entry has ``kind`` (job), ``name``, ``job_id``, ``role``, ``machine_key``, ``undone`` and ``failed`` (undo commands),
    ``killed`` (orphaned children), ``exports`` (forgotten export servers) and ``removed``. A job whose undo failed stays
    (``removed`` False) and is tried again next time. ``python`` stands in for an interpreter that is no longer there.
    ``dry_run`` only says what would be undone.
    """
    entries = []
    for job in list_jobs(state):
        if job.alive():
            continue
        if dry_run:
            entries.append(_entry(job, UndoReport(undone=[undo["name"] for undo in job.undos()])))
        elif job.claim():
            entries.append(_clean(job, python or ""))
    if not dry_run and os.path.isdir(state.jobs):
        _tidy(state)
    return entries


def _clean(job: JobDir, python: str) -> Dict[str, Any]:
    lock = job.lock
    entry = _entry(job, UndoReport())
    try:
        entry["killed"] = _kill_orphans(job)
        entry["exports"] = [record["export"] for record in remove_records_of(job)]
        reached("cleanup:claimed")
        report = _undo(job, python)
        reached("cleanup:undone")
        entry.update(undone=report.undone, failed=report.failed, removed=not report.failed)
        if entry["removed"]:
            job.remove()
    finally:
        if lock is not None:
            lock.release()
    return entry


def _entry(job: JobDir, report: UndoReport) -> Dict[str, Any]:
    try:
        machine = str(job.meta().get("machine_key", ""))
    except JobNotFoundError:
        machine = ""
    return {
        "kind": "job",
        "name": os.path.basename(job.path),
        "job_id": job.job_id,
        "role": job.role,
        "machine_key": machine,
        "undone": report.undone,
        "failed": report.failed,
        "killed": [],
        "exports": [],
        "removed": not report.failed,
    }


def _undo(job: JobDir, python: str) -> UndoReport:
    steps = run_undos(job, python)
    while True:
        try:
            time.sleep(next(steps))
        except StopIteration as stopped:
            report: UndoReport = stopped.value
            return report


def _kill_orphans(job: JobDir) -> List[str]:
    """Children die with their keeper; one that did not (a program that asked the kernel for other terms) is killed here."""
    orphans = [child for child in job.children() if is_alive(child.get("pid"), child.get("starttime"))]
    for child in orphans:
        kill_group(child["pid"])
    deadline = time.monotonic() + KILL_SECONDS
    while any(is_alive(child["pid"], child["starttime"]) for child in orphans) and time.monotonic() < deadline:
        time.sleep(0.02)
    return [str(child["name"]) for child in orphans]


def _tidy(state: StateDir) -> None:
    """Files that mean nothing any more: half-made job directories, leases and records of the dead."""
    sweep_jobs(state)
    sweep_notes(state)
    PortPool(state).sweep()
    sweep(state.leases)
    _sweep_brought(state)
    for record in read_records(state):
        gone = record.get("role") in ROLES and not JobDir(state, record["job"], record["role"]).alive()
        if gone and record.get("port") is not None and not is_alive(record.get("pid"), record.get("starttime")):
            unlink_if_there(os.path.join(state.exports, f"{int(record['port'])}.json"))


def _sweep_brought(state: StateDir) -> None:
    for name in os.listdir(state.agent) if os.path.isdir(state.agent) else []:
        path = os.path.join(state.agent, name)
        try:
            old = _BROUGHT.fullmatch(name) is not None and time.time() - os.lstat(path).st_mtime > BROUGHT_SECONDS
        except FileNotFoundError:
            continue
        if old:
            unlink_if_there(path)
