# Copyright: (c) 2026, Sendense contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""``backup_verify``: prove backups of one machine, point by point, and mark what is damaged."""

from __future__ import annotations

from typing import Any, Dict, List, Optional

from ..catalog import chain
from ..errors import (
    InvalidInputError,
    PointDamagedError,
    PointInUseError,
    PointNotFoundError,
    SendenseError,
    VerificationFailedError,
)
from ..model import device_names, with_devices
from ..repositories import registry
from ..repositories._base import Point, PointFilter, Repository
from ..steps import reached
from .any_machine import chosen_key
from .following import FollowedChild, disk_results, follow
from .place import HUB, JobPlace, attach_again, begin, discard
from .point_leases import hold_for_reading
from .reading import image_path, start_readers, stop_readers

Result = Dict[str, Any]


def verify_points(params: Dict[str, Any], check_mode: bool) -> Result:
    """Verify oldest first. ``following`` in the result: call again with the same job id."""
    repository = registry.open_repository(params["repository"])
    key = chosen_key(params, "backup_verify")
    if params["phase"] == "collect":
        place = attach_again(params, HUB)
        state = place.load("verification")
    else:
        state = {"todo": wanted_points(repository, key, params), "points": [], "marked": []}
        if check_mode:
            return {"changed": False, "ok": None, "points": [], "marked": [], "would_verify": state["todo"]}
        place = begin(params, HUB, params["job_id"], {"machine_key": key, "kind": "verify"})
        state["todo"] = _held(place, repository, key, params, state["todo"])
    try:
        following = _advance(place, repository, key, state, params["phase"])
    except SendenseError:
        discard(place)
        raise
    if following:
        return {"changed": bool(state["marked"]), "following": following}
    place.client.finish()
    ok = all(point["ok"] for point in state["points"])
    return {"changed": bool(state["marked"]), "ok": ok, "points": state["points"], "marked": state["marked"]}


def _held(place: JobPlace, repository: Repository, key: str, params: Dict[str, Any], wanted: List[str]) -> List[str]:
    """Hold the points for reading until the job ends, and look again which there are: some may have expired meanwhile."""
    try:
        hold_for_reading(place, repository, key, wanted)
        reached("verify:points-held")
        there = [point.manifest.point_id for point in repository.list(PointFilter(machine_key=key)) if point.status != "merging"]
        gone = sorted(set(params["point_ids"]) - set(there))
        if gone:
            raise PointNotFoundError(
                f"Backup {', '.join(gone)} of machine {key} has expired meanwhile. playbooks/list.yml lists what there is."
            )
        return [point_id for point_id in wanted if point_id in there]
    except SendenseError:
        discard(place)
        raise


def wanted_points(repository: Repository, key: str, params: Dict[str, Any]) -> List[str]:
    """The points to verify, oldest first, each with all that it stands on."""
    points = repository.list(PointFilter(machine_key=key))
    known = {point.manifest.point_id: point for point in points}
    promised = [point_id for point_id, point in known.items() if point.status != "merging"]
    if params["all_points"]:
        return promised
    asked = params["point_ids"] or _newest(points, key)
    unknown = sorted(set(asked) - set(known))
    if unknown:
        raise InvalidInputError(f"Machine {key} has no backup {', '.join(unknown)} in this repository; playbooks/list.yml lists them.")
    merging = sorted(set(asked) - set(promised))
    if merging:
        raise PointInUseError(
            f"Cannot verify {', '.join(merging)} of machine {key}: it has expired and is being merged into a newer backup. Verify that one."
        )
    manifests = {point_id: point.manifest for point_id, point in known.items()}
    needed = set(asked)
    for point_id in asked:
        needed.update(chain.ancestors(manifests, point_id))
    return [point_id for point_id in promised if point_id in needed]


def _newest(points: List[Point], key: str) -> List[str]:
    if not points:
        raise InvalidInputError(f"Machine {key} has no backup in this repository; there is nothing to verify.")
    sound = [point for point in points if point.status == "ok"]
    # By generation, which only grows: a clock that was set back changes nothing.
    return [sorted(sound or points, key=lambda point: point.manifest.generation)[-1].manifest.point_id]


def _advance(place: JobPlace, repository: Repository, key: str, state: Dict[str, Any], phase: str) -> Optional[Dict[str, str]]:
    """Verify point after point until one takes long; what is done so far is in ``state``."""
    resumed = phase == "collect"
    while state["todo"]:
        point_id = state["todo"][0]
        child = FollowedChild(place.job, place.client, f"verify-{len(state['points'])}", "checker")
        known = _marked(repository, key)
        outcome = _known_damage(repository, key, point_id) if not resumed else None
        if outcome is None:
            try:
                outcome = _read(place, repository, key, point_id, child, phase, resumed)
            except (PointDamagedError, VerificationFailedError) as error:
                stop_readers(place)
                outcome = _damaged(point_id, error.msg, disk_results({"disks": error.details.get("disks", {})}))
        if outcome is None:
            place.save("verification", state)
            return child.handover()
        resumed = False
        if not outcome["ok"]:
            outcome["damage"] = with_devices(outcome["damage"], _devices(repository, key, point_id))
            repository.mark_damaged(key, point_id, outcome["damage"])
            state["marked"] += [one for one in _marked(repository, key) if one not in known]
        state["points"].append(outcome)
        state["todo"].pop(0)
    return None


def _devices(repository: Repository, key: str, point_id: str) -> Dict[str, str]:
    manifest = repository.get(key, point_id).manifest
    return device_names(manifest.machine, {disk.key: disk.id for disk in manifest.disks})


def _marked(repository: Repository, key: str) -> List[str]:
    return [point.manifest.point_id for point in repository.list(PointFilter(machine_key=key, status="damaged"))]


def _known_damage(repository: Repository, key: str, point_id: str) -> Optional[Result]:
    """What shows without reading data: structure, a damaged point below, or a changed machine description or firmware file."""
    findings = repository.structure_check(key, point_id)
    if not findings:
        try:
            repository.files(key, point_id)
        except PointDamagedError as error:
            return _damaged(point_id, error.msg, [])
        return None
    return _damaged(point_id, "; ".join(f"{finding.disk or 'point'}: {finding.message}" for finding in findings), [])


def _read(
    place: JobPlace, repository: Repository, key: str, point_id: str, child: FollowedChild, phase: str, resumed: bool
) -> Optional[Result]:
    """Read the point's own files and blocks, compare; None while the checker runs."""
    manifest = repository.get(key, point_id).manifest
    if not resumed:
        sizes = {disk.key: disk.size_bytes for disk in manifest.disks}
        images = repository.open_for_read(key, point_id)
        uris = start_readers(place, images, sizes)
        layers = repository.hash_files(key, point_id)
        child.start(
            place.agent_path,
            {
                "disks": [
                    {"key": disk, "uri": uri, "size_bytes": sizes[disk], "hashes": layers[disk], "mode": "all"}
                    for disk, uri in uris.items()
                ],
                "digests": [
                    {"key": disk.key, "path": image_path(images[disk.key]), "algorithm": disk.hash_algorithm} for disk in manifest.disks
                ],
                "options": {},
            },
        )
    status = follow(child, phase)
    if status is None:
        return None
    stop_readers(place)
    disks = disk_results(status)
    recorded = {disk.key: disk.file_digest for disk in manifest.disks}
    changed = [disk["key"] for disk in disks if disk["digest"] != recorded[disk["key"]]]
    if changed:
        return _damaged(point_id, f"the file of {', '.join(changed)} is not the one that was committed (digest)", disks)
    return {"point_id": point_id, "ok": True, "damage": "", "disks": [_disk(disk) for disk in disks]}


def _damaged(point_id: str, damage: str, disks: List[Result]) -> Result:
    return {"point_id": point_id, "ok": False, "damage": damage, "disks": [_disk(disk) for disk in disks]}


def _disk(disk: Result) -> Result:
    names = ("key", "ok", "blocks_checked", "bytes_read", "mismatches", "mismatch_count", "digest", "error")
    return {name: disk.get(name) for name in names}
