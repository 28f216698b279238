# Copyright: (c) 2026, Sendense contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Remove what dead jobs left at this place, and only that: every living job, and everything foreign, stays."""

from __future__ import annotations

import json
from typing import Any, Dict, List

from ..agent.cleanup import cleanup_dead_jobs
from ..catalog.decision import known_change_ids
from ..errors import MachineNotFoundError
from ..hubstate.jobs import list_jobs
from ..hubstate.statedir import StateDir
from ..model import machine_key
from ..platforms import registry as platforms
from ..platforms._base import Source
from ..repositories import registry as repositories
from ..repositories._base import PointFilter


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
            for partial in repository.partials(key):
                if any(job_id.startswith(partial.job_id) for job_id in living_jobs(state)):
                    continue
                removed.append({"kind": "partial", "name": partial.point_id, "machine_id": machine_id})
                if not check_mode:
                    repository.abort(key, partial.job_id)
            known[machine_id] = known_change_ids(repository.list(PointFilter(machine_key=key)))
    return {"changed": bool(removed), "removed": removed, "owner": owner, "known_change_ids": known}


def clean_node(params: Dict[str, Any], check_mode: bool) -> Dict[str, Any]:
    """Undo dead jobs, end their backup jobs at the source, drop checkpoints that no committed backup needs."""
    state = StateDir(params["state_dir"])
    removed = cleanup_dead_jobs(state, dry_run=check_mode)
    connections: Dict[str, Any] = {}
    for machine in params["machines"]:
        name = json.dumps([machine["platform"], machine["connection"]], sort_keys=True)
        connections.setdefault(name, []).append(machine)
    for group in connections.values():
        with platforms.source(group[0]["platform"], group[0]["connection"]) as source:
            for machine in group:
                known = params["known_change_ids"].get(machine["machine_id"], [])
                removed += clean_machine(source, machine["machine_id"], state, params["owner"], known, check_mode)
    return {"changed": bool(removed), "removed": removed, "owner": "", "known_change_ids": {}}


def living_jobs(state: StateDir) -> List[str]:
    """Ids of the jobs that are alive at this place. What a job left may name only the first 8 digits of it."""
    return [job.job_id for job in list_jobs(state) if job.alive()]


def clean_machine(
    source: Source, machine_id: str, state: StateDir, owner: str, known: List[str], check_mode: bool
) -> List[Dict[str, Any]]:
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
    removed = [dict(leftover, machine_id=machine_id) for leftover in leftovers if _is_unneeded(leftover, owner, known)]
    if not check_mode:
        for job_id in sorted({leftover["job_id"] for leftover in removed}):
            source.close_snapshot(machine_id, job_id, owner, True, known)
    return removed


def _is_unneeded(leftover: Dict[str, str], owner: str, known: List[str]) -> bool:
    """A dead backup job is always ended; a checkpoint goes only if its owner asks and no committed backup needs it."""
    if leftover["kind"] == "job":
        return True
    return bool(owner) and leftover["owner"] == owner and not any(leftover["name"] in change_id for change_id in known)
