# Copyright: (c) 2026, Sendense contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What is wrong at the machines themselves: change tracking, backup jobs of the dead, disks that no restore finished."""

from __future__ import annotations

import os
import re
from typing import Any, Dict, FrozenSet, List, Set

from ...errors import MachineNotFoundError, SendenseError
from ...hubstate.statedir import StateDir
from ...model import machine_key
from ...platforms._base import Source, TrackingFinding
from .kinds import Diagnosis
from .place import living_job_ids, machines_at_work

_RESTORED = re.compile(r"sendense-(?P<job>[0-9a-f]{32})-(?:disk[0-9]{1,5}\.(?:qcow2|raw)|nvram\.fd)")


def examine_source(source: Source, machine: Dict[str, Any], state: StateDir, asked: Dict[str, Any]) -> List[Diagnosis]:
    """Findings of one machine. ``asked``: ``owner``, ``known_change_ids`` by machine id, and ``known_at`` (seconds since 1970).

    Without the repository's answer about a machine nothing is said of its change tracking.
    """
    machine_id = machine["machine_id"]
    key = machine_key(machine["platform"], machine_id)
    try:
        source.machine(machine_id)
    except MachineNotFoundError as error:
        return [Diagnosis("source_gone", key, error.msg, "node", key, machine_id)]
    living = living_job_ids(state)
    found = [
        Diagnosis("backup_job_left", left["name"], f"backup job {left['job_id']} still runs and its job here is dead", details=dict(left))
        for left in source.stale(machine_id)
        if left["kind"] == "job"
        and not _lives(left["job_id"], living)
        # Another node may be running one for another repository.
        and (left["owner"] == asked["owner"] or not source.reached_from_elsewhere())
    ]
    known = asked["known_change_ids"].get(machine_id)
    if asked["owner"] and known is not None:
        for one in source.tracking_findings(machine_id, asked["owner"], known):
            # What a job made since the hub looked is not in its answer, so nothing can be said about it.
            if not _lives(one.job_id, living) and (not one.created or one.created < asked["known_at"]):
                found.append(_diagnosis(one))
    for diagnosis in found:
        diagnosis.where, diagnosis.machine_key, diagnosis.machine_id = "node", key, machine_id
    return found


def mend_source(source: Source, machine: Dict[str, Any], state: StateDir, asked: Dict[str, Any], found: List[Diagnosis]) -> None:
    """Mend the findings given, all of one machine; sets ``mended`` and ``why_not``. Nothing while a job works on the machine."""
    machine_id = machine["machine_id"]
    known = asked["known_change_ids"].get(machine_id, [])
    for one in found:
        if one.machine_key in machines_at_work(state):
            one.why_not = "a job is at work on this machine"
            continue
        try:
            if one.kind == "backup_job_left":
                one.mended = bool(source.close_snapshot(machine_id, one.details["job_id"], "", False, []))
            else:
                one.mended = source.mend_tracking(machine_id, asked["owner"], known, TrackingFinding(**one.details))
        except SendenseError as error:
            one.why_not = error.msg


def examine_disks(directories: List[str], used: Set[str], state: StateDir) -> List[Diagnosis]:
    """Disks in these directories that restores of ours made, that no machine in ``used`` (paths) has and no job works on."""
    living, found = living_job_ids(state), []
    for directory in directories:
        for name in sorted(os.listdir(directory)) if os.path.isdir(directory) else []:
            match, path = _RESTORED.fullmatch(name), os.path.join(directory, name)
            if match and match["job"] not in living and os.path.realpath(path) not in used:
                text = f"restore {match['job']} made it, and no machine that this node knows uses it"
                found.append(Diagnosis("restore_leftover", path, text, "node", details={"job_id": match["job"]}))
    return found


def choose(found: List[Diagnosis], wanted: FrozenSet[str], key: str) -> List[Diagnosis]:
    """The findings of one machine that are to be mended."""
    return [one for one in found if one.kind in wanted and one.mendable and one.machine_key == key]


def _lives(job_id: str, living: List[str]) -> bool:
    """``job_id`` may be no more than the first digits of one."""
    return bool(job_id) and any(one.startswith(job_id) for one in living)


def _diagnosis(one: TrackingFinding) -> Diagnosis:
    return Diagnosis(one.kind, one.name, one.message, details=dict(vars(one)))
