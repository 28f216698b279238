# Copyright: (c) 2026, Sendense contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""``nbd_copy``: run the mover at the node over all disks of a machine."""

from __future__ import annotations

import os
from typing import Any, Dict, List, Tuple

from ..datapath.blockhashes import BlockHashFile, compose
from ..datapath.mover_plan import DiskJob, MoverOptions, check_jobs, record
from ..datapath.targets import parse_targets
from ..errors import InvalidInputError, SendenseError, TrackingLiedError, VerificationFailedError
from ..steps import reached
from .caps import caps
from .following import FollowedChild, disk_results, failed_result, follow
from .forwarding import explain_way
from .place import JobPlace, attach
from .tunnelling import carry, explain


def copy_disks(params: Dict[str, Any], check_mode: bool) -> Dict[str, Any]:
    """Start or collect the mover. A failure raises with one result per disk in ``details.disks``."""
    sources = params["sources"]
    targets = {target.key: target for target in parse_targets(params["nbd_targets"], expected=len(sources))}
    missing = sorted(source["key"] for source in sources if source["key"] not in targets)
    if missing:
        raise InvalidInputError(f"nbd_targets has no target for {', '.join(missing)}; it must name every disk of the machine.")
    options, audits = _options(params), (params.get("audit") or {}).get("files") or {}
    record(MoverOptions, options, "options").check()
    planned = [_disk_job(source, targets[source["key"]].uri(), "", audits.get(source["key"], "")) for source in sources]
    check_jobs([record(DiskJob, disk, "disk") for disk in planned])
    if check_mode:
        return {"changed": True, "disks": []}
    place = attach(params, params["role"], params["job_id"])
    child = FollowedChild(place.job, place.client, "copy", "mover")
    if params["phase"] != "collect":
        read, written = _ends(place, params["at_hub"], sources, {key: target.uri() for key, target in targets.items()})
        disks = [
            _disk_job(dict(source, uri=read[source["key"]]), written[source["key"]], place.job.path, audits.get(source["key"], ""))
            for source in sources
        ]
        child.start(place.agent_path, {"disks": disks, "options": options})
        reached("copy:started")
    try:
        status = follow(child, params["phase"])
    except SendenseError as failure:
        error = explained(place, failure)
        error.details["disks"] = failed_result(error)["disks"]
        error.details["lies"] = _lies(error.details["disks"], sources)
        raise error from failure
    if status is None:
        return {"changed": True, "following": child.handover()}
    for disk in disk_results(status):
        _check_root(disk, params["expected_roots"].get(disk["key"], ""))
    reached("copy:done")
    return {"changed": True, "disks": disk_results(status), "totals": _totals(status)}


def explained(place: JobPlace, failure: SendenseError) -> SendenseError:
    """Why a copy failed: the loss of what its data went through, if that is it and can still be told; else the failure as it is."""
    try:
        return explain(place, explain_way(place, failure))
    except SendenseError:
        return failure  # the keeper is gone, too, which says less


def _ends(place: JobPlace, at_hub: str, sources: List[Dict[str, Any]], written: Dict[str, str]) -> Tuple[Dict[str, str], Dict[str, str]]:
    """URIs to read and to write, by disk key; those of the hub through the job's tunnel if it has one."""
    read = {source["key"]: source["uri"] for source in sources}
    sizes = {source["key"]: source["size_bytes"] for source in sources}
    if at_hub == "sources":
        return carry(place, read, sizes), written
    return read, carry(place, written, sizes)


def _check_root(disk: Dict[str, Any], expected: str) -> None:
    """What a restore read must be what the backup's manifest promises."""
    if not expected:
        return
    with BlockHashFile(disk["hashes"]) as hashes:
        found = compose([hashes]).root()
    if found != expected:
        raise VerificationFailedError(
            f"The blocks read of {disk['key']} are not those that were backed up (root {found}, manifest {expected}). "
            "Nothing was restored; verify the backup and restore an earlier one.",
            details={"disk": disk["key"], "root": found, "expected": expected},
            retryable=False,
        )


def _lies(disks: List[Dict[str, Any]], sources: List[Dict[str, Any]]) -> List[Dict[str, Any]]:
    """What the hub needs to know to find the points that have wrong blocks, per disk about which change tracking lied."""
    ids = {source["key"]: source.get("id") or "" for source in sources}
    errors = {disk["key"]: disk.get("error") or {} for disk in disks}
    found = {key: error["details"] for key, error in errors.items() if error.get("error_code") == TrackingLiedError.error_code}
    return [
        {"disk_id": ids[key], "count": lie["count"], "blocks": lie["mismatches"], "complete": lie["complete"]} for key, lie in found.items()
    ]


def _disk_job(source: Dict[str, Any], target_uri: str, job_path: str, audit_path: str) -> Dict[str, Any]:
    return {
        "key": source["key"],
        "source_uri": source["uri"],
        "target_uri": target_uri,
        "level": source["level"],
        "changed_context": source.get("changed_context") or "",
        "changed_flag": source.get("changed_flag") or 1,
        "size_bytes": source["size_bytes"],
        "hashes_path": os.path.join(job_path, f"{source['key']}.hashes"),
        "audit_path": audit_path,
    }


def _options(params: Dict[str, Any]) -> Dict[str, Any]:
    return dict(caps(params), hash_algorithm=params["hash_algorithm"], stall_seconds=params["stall_seconds"])


def _totals(status: Dict[str, Any]) -> Dict[str, Any]:
    disks: List[Dict[str, Any]] = list(status.get("disks", {}).values())
    totals = {name: sum(int(disk.get(name) or 0) for disk in disks) for name in ("bytes_read", "bytes_written", "bytes_zeroed")}
    seconds = max([float(disk.get("seconds") or 0) for disk in disks] or [0.0])
    return dict(totals, seconds=seconds, rate=int(totals["bytes_read"] / seconds) if seconds else 0)
