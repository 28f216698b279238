# Copyright: (c) 2026, Sendense contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The target's half of a restore: create a machine's disks, serve them for writing, define the machine."""

from __future__ import annotations

import os
from typing import Any, Dict, List

from ..datapath.exports import check_export
from ..datapath.targets import NbdTarget, format_targets
from ..errors import InvalidInputError, KeeperFailedError, SendenseError, TargetFailedError
from ..model import Machine
from ..platforms import registry
from ..platforms._base import PreparedMachine, TargetRequest
from ..steps import reached
from .caps import require_caps
from .place import NODE, WRITER, JobPlace, attach, attach_to_end, await_end, begin, discard, stop_writers
from .serving import start_server
from .tunnelling import dig, needed, rehearsed


def request_of(params: Dict[str, Any]) -> TargetRequest:
    """The module's arguments as the target's contract wants them."""
    if not params["manifest"]:
        raise InvalidInputError("manifest is empty: give the manifest that nbd_export returned for the point to restore.")
    manifest = params["manifest"]
    machine = Machine.from_dict(manifest["machine"])
    saved = {disk["id"] for disk in manifest["disks"]}
    machine.disks = [disk for disk in machine.disks if disk.id in saved]
    keys = {disk["id"]: disk["key"] for disk in manifest["disks"]}
    for disk in machine.disks:
        disk.key = keys[disk.id]
    return TargetRequest(
        machine=machine,
        job_id=params["job_id"],
        name=params["name"],
        storage=params["storage"],
        point_id=manifest["point_id"],
        disks=params["disks"],
        networks=params["networks"],
        keep_mac=params["keep_mac"],
        nvram_path=params["nvram_path"] or "",
        format=params["format"],
    )


def prepare(params: Dict[str, Any], check_mode: bool) -> Dict[str, Any]:
    """Create the empty disks and serve them; ``existing_id`` in the result: this very restore was already done."""
    require_caps(params)
    request = request_of(params)
    with registry.target(params["platform"], params["connection"]) as target:
        existing = target.check(request)
        options = None if existing else needed(params)
        if existing or check_mode:
            way = rehearsed(options)
            return {"changed": not existing, "existing_id": existing, "machine_id": existing, "nbd_targets_string": "", "tunnel": way}
        place = begin(params, NODE, params["job_id"], {"machine_key": params["manifest"]["machine_key"], "kind": "restore"})
        try:
            place.hold(f"restore-{params['platform']}-{request.point_id}-{params['job_id']}", f"restore {params['job_id']}")
            way = dig(place, options)
            order = {"kind": "machine", "platform": params["platform"], "connection": params["connection"]}
            # Before the first file is made: this process may be killed between any two of them.
            place.undo_by_release("machine", dict(order, prepared=target.planned(request).to_dict()))
            prepared = target.prepare(request)
            place.undo_by_release("machine", dict(order, prepared=prepared.to_dict()))
            reached("restore:prepared")
            place.save("prepared", prepared.to_dict())
            targets = _serve(place, prepared)
        except SendenseError:
            discard(place)
            raise
    return {
        "changed": True,
        "existing_id": "",
        "machine_id": "",
        "job": place.describe(),
        "tunnel": way,
        "nbd_targets_string": format_targets(targets),
        "disks": [{"key": disk.key, "path": disk.path, "size_bytes": disk.size_bytes} for disk in prepared.disks],
    }


def _serve(place: JobPlace, prepared: PreparedMachine) -> List[NbdTarget]:
    targets = []
    for disk in prepared.disks:
        socket = os.path.join(place.job.path, f"restore-{disk.key}.sock")
        target = NbdTarget(key=disk.key, transport="unix", host="", port=0, socket=socket, export=disk.key)
        if disk.image is not None:
            record = {"machine": prepared.job_id, "export": disk.key, "socket": socket}
            start_server(place.client, f"{WRITER}{disk.key}", disk.image, record, writable=True)
        check_export(target.uri(), disk.size_bytes)
        targets.append(target)
    return targets


def finish(params: Dict[str, Any], check_mode: bool) -> Dict[str, Any]:
    """Stop the servers, compare roots, define the machine, start it if asked."""
    if check_mode:
        return {"changed": True, "machine_id": ""}
    place = attach(params, NODE, params["job_id"])
    request = request_of(params)
    prepared = PreparedMachine.from_dict(place.load("prepared"))
    try:
        stop_writers(place)
        with registry.target(params["platform"], params["connection"]) as target:
            machine = target.finish(request, prepared)
            started = target.power_on(machine.id) if params["power_on"] else False
        place.client.undo_remove("machine")
    except SendenseError:
        discard(place)
        _destroy(params, place, prepared)
        raise
    place.finish()
    return {"changed": True, "machine_id": machine.id, "machine": machine.to_dict(), "started": started}


def _destroy(params: Dict[str, Any], place: JobPlace, prepared: PreparedMachine) -> None:
    """Once more after the keeper: it may have undone the machine just before it was defined."""
    try:
        await_end(place.job, place.client)
    except KeeperFailedError:
        pass  # it hangs, so it does not disturb; its undo, once it runs again, finds nothing
    with registry.target(params["platform"], params["connection"]) as target:
        target.destroy(prepared)


def discard_restore(params: Dict[str, Any], check_mode: bool) -> Dict[str, Any]:
    """Take an unfinished restore back: its disks, its servers, nothing else."""
    if check_mode:
        return {"changed": False}
    place = attach_to_end(params, NODE, params["job_id"], stop=False)
    if place is None:
        return {"changed": False}
    discard(place)
    return {"changed": True}


def power(params: Dict[str, Any], check_mode: bool) -> Dict[str, Any]:
    """Start or stop a machine; a machine that already is as asked changes nothing."""
    wanted_on = params["state"] == "started"
    with registry.target(params["platform"], params["connection"]) as target:
        if check_mode:
            with registry.source(params["platform"], params["connection"]) as source:
                running = source.machine(params["machine_id"]).power == "running"
            return {"changed": running != wanted_on, "machine_id": params["machine_id"]}
        try:
            changed = target.power_on(params["machine_id"]) if wanted_on else target.power_off(params["machine_id"])
        except TargetFailedError as error:
            text = f"{error.msg} The machine and its disks stay as they are; mend the cause and run the same again."
            raise TargetFailedError(text, details=error.details) from error
        return {"changed": changed, "machine_id": params["machine_id"]}
