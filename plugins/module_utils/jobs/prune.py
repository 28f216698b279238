# Copyright: (c) 2026, Sendense contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""``backup_prune``: let the backups of one machine expire, by deletions and merges."""

from __future__ import annotations

from typing import Any, Dict

from ..errors import InvalidInputError, JobRunningError, PointNotFoundError, SendenseError
from ..repositories import registry
from ..repositories._base import Repository
from ..steps import reached
from .any_machine import chosen_key
from .backup import lease_name
from .expiry import DELETED, LEFT, MERGED, Row, Survey, look, outcome, refusal
from .place import HUB, attach_again, begin, discard
from .prune_run import Pruning

Result = Dict[str, Any]


def prune_points(params: Dict[str, Any], check_mode: bool) -> Result:
    """Prune one machine. ``following`` in the result: call again with the same job id."""
    repository = registry.open_repository(params["repository"])
    key = _key(repository, params)
    if params["phase"] == "collect":
        place = attach_again(params, HUB)
        return _run(Pruning(place, repository, key, params, place.load("prune")))
    found, open_merges = look(repository, key, params), repository.open_merges(key)
    _require_there(found, key, params)
    if check_mode:
        foreseen = outcome(found.rows(), changed=not found.idle() or bool(open_merges))
        return dict(foreseen, refused=found.refused, synthetic_full=next((merge.survivor for merge in found.synthetic), ""))
    if found.refused and not open_merges:
        raise refusal(found, key)
    if found.idle() and not open_merges:
        return outcome(found.rows())
    place = begin(params, HUB, params["job_id"], {"machine_key": key, "kind": "prune"})
    identity = repository.identity()
    try:
        place.hold(lease_name(identity["owner"], key), f"machine {key} in repository {identity['repository_id']}")
    except JobRunningError as error:
        discard(place)
        if params["point_ids"]:
            raise
        return outcome([_held_back(row, error) for row in found.rows()])
    except SendenseError:
        discard(place)
        raise
    reached("prune:leased")
    return _run(Pruning.of(place, repository, key, params))


def _key(repository: Repository, params: Dict[str, Any]) -> str:
    key = chosen_key(params, "backup_prune")
    if params["machine_key"] and key not in repository.machines():
        raise InvalidInputError(f"There is no machine {key} in this repository. List the keys of its machines with repository_info.")
    return key


def _require_there(found: Survey, key: str, params: Dict[str, Any]) -> None:
    unknown = sorted(set(params["point_ids"]) - {point.manifest.point_id for point in found.points})
    if unknown:
        raise PointNotFoundError(
            f"Machine {key} has no backup {', '.join(unknown)} in this repository; nothing was touched. playbooks/list.yml lists them.",
            details={"machine_key": key, "points": unknown},
        )


def _held_back(row: Row, error: JobRunningError) -> Row:
    if row["action"] not in (DELETED, MERGED):
        return row
    who = str(error.details.get("job") or error.details.get("job_id") or "another")
    return dict(row, action=LEFT, reasons=[*row["reasons"], f"but job {who} is working on the machine"])


def _run(pruning: Pruning) -> Result:
    try:
        child = pruning.advance()
        if child is not None:
            return {"changed": True, "following": child.handover()}
        result = pruning.result()
    except SendenseError:
        discard(pruning.place)
        raise
    pruning.place.finish()
    return result
