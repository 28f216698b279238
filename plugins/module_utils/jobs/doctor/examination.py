# Copyright: (c) 2026, Sendense contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""``backup_doctor``: find, explain and on request mend what is wrong at one half of the product, the hub or a node."""

from __future__ import annotations

import json
import os
import time
from functools import partial
from typing import Any, Dict, FrozenSet, Iterable, List, Optional, Set

from ...catalog.decision import choose_previous, known_change_ids
from ...errors import MachineNotFoundError, PlatformAuthenticationError, PlatformUnreachableError, SendenseError
from ...hubstate.statedir import StateDir
from ...model import machine_key
from ...platforms import registry as platforms
from ...platforms._base import Source
from ...platforms.bounded import DISCOVERY_SECONDS, within
from ...repositories import registry as repositories
from ...repositories._base import PointFilter, Repository
from .kinds import ERROR, KINDS, SEVERITIES, Diagnosis, kinds_to_mend, ordered
from .place import examine_place, mend_place
from .storage import examine_machine, examine_storage, mend_machine
from .tracking import choose, examine_disks, examine_source, mend_source

Result = Dict[str, Any]


def examine_hub(params: Dict[str, Any], check_mode: bool) -> Result:
    """The state directory, the repository, and the points of the machines given and of those that no inventory names."""
    state, wanted = StateDir(params["state_dir"]), kinds_to_mend(params["mend"])
    found = examine_place(state, "hub")
    if not check_mode:
        mend_place(state, found, wanted)
    answer: Result = {"owner": "", "known_change_ids": {}, "known_at": time.time()}
    if params.get("repository"):
        repository = repositories.open_repository(params["repository"])
        of_storage, usable = examine_storage(repository, params["repository"])
        found += of_storage
        if usable:
            answer["owner"] = repository.identity()["owner"]
            ids = {machine_key(one["platform"], one["machine_id"]): one["machine_id"] for one in params["machines"]}
            found += _machines(repository, state, params, ids, check_mode)
            answer["known_change_ids"] = _known(repository, ids)
    for one in found:
        one.where = "hub"
    return dict(_result(found, wanted, check_mode), place=state.identity(), **answer)


def _machines(repository: Repository, state: StateDir, params: Dict[str, Any], ids: Dict[str, str], check_mode: bool) -> List[Diagnosis]:
    wanted, stored, found = kinds_to_mend(params["mend"]), repository.machines(), []
    inventory = set(params["inventory"])
    # Whoever names no machine at all, as for a hub whose machines are all gone, asks about every one that is stored.
    others = [key for key in stored if key not in inventory and key not in ids] if inventory or not ids else []
    for key in sorted(set(stored) & set(ids)) + others:
        of_machine = examine_machine(repository, state, key, params["digests"])
        if not check_mode:
            mend_machine(repository, state, key, of_machine, wanted)
        if any(one.mended for one in of_machine):
            # A mark cures nothing: what is damaged now is damage that is left.
            there = {(one.kind, one.object) for one in of_machine}
            of_machine += [one for one in examine_machine(repository, state, key) if (one.kind, one.object) not in there]
        count = len(repository.list(PointFilter(machine_key=key))) if inventory and key in others else 0
        if count:
            text = f"it has {count} backup{'' if count == 1 else 's'} here, and no machine of the inventory has this key"
            of_machine.append(Diagnosis("source_gone", key, text, machine_key=key, details={"points": count}))
        for one in of_machine:
            one.machine_id = ids.get(key, "")
        found += of_machine
    return found


def _known(repository: Repository, ids: Dict[str, str]) -> Dict[str, List[str]]:
    """What the newest backups still need, by machine id.

    A machine whose newest backup is damaged, or whose manifests cannot be read, has no entry: its damage may turn out to be a
    false alarm, so the node says nothing about its tracking.
    """
    known = {}
    for key, machine_id in ids.items():
        try:
            points = repository.list(PointFilter(machine_key=key))
        except SendenseError:
            continue  # it is in the findings already
        if not points or choose_previous(points, max_depth=len(points) + 1).disks is not None:
            known[machine_id] = known_change_ids(points)
    return known


def examine_node(params: Dict[str, Any], check_mode: bool) -> Result:
    """The state directory, and the machines given: change tracking, jobs of the dead, disks of unfinished restores."""
    state, wanted = StateDir(params["state_dir"]), kinds_to_mend(params["mend"])
    found = examine_place(state, "node")
    if not check_mode:
        mend_place(state, found, wanted)
    used: Optional[Set[str]] = None
    unread: List[Diagnosis] = []
    for group in _by_connection(params["machines"]):
        try:
            # Before anything that has no limit: a machine that hangs is known after this, and holds up nobody any more.
            platforms.discover(group[0]["platform"], group[0]["connection"])
            with platforms.source(group[0]["platform"], group[0]["connection"]) as source:
                for machine in group:
                    found += _machine(source, machine, state, params, frozenset() if check_mode else wanted)
                here = source.files_in_use()
                if here is not None:
                    used = {*(used or ()), *map(os.path.realpath, here)}
        except SendenseError as error:
            unread += [_unreadable(machine, error) for machine in group]
    if used is not None and not unread:
        found += examine_disks(params["storage"], used, state)
    found += unread
    return dict(_result(found, wanted, check_mode), place=state.identity(), owner="", known_change_ids={}, known_at=0.0)


def _machine(source: Source, machine: Dict[str, Any], state: StateDir, params: Dict[str, Any], wanted: FrozenSet[str]) -> List[Diagnosis]:
    try:
        within(DISCOVERY_SECONDS, f"Asking for machine {machine['machine_id']}", partial(_ask, machine))
        found = examine_source(source, machine, state, params)
    except (PlatformUnreachableError, PlatformAuthenticationError) as error:
        if "limit_s" in error.details:
            return [_unreadable(machine, error)]
        raise
    except SendenseError as error:
        return [_unreadable(machine, error)]
    mend_source(source, machine, state, params, choose(found, wanted, machine_key(machine["platform"], machine["machine_id"])))
    return found


def _ask(machine: Dict[str, Any]) -> None:
    with platforms.source(machine["platform"], machine["connection"]) as source:
        try:
            source.machine(machine["machine_id"])
        except MachineNotFoundError:
            return  # it says so itself when it is examined


def _unreadable(machine: Dict[str, Any], error: SendenseError) -> Diagnosis:
    key = machine_key(machine["platform"], machine["machine_id"])
    return Diagnosis("platform_unreadable", key, error.msg, "node", key, machine["machine_id"], error.as_result())


def _by_connection(machines: Iterable[Dict[str, Any]]) -> List[List[Dict[str, Any]]]:
    groups: Dict[str, List[Dict[str, Any]]] = {}
    for machine in machines:
        name = json.dumps([machine["platform"], machine["connection"]], sort_keys=True)
        groups.setdefault(name, []).append(machine)
    return list(groups.values())


def _result(found: List[Diagnosis], wanted: Iterable[str], check_mode: bool) -> Result:
    """``changed``: something was mended, or in check mode would be."""
    chosen, listed = set(wanted), ordered(found)
    would = [one for one in listed if check_mode and one.kind in chosen and one.mendable]
    left = [KINDS[one.kind].severity for one in listed if not one.mended]
    return {
        "changed": bool(would) or any(one.mended for one in listed),
        "findings": [one.to_dict() for one in listed],
        "would_mend": [f"{one.kind} {one.object}" for one in would],
        "counts": {severity: left.count(severity) for severity in SEVERITIES},
        "ok": ERROR not in left,
    }
