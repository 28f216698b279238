# Copyright: (c) 2026, Sendense contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Remove what dead jobs left at this place, and only that: every living job, and everything foreign, stays."""

from __future__ import annotations

from functools import partial
from typing import Any, Dict, List, Optional

from ..agent.cleanup import cleanup_dead_jobs
from ..catalog.decision import known_change_ids
from ..errors import MachineNotFoundError, SendenseError
from ..hubstate.jobs import list_jobs
from ..hubstate.statedir import StateDir
from ..model import machine_key
from ..platforms import registry as platforms
from ..platforms._base import Source
from ..platforms.bounded import CLOSING_SECONDS, within
from ..repositories import registry as repositories
from ..repositories._base import PointFilter

#: What a clean-up means that could not be done now.
LEFT = "What dead jobs left there stays until the next backup or clean-up, which ends it."


def clean_hub(params: Dict[str, Any], check_mode: bool) -> Dict[str, Any]:
    """Undo dead jobs, drop partial points whose job is dead, and say which change ids each machine still needs."""
    state = StateDir(params["state_dir"])
    removed = cleanup_dead_jobs(state, dry_run=check_mode)
    known: Dict[str, Any] = {}
    owner = ""
    if params.get("repository"):
        repository = repositories.open_repository(params["repository"])
        owner = repository.identity()["owner"]
        for machine in params["machines"]:
            machine_id = machine["machine_id"]
            key = machine_key(machine["platform"], machine_id)
            for begun in repository.partials(key):
                if any(job_id.startswith(begun.job_id) for job_id in living_jobs(state)) or state.is_of_another_hub(begun.hub_id):
                    continue  # the doctor explains one of another hub, and mends it on request
                removed.append({"kind": "partial", "name": begun.point_id, "machine_id": machine_id})
                if not check_mode:
                    repository.abort(key, begun.job_id)
            known[machine_id] = known_change_ids(repository.list(PointFilter(machine_key=key)))
    return {"changed": bool(removed), "removed": removed, "owner": owner, "known_change_ids": known}


def clean_node(params: Dict[str, Any], check_mode: bool) -> Dict[str, Any]:
    """Undo dead jobs, end their backup jobs at the source, drop checkpoints that no committed backup needs.

    A machine at which that fails, because it hangs for example, is reported when all the others are done.
    """
    state = StateDir(params["state_dir"])
    removed = cleanup_dead_jobs(state, dry_run=check_mode)
    failure: Optional[SendenseError] = None
    for machine in params["machines"]:
        doing = f"Cleaning up at machine {machine['machine_id']}"
        try:
            removed += within(CLOSING_SECONDS, doing, partial(_clean_one, machine, state, params, check_mode), LEFT)
        except SendenseError as error:
            failure = failure or error
    if failure is not None:
        failure.details["removed"] = removed
        raise failure
    return {"changed": bool(removed), "removed": removed, "owner": "", "known_change_ids": {}}


def _clean_one(machine: Dict[str, Any], state: StateDir, params: Dict[str, Any], check_mode: bool) -> List[Dict[str, Any]]:
    known = params["known_change_ids"].get(machine["machine_id"], [])
    with platforms.source(machine["platform"], machine["connection"]) as source:
        return clean_machine(source, machine["machine_id"], state, params["owner"], known, check_mode)


def living_jobs(state: StateDir) -> List[str]:
    """Ids of the jobs that are alive at this place. What a job left may name only the first 8 digits of it."""
    return [job.job_id for job in list_jobs(state) if job.alive()]


def clean_machine(source: Source, machine_id: str, state: StateDir, owner: str, known: List[str], check_mode: bool) -> List[Dict[str, Any]]:
    """End what dead jobs of ours left at one machine; returns it. A machine that is gone has nothing left.

    ``stale`` may know only the first 8 digits of a job: a checkpoint's name has no more.
    """
    try:
        leftovers = source.stale(machine_id)
    except MachineNotFoundError:
        return []
    living = living_jobs(state)
    if any(job_id.startswith(leftover["job_id"]) for leftover in leftovers for job_id in living):
        return []  # somebody is at work here: the next run finds what is left
    anywhere = source.reached_from_elsewhere()
    removed = [dict(leftover, machine_id=machine_id) for leftover in leftovers if _is_unneeded(leftover, owner, known, anywhere)]
    if not check_mode:
        for job_id in sorted({leftover["job_id"] for leftover in removed}):
            source.close_snapshot(machine_id, job_id, owner, True, known)
    return removed


def _is_unneeded(leftover: Dict[str, str], owner: str, known: List[str], anywhere: bool) -> bool:
    """A dead backup job is always ended; a checkpoint goes only if its owner asks and no committed backup needs it.

    Where a job may live at another place (``anywhere``), only its owner, whose hub holds a lease on the machine, can tell that it is dead.
    """
    if leftover["kind"] == "job":
        return not anywhere or leftover["owner"] == owner
    return bool(owner) and leftover["owner"] == owner and not any(leftover["name"] in change_id for change_id in known)
