# Copyright: (c) 2026, Sendense contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The hub's half of a backup: open the job, commit what was copied, or take it back."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any, Dict

from ..catalog import decision
from ..errors import KeeperFailedError, SendenseError
from ..model import machine_key
from ..repositories import registry
from ..repositories._base import OpenPoint, PointFilter, Repository
from ..repositories.seal import Sealing, seal
from ..steps import reached
from .auditing import condemn, outcome
from .following import FollowedChild, disk_results, follow
from .place import HUB, JobPlace, attach, attach_to_end, begin, discard, new_job_id, stop_writers, unbegun
from .reading import image_path, start_readers, stop_readers


def lease_name(owner: str, key: str) -> str:
    """The hub's lease on one machine in one repository."""
    return f"backup-{owner}-{key}"


def open_backup(params: Dict[str, Any], check_mode: bool) -> Dict[str, Any]:
    """Take the machine's lease, raise its generation, and say what the next backup can stand on."""
    repository = registry.open_repository(params["repository"])
    identity = repository.identity()
    key = machine_key(params["platform"], params["machine_id"])
    facts = {
        "repository": {"id": identity["repository_id"], "owner": identity["owner"], "path": params["repository"]["path"]},
        "hash_algorithm": identity["hash_algorithm"],
        "machine_key": key,
        "changed": True,
    }
    if check_mode:
        return dict(facts, **_previous(repository, key, params), job=unbegun(new_job_id()))
    place = begin(params, HUB, params.get("job_id") or new_job_id(), {"machine_key": key, "kind": "backup"})
    try:
        place.hold(lease_name(identity["owner"], key), f"machine {params['machine_id']} in repository {identity['repository_id']}")
        reached("open:leased")
        for stale in repository.partials(key):
            repository.abort(key, stale.job_id)
        generation = repository.raise_generation(key)
        # Not before the lease: a run that was just ending may have found that nothing is to be built on its parent.
        previous = _previous(repository, key, params)
    except SendenseError:
        discard(place)
        raise
    # From here on it must be this very repository, also if none was asked for by its id.
    pinned = dict(params["repository"], id=identity["repository_id"])
    place.save("opened", {"machine_key": key, "generation": generation, "repository": pinned})
    reached("open:saved")
    return dict(facts, **previous, job=dict(place.describe(), generation=generation))


def _previous(repository: Repository, key: str, params: Dict[str, Any]) -> Dict[str, Any]:
    points = repository.list(PointFilter(machine_key=key))
    choice = decision.choose_previous(points, requested_full=params["full"], max_depth=params["max_chain_depth"])
    space = repository.space()
    room = max(0, space.free_bytes - params["repository"]["reserve_bytes"])
    return {
        "parent_id": choice.point_id,
        "previous": [_previous_disk(disk) for disk in choice.disks or []],
        "full_reason": choice.reason,
        "known_change_ids": decision.known_change_ids(points),
        "room_bytes": room,
    }


def _previous_disk(disk: decision.PreviousDisk) -> Dict[str, Any]:
    return {"id": disk.disk_id, "size_bytes": disk.size_bytes, "change_id": disk.change_id}


def commit_backup(params: Dict[str, Any], check_mode: bool) -> Dict[str, Any]:
    """Stop the servers, make all durable, re-read, compare, publish. ``following`` in the result: call again."""
    if check_mode:
        return {"changed": True}
    place = attach(params, HUB, params["job"]["id"])
    opened = place.load("opened")
    repository = registry.open_repository(opened["repository"])
    point = OpenPoint(**place.load("point"))
    child = FollowedChild(place.job, place.client, "verify", "checker")
    try:
        if params["phase"] != "collect":
            stop_writers(place)
            reached("commit:writers-stopped")
            _start_reread(place, repository, point, params, child, str(repository.identity()["hash_algorithm"]))
            reached("commit:reread-started")
        status = follow(child, params["phase"])
        if status is None:
            return {"changed": True, "following": child.handover()}
        reached("commit:reread-done")
        stop_readers(place)
        committed = _publish(place, repository, point, params, status)
    except SendenseError:
        discard(place)
        raise
    reached("commit:published")
    place.finish()  # a cancel comes too late now: the point is published
    reached("commit:finished")
    return dict(committed, changed=True)


def _start_reread(
    place: JobPlace, repository: Repository, point: OpenPoint, params: Dict[str, Any], child: FollowedChild, algorithm: str
) -> None:
    """Fresh processes read back, past the page cache where possible, what the writers stored; files are digested on the way."""
    with place.beating():
        images = repository.reread_images(point)
    sizes = {disk["key"]: disk["size_bytes"] for disk in params["snapshot"]["disks"]}
    uris = start_readers(place, images, sizes)
    disks = [
        {"key": key, "uri": uri, "size_bytes": sizes[key], "hashes": [params["files"][key]], "mode": "held"}
        for key, uri in sorted(uris.items())
    ]
    digests = [{"key": key, "path": image_path(image), "algorithm": algorithm} for key, image in sorted(images.items())]
    child.start(place.agent_path, {"disks": disks, "options": {}, "digests": digests})


def _publish(place: JobPlace, repository: Repository, point: OpenPoint, params: Dict[str, Any], status: Dict[str, Any]) -> Dict[str, Any]:
    direct = repository.capabilities().direct_reread
    audited, versions = outcome(place, params["copy"]["disks"], params["snapshot"].get("incarnation") or {})
    sealing = Sealing(
        snapshot=params["snapshot"],
        copied={disk["key"]: disk for disk in params["copy"]["disks"]},
        hashes={key: path for key, path in params["files"].items() if key.startswith("disk")},
        digests={disk["key"]: disk["digest"] for disk in disk_results(status)},
        nvram_path=params["files"].get("nvram", ""),
        verified_method="direct" if direct else "cached",
        verified_reason="" if direct else "the file system of the repository does not support direct reads",
        versions=versions,
    )
    with place.beating():
        committed = repository.commit(point, seal(repository, point, sealing))
    manifest = committed.manifest
    return {
        "point": {
            "id": manifest.point_id,
            "machine_key": manifest.machine_key,
            "level": manifest.level,
            "parent_id": manifest.parent_id,
            "created_at": manifest.created_at,
            "consistency": manifest.consistency,
            "verified": manifest.verified,
        },
        "disks": [
            dict(asdict(disk), blocks_checked=checked.get("blocks_checked", 0))
            for disk, checked in zip(manifest.disks, disk_results(status))
        ],
        "known_change_ids": [disk.change_id for disk in manifest.disks if disk.change_id],
        "audit": audited,
    }


def abort_backup(params: Dict[str, Any], check_mode: bool) -> Dict[str, Any]:
    """Take the job back. ``committed`` in the result is True if its point was published after all."""
    repository = registry.open_repository(params["repository"])
    key = machine_key(params["platform"], params["machine_id"])
    job_id = params["job"]["id"]
    if check_mode:
        return dict(_fate(repository, key, job_id), changed=False, lie={})
    try:
        # First of all: whatever happens from here on, no incremental is built on what cannot be trusted.
        lie = condemn(repository, key, params["parent_id"], params["lies"]) if params.get("lies") else {}
        place = attach_to_end(params, HUB, job_id)
        reached("abort:children-stopped")
        removed = repository.abort(key, job_id)
    except KeeperFailedError:
        raise  # it hangs: only itself can give its job up, and does so as soon as it runs again
    except SendenseError:
        _give_up(params, job_id)
        raise
    reached("abort:partial-removed")
    if place is not None:
        place.finish()
    return dict(_fate(repository, key, job_id), changed=removed or place is not None or bool(lie), lie=lie)


def _give_up(params: Dict[str, Any], job_id: str) -> None:
    """The storage is gone or fails: the job's servers, ports and leases do not wait for it. What is left to undo, cleanup undoes."""
    try:
        discard(attach(params, HUB, job_id))
    except SendenseError:
        return  # it has ended, or its keeper is ending it


def _fate(repository: Repository, key: str, job_id: str) -> Dict[str, Any]:
    points = repository.list(PointFilter(machine_key=key))
    committed = any(point.manifest.job_id == job_id for point in points)
    return {"committed": committed, "known_change_ids": decision.known_change_ids(points)}
