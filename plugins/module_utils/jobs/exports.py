# Copyright: (c) 2026, Sendense contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""``nbd_export``: the disks of a backup, or new files, as NBD exports on leased ports of the hub."""

from __future__ import annotations

import os
from dataclasses import asdict
from typing import Any, Dict, List

from ..datapath.export_table import ExportTable
from ..datapath.exports import check_export
from ..datapath.images import create_qcow2, create_raw, qcow2_node, raw_node
from ..datapath.targets import NbdTarget, format_targets
from ..errors import (
    InvalidInputError,
    MachineExistsError,
    PointNotFoundError,
    PortBusyError,
    PortsExhaustedError,
    SendenseError,
)
from ..hubstate.cancelling import cancelled_error, forget_note, read_note
from ..hubstate.jobs import JobDir
from ..hubstate.statedir import StateDir
from ..repositories import registry
from ..repositories._base import NewDisk, NewPoint, Point, PointFilter, Repository
from ..steps import reached
from .auditing import write_samples
from .place import HUB, WRITER, JobPlace, attach, attach_to_end, begin, discard, new_job_id, stop_writers, unbegun, unique_keys
from .point_leases import hold_for_reading
from .serving import start_server

Images = Dict[str, Dict[str, Any]]

#: How many ports are tried for one server before its job is given up.
SERVE_PORTS = 4
#: Seconds that a job with ports in hand waits for one more: briefly, for it keeps others waiting meanwhile.
EXCHANGE_SECONDS = 2.0


def start_for_backup(params: Dict[str, Any]) -> Dict[str, Any]:
    """Create the partial point of an open backup and serve its images for writing."""
    place = attach(params, HUB, params["job_id"])
    opened = place.load("opened")
    repository = registry.open_repository(opened["repository"], place.state.hub_id())
    disks = [_new_disk(disk) for disk in params["disks"]]
    unique_keys(params["disks"])
    key = opened["machine_key"]
    # First the ports: whoever waits for them has made nothing yet, and may ask again.
    ports = lease(place, [disk.key for disk in disks], params)
    order = {"kind": "point", "repository": opened["repository"], "machine_key": key, "job_id": params["job_id"]}
    place.undo_by_release("point", order)
    reached("export:undo-registered")
    try:
        point = repository.create(
            NewPoint(
                machine_key=key,
                job_id=params["job_id"],
                generation=opened["generation"],
                created_at=params["created_at"],
                disks=disks,
                parent_id=params["parent_id"] or "" if any(disk.level != "full" for disk in disks) else "",
                expected_bytes=sum(disk["expected_bytes"] or 0 for disk in params["disks"]),
            )
        )
        place.save("point", asdict(point))
        audited = write_samples(place, repository, params, opened["generation"])
        exports = serve(place, point.images, {disk.key: disk.size_bytes for disk in disks}, ports, params, writable=True)
    except SendenseError:
        discard(place)
        raise
    return dict(_answer(exports), changed=True, point={"id": point.point_id, "parent_id": point.parent_id}, audit=audited)


def _new_disk(disk: Dict[str, Any]) -> NewDisk:
    return NewDisk(
        key=disk["key"],
        disk_id=disk["id"],
        size_bytes=disk["size_bytes"],
        level=disk["level"],
        reason=disk["reason"],
        change_id=disk.get("change_id") or "",
    )


def start_for_restore(params: Dict[str, Any], check_mode: bool) -> Dict[str, Any]:
    """Serve the disks of one committed point read-only; without ``point_id`` the newest sound one."""
    repository = registry.open_repository(params["repository"])
    key = params["machine_key"]
    point = repository.get(key, params["point_id"]) if params["point_id"] else _newest_sound(repository, key)
    if check_mode:
        return dict(_answer([]), **_facts(repository, point), changed=True, job=unbegun(new_job_id()))
    place = begin(params, HUB, params.get("job_id") or new_job_id(), {"machine_key": key, "kind": "restore"})
    try:
        hold_for_reading(place, repository, key, [point.manifest.point_id])
        reached("restore:point-held")
        point = repository.get(key, point.manifest.point_id)  # a merge may have given it another form until now
        facts = _facts(repository, point)
        images = repository.open_for_read(key, point.manifest.point_id)
        wanted = params["only"] or sorted(images)
        unknown = sorted(set(wanted) - set(images))
        if unknown:
            has = ", ".join(sorted(images))
            raise InvalidInputError(f"Point {point.manifest.point_id} has no disk {', '.join(unknown)}; it has {has}.")
        sizes = {disk.key: disk.size_bytes for disk in point.manifest.disks}
        ports = lease(place, wanted, params)
        exports = serve(place, {key: images[key] for key in wanted}, sizes, ports, params, writable=False)
    except SendenseError:
        discard(place)
        raise
    return dict(_answer(exports), **facts, changed=True, job=place.describe())


def _newest_sound(repository: Repository, key: str) -> Point:
    sound = repository.list(PointFilter(machine_key=key, status="ok"))
    if not sound:
        raise PointNotFoundError(
            f"Machine {key} has no sound backup in this repository. playbooks/list.yml lists all of its backups, damaged ones included."
        )
    # By generation, which only grows: a clock that was set back changes nothing.
    return max(sound, key=lambda point: point.manifest.generation)


def _facts(repository: Repository, point: Point) -> Dict[str, Any]:
    manifest = point.manifest
    return {
        "roots": {disk.key: disk.root for disk in manifest.disks},
        "manifest": manifest.to_dict(),
        "nvram_path": repository.files(manifest.machine_key, manifest.point_id).get("nvram", ""),
    }


def start_for_files(params: Dict[str, Any]) -> Dict[str, Any]:
    """Create new image files in a directory and serve them for writing; an existing file is never touched."""
    place = attach(params, HUB, params["job_id"])
    sizes = {disk["key"]: disk["size_bytes"] for disk in params["manifest"]["disks"]}
    keys = params["only"] or sorted(sizes)
    paths = {key: os.path.join(params["directory"], f"{key}.{params['format']}") for key in keys}
    ports = lease(place, keys, params)
    try:
        for path in paths.values():
            if os.path.lexists(path):
                raise MachineExistsError(f"File {path} exists and is not overwritten. Choose an empty directory or remove the file.")
        place.undo_by_release("files", {"kind": "files", "paths": sorted(paths.values())})
        images: Images = {key: _new_file(path, sizes[key], params["format"]) for key, path in paths.items()}
        exports = serve(place, images, sizes, ports, params, writable=True)
    except SendenseError:
        discard(place)
        raise
    return dict(_answer(exports), changed=True, job=place.describe(), paths=paths)


def _new_file(path: str, size_bytes: int, image_format: str) -> Dict[str, Any]:
    os.makedirs(os.path.dirname(path), mode=0o700, exist_ok=True)
    if image_format == "raw":
        create_raw(path, size_bytes)
        return raw_node(path)
    create_qcow2(path, size_bytes)
    return qcow2_node(path)


def lease(place: JobPlace, keys: List[str], params: Dict[str, Any]) -> Dict[str, int]:
    """One port per disk, all or nothing. PortsExhaustedError (retryable) leaves the job as it was."""
    names = _export_names(place, keys)
    ports = place.client.lease_ports([_wanted(place, name, params) for name in names.values()], params["port_wait"])
    reached("export:ports-leased")
    return dict(zip(names, ports))


def _wanted(place: JobPlace, name: str, params: Dict[str, Any]) -> Dict[str, str]:
    return {"machine": _machine(place), "node": params["node"], "export": name}


def _machine(place: JobPlace) -> str:
    return str(place.job.meta().get("machine_key") or "files")


def _export_names(place: JobPlace, keys: List[str]) -> Dict[str, str]:
    return {key: f"{_machine(place)}-{key}" for key in sorted(keys)}


def serve(
    place: JobPlace, images: Images, sizes: Dict[str, int], ports: Dict[str, int], params: Dict[str, Any], writable: bool
) -> List[Dict[str, Any]]:
    """Start one server per image on its leased port, and check every export. A port that turns out busy is exchanged."""
    exports: List[Dict[str, Any]] = []
    for key, name in _export_names(place, list(images)).items():
        child = f"{WRITER}{key}" if writable else f"read-{key}"
        port = _start(place, child, _wanted(place, name, params), images[key], ports[key], writable)
        target = NbdTarget(key=key, transport="tcp", host="127.0.0.1", port=port, socket="", export=name)
        reached(f"export:{key}-started")
        exports.append({"key": key, "port": port, "export": name, "uri": target.uri(), "size_bytes": sizes[key]})
    for export in exports:
        check_export(export["uri"], export["size_bytes"])
    reached("export:checked")
    return exports


def _start(place: JobPlace, child: str, wanted: Dict[str, str], image: Dict[str, Any], port: int, writable: bool) -> int:
    """Start one server; the port that it really has. A lease keeps other jobs of this hub away, but no foreign program."""
    for left in range(SERVE_PORTS - 1, -1, -1):
        record = {"port": port, "machine": wanted["machine"], "export": wanted["export"]}
        try:
            start_server(place.client, child, image, record, writable)
            break
        except PortBusyError as error:
            if not left:
                raise
            port = _exchange(place, wanted, port, error)
    return port


def _exchange(place: JobPlace, wanted: Dict[str, str], busy: int, error: PortBusyError) -> int:
    """Another port instead of a busy one, which is given back only afterwards so that it cannot come again."""
    try:
        port = place.client.lease_ports([wanted], EXCHANGE_SECONDS)[0]
    except PortsExhaustedError as exhausted:
        raise PortBusyError(
            f"Port {busy} is in use by a program outside the port pool, and no other port is free for {wanted['export']}. "
            "Stop that program, run fewer machines at once, or try again later.",
            details=dict(error.details, pool=exhausted.details),
        ) from exhausted
    place.client.release_port(busy)
    return port


def _answer(exports: List[Dict[str, Any]]) -> Dict[str, Any]:
    targets = [NbdTarget(export["key"], "tcp", "127.0.0.1", export["port"], "", export["export"]) for export in exports]
    return {"exports": exports, "nbd_targets_string": format_targets(targets)}


def stop(params: Dict[str, Any]) -> Dict[str, Any]:
    """Stop one export by port, or all exports of a job and the job itself. Stopping what is gone changes nothing."""
    if params.get("port"):
        stopped = ExportTable(StateDir(params["state_dir"])).stop_port(params["port"])
        return {"changed": stopped}
    path = JobDir(StateDir(params["state_dir"]), params["job_id"], HUB).path
    place = attach_to_end(params, HUB, params["job_id"], stop=False, forget=False)
    if place is None:
        taken_back = read_note(path)
        forget_note(path)
        if taken_back and params["state"] == "stopped":
            raise cancelled_error(path)  # what was written is not there
        return {"changed": False}
    if params["state"] == "aborted":
        discard(place)
        return {"changed": True}
    try:
        stop_writers(place)
    except SendenseError:
        discard(place)
        raise
    place.client.finish()
    return {"changed": True}
