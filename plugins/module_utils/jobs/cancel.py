# Copyright: (c) 2026, Sendense contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""``job_cancel``: ask the keepers of one machine's jobs at this place to undo and end them."""

from __future__ import annotations

import time
from typing import Any, Dict, List

from ..errors import JobNotFoundError, JobRunningError
from ..hubstate.jobs import JobDir, check_job_id, list_jobs
from ..hubstate.statedir import StateDir
from .any_machine import chosen_key

#: Seconds between two looks whether the jobs have ended.
LOOK_SECONDS = 0.1


def cancel_jobs(params: Dict[str, Any], check_mode: bool) -> Dict[str, Any]:
    """Cancel every living job of the machine here, and wait for the ends.

    InvalidInputError if no machine is named; JobRunningError for jobs that have not ended after ``wait`` seconds.
    """
    key = chosen_key(params, "job_cancel")
    for job_id in params["job_ids"]:
        check_job_id(job_id, "hub")
    jobs = living(StateDir(params["state_dir"]), key, params["job_ids"])
    fresh = [job for job in jobs if not job.cancelled()]
    result = {"changed": bool(fresh), "machine_key": key, "jobs": [_describe(job) for job in jobs]}
    if check_mode:
        return result
    for job in fresh:
        try:
            job.cancel()
        except JobNotFoundError:
            continue  # it ended just now
    _wait(jobs, float(params["wait"]))
    return result


def living(state: StateDir, key: str, job_ids: List[str]) -> List[JobDir]:
    """The machine's jobs at this place whose keeper lives, in any role; of these only ``job_ids`` if there are any."""
    return [job for job in list_jobs(state) if job.job_id in (job_ids or [job.job_id]) and _key(job) == key and job.alive()]


def _key(job: JobDir) -> str:
    return str(_meta(job).get("machine_key", ""))


def _kind(job: JobDir) -> str:
    return str(_meta(job).get("kind") or "job")


def _meta(job: JobDir) -> Dict[str, Any]:
    try:
        return job.meta()
    except JobNotFoundError:
        return {}  # it ended just now


def _describe(job: JobDir) -> Dict[str, Any]:
    return {"job_id": job.job_id, "kind": _kind(job), "role": job.role, "requested_before": job.cancelled()}


def _wait(jobs: List[JobDir], seconds: float) -> None:
    deadline = time.monotonic() + seconds
    running = [job for job in jobs if job.alive()]
    while running and seconds:
        if time.monotonic() >= deadline:
            names = ", ".join(f"{_kind(job)} {job.job_id} ({job.role})" for job in running)
            raise JobRunningError(
                f"Cancelled, but not ended within {seconds:g} s: {names}. Their keepers still stop servers or undo what was begun; look "
                "again with the same command, and if it stays so, at keeper.log and undo.log in the job's directory.",
                details={"jobs": [job.path for job in running]},
            )
        time.sleep(LOOK_SECONDS)
        running = [job for job in running if job.alive()]
