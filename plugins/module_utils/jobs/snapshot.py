# Copyright: (c) 2026, Sendense contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The node's half of a backup: one snapshot of all disks, its exports, its end."""

from __future__ import annotations

import os
from dataclasses import asdict
from functools import partial
from typing import Any, Dict, List, Optional

from ..datapath.exports import check_export
from ..errors import KeeperFailedError, RepositoryFullError, SendenseError
from ..hubstate.statedir import StateDir
from ..model import machine_key
from ..platforms import registry
from ..platforms._base import PreviousDisk, Snapshot, SnapshotPlan, SnapshotRequest, Source
from ..platforms.bounded import CLOSING_SECONDS, OPENING_SECONDS, nothing, within
from ..steps import reached
from .caps import require_caps
from .cleanup import clean_machine
from .forwarding import lead
from .place import NODE, JobPlace, attach, attach_to_end, begin, discard
from .serving import start_server
from .tunnelling import dig, needed, rehearsed

#: What it means for the source if a snapshot could not be opened or ended in time.
LEFT = "Its backup job and checkpoint may stay until it answers again: then the undo of this job, the next backup or a clean-up ends them."


def request_of(params: Dict[str, Any], work_dir: str = "") -> SnapshotRequest:
    """The module's arguments as the source's contract wants them."""
    previous: Optional[List[PreviousDisk]] = None
    if params.get("previous"):
        previous = [PreviousDisk(disk["id"], disk["size_bytes"], disk.get("change_id") or "") for disk in params["previous"]]
    return SnapshotRequest(
        machine_id=params["machine_id"],
        job_id=params["job_id"],
        owner=params["owner"],
        previous=previous,
        full_reason=params.get("full_reason") or "no_previous_backup",
        known_change_ids=params.get("known_change_ids") or [],
        consistency=params["consistency"],
        allow_downgrade=params["allow_downgrade"],
        skip_excluded_disks=params["skip_excluded_disks"],
        work_dir=work_dir,
    )


def plan_result(plan: SnapshotPlan) -> Dict[str, Any]:
    """A plan as a task result."""
    devices = {disk.key: disk.device for disk in plan.machine.disks}
    return {
        "disks": [dict(asdict(disk), device=devices.get(disk.key, "")) for disk in plan.disks],
        "expected_bytes": plan.expected_bytes,
        "consistency": plan.consistency,
        "skipped_disks": plan.skipped_disks,
        "warnings": plan.warnings,
    }


def open_snapshot(params: Dict[str, Any], check_mode: bool) -> Dict[str, Any]:
    """Plan, refuse what cannot fit, snapshot all disks at once. In check mode only the plan."""
    registry.source(params["platform"], params["connection"])  # not connected: refuses what cannot be meant before anything begins
    require_caps(params)
    options = needed(params)
    name = f"machine {params['machine_id']}"
    planning = f"Planning the backup of {name}"
    if check_mode:
        plan = SnapshotPlan.from_dict(within(OPENING_SECONDS, planning, partial(_plan, params)))
        return {"changed": True, "plan": plan_result(plan), "tunnel": rehearsed(options)}
    key = machine_key(params["platform"], params["machine_id"])
    place = begin(params, NODE, params["job_id"], {"machine_key": key, "kind": "backup"})
    try:
        place.hold(f"source-{key}", name)
        way = dig(place, options)
        look = partial(_clean_and_plan, params, place.state)
        plan = SnapshotPlan.from_dict(within(OPENING_SECONDS, planning, look, meanwhile=place.beat))
        reached("snapshot:planned")
        place.undo_by_release("snapshot", _release_order(params))
        reached("snapshot:undo-registered")
        opening = partial(_open, params, request_of(params, place.job.path), plan)
        data = within(OPENING_SECONDS, f"Opening the snapshot of {name}", opening, LEFT, meanwhile=place.beat)
        reached("snapshot:opened")
    except SendenseError:
        discard(place)
        raise
    snapshot = Snapshot.from_dict(data)
    place.save("snapshot", snapshot.to_dict())
    data = snapshot.to_dict()
    wanted = ("key", "size_bytes", "level", "reason", "change_id", "expected_bytes")
    disks = [dict({name: disk[name] for name in wanted}, id=disk["disk_id"]) for disk in data["disks"]]
    return {"changed": True, "plan": plan_result(plan), "snapshot": data, "disks": disks, "job": place.describe(), "tunnel": way}


def _release_order(params: Dict[str, Any]) -> Dict[str, Any]:
    names = ("platform", "connection", "machine_id", "job_id", "owner")
    order = {name: params[name] for name in names}
    return dict(order, kind="snapshot", repository=params.get("repository"))


def _plan(params: Dict[str, Any]) -> Dict[str, Any]:
    with registry.source(params["platform"], params["connection"]) as source:
        return _checked_plan(source, params).to_dict()


def _clean_and_plan(params: Dict[str, Any], state: StateDir) -> Dict[str, Any]:
    with registry.source(params["platform"], params["connection"]) as source:
        clean_machine(source, params["machine_id"], state, params["owner"], params["known_change_ids"], check_mode=False)
        return _checked_plan(source, params).to_dict()


def _open(params: Dict[str, Any], request: SnapshotRequest, plan: SnapshotPlan) -> Dict[str, Any]:
    with registry.source(params["platform"], params["connection"]) as source:
        return source.open_snapshot(request, plan).to_dict()


def _checked_plan(source: Source, params: Dict[str, Any]) -> SnapshotPlan:
    """The source's decision, refused here if the repository cannot hold what it may read."""
    plan = source.plan(request_of(params))
    room = params.get("max_bytes")
    if room is not None and plan.expected_bytes > room:
        raise RepositoryFullError(
            f"The backup of machine {plan.machine.id} may need {plan.expected_bytes} bytes and the repository has {room} to spare. "
            "Free space or choose another repository; nothing was touched.",
            details={"expected_bytes": plan.expected_bytes, "room_bytes": room},
        )
    return plan


def start_exports(params: Dict[str, Any]) -> Dict[str, Any]:
    """Serve what the platform does not serve itself, then check every export: name, size, a second connection."""
    place = attach(params, NODE, params["job_id"])
    snapshot = Snapshot.from_dict(place.load("snapshot"))
    sources = []
    changed = lead(place, snapshot.forwards)
    for disk in snapshot.disks:
        uri = disk.uri
        if disk.image is not None:
            uri, started = _serve(place, snapshot, disk)
            changed = changed or started
        check_export(uri, disk.size_bytes)
        source = {name: getattr(disk, name) for name in ("key", "size_bytes", "level", "changed_context", "changed_flag")}
        sources.append(dict(source, uri=uri, id=disk.disk_id))
    reached("serve:checked")
    return {"changed": changed, "sources": sources}


def _serve(place: JobPlace, snapshot: Snapshot, disk: Any) -> Any:
    name = f"source-{disk.key}"
    socket = os.path.join(place.job.path, f"{disk.key}.sock")
    uri = f"nbd+unix:///{disk.export}?socket={socket}"
    if place.client.child(name)["state"] == "running":
        return uri, False
    record = {"machine": snapshot.machine.key, "export": disk.export, "socket": socket}
    start_server(place.client, name, disk.image, record, bitmap=disk.image_bitmap)
    return uri, True


def stop_exports(params: Dict[str, Any]) -> Dict[str, Any]:
    """Stop the servers that ``start_exports`` started; the platform's own end with the snapshot."""
    place = attach_to_end(params, NODE, params["job_id"], stop=False)
    if place is None:
        return {"changed": False}
    names = [name for name in place.client.ping()["children"] if name.startswith("source-")]
    place.client.stop_all(names)
    return {"changed": bool(names)}


def close_snapshot(params: Dict[str, Any], check_mode: bool) -> Dict[str, Any]:
    """End the snapshot of a job. Repetition, and a keeper that is already dead, are fine.

    PlatformUnreachableError if the machine hangs: then its keeper, and after it the clean-up, goes on trying. A keeper that hangs
    is KeeperFailedError, but the machine's snapshot is ended all the same.
    """
    if check_mode:
        return {"changed": True, "removed": []}
    hung: Optional[KeeperFailedError] = None
    place: Optional[JobPlace] = None
    try:
        place = attach_to_end(params, NODE, params["job_id"])
    except KeeperFailedError as error:
        hung = error
    if place is not None:
        reached("close:children-stopped")
    doing = f"Ending the snapshot of machine {params['machine_id']}"
    removed = within(CLOSING_SECONDS, doing, partial(_close, params), LEFT, meanwhile=nothing if place is None else place.beat)
    reached("close:source-closed")
    if hung is not None:
        hung.details["removed"] = removed
        raise hung
    if place is not None:
        place.finish()
        reached("close:finished")
    key = machine_key(params["platform"], params["machine_id"])
    return {"changed": bool(removed) or place is not None, "removed": removed, "machine_key": key}


def _close(params: Dict[str, Any]) -> List[str]:
    with registry.source(params["platform"], params["connection"]) as source:
        return source.close_snapshot(
            params["machine_id"], params["job_id"], params["owner"], params["committed"], params.get("known_change_ids") or []
        )
