# Copyright: (c) 2026, Sendense contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The hub's half of the audit of change tracking: the blocks to look at, and what a lie means for the points that exist."""

from __future__ import annotations

import os
from contextlib import ExitStack
from dataclasses import asdict
from typing import Any, Dict, List, Sequence, Tuple

from ..catalog import audit, chain
from ..catalog.manifest import Manifest
from ..datapath.blockhashes import INCREMENTAL, BlockHashFile, BlockHashWriter, compose
from ..datapath.extents import pieces
from ..repositories._base import PointFilter, Repository
from ..steps import reached
from .place import JobPlace


def write_samples(place: JobPlace, repository: Repository, params: Dict[str, Any], generation: int) -> Dict[str, Any]:
    """Choose the blocks that this run audits, and write them with the parent's digests into the job's directory.

    The answer names one file per disk; it has none if no disk is incremental. PointDamagedError, CopyFailedError.
    """
    sizes = {disk["key"]: disk["size_bytes"] for disk in params["disks"] if disk["level"] == INCREMENTAL}
    key = str(place.job.meta()["machine_key"])
    turn = audit.next_turn((point.manifest for point in repository.list(PointFilter(machine_key=key))), generation)
    if not sizes:
        return _keep(place, audit.Order(False, "", {}), {}, {}, turn)
    parent = repository.get(key, params["parent_id"]).manifest
    ids = {disk["key"]: disk["id"] for disk in params["disks"]}
    by_id = {disk["id"]: disk["size_bytes"] for disk in params["disks"]}
    happened = audit.events(parent, params.get("incarnation") or {}, by_id)
    order = audit.decide(audit.Policy(**(params.get("audit") or {})), happened, sizes)
    layers = repository.hash_files(key, parent.point_id) if order.counts else {}
    files = {}
    for disk_key, count in sorted(order.counts.items()):
        disk = parent.disk(ids[disk_key])
        if disk is not None:
            files[disk_key] = os.path.join(place.job.path, f"audit-{disk_key}.hashes")
            with place.beating():
                _write(files[disk_key], layers[disk.key], count, turn, f"{key}/{disk.id}")
    # On also after an audit that fails: a window with a block that cannot be read must not be the last one.
    return _keep(place, order, files, audit.incarnation(parent.versions), turn + bool(files))


def _keep(place: JobPlace, order: audit.Order, files: Dict[str, str], before: Dict[str, str], turn: int) -> Dict[str, Any]:
    place.save("audit", {"order": asdict(order), "before": before, "turn": turn})
    return {"in_full": order.in_full, "reason": order.reason, "files": files}


def _write(path: str, layers: Sequence[str], count: int, turn: int, seed: str) -> None:
    with ExitStack() as stack:
        whole = compose([stack.enter_context(BlockHashFile(layer)) for layer in layers])
    runs = audit.walk(whole.block_count, count, turn, seed)
    writer = BlockHashWriter(path, whole.algorithm, whole.disk_size, INCREMENTAL, runs)
    position = 0
    for first, blocks in pieces(runs):  # all digests of a large disk at once would be a quarter of a gigabyte per TiB
        writer.put(position, whole.digests(first, blocks))
        position += blocks
    writer.finish()


def outcome(place: JobPlace, copied: Sequence[Dict[str, Any]], incarnation: Dict[str, str]) -> Tuple[Dict[str, Any], Dict[str, str]]:
    """What the audit of this run came to, and what the manifest's ``versions`` say of it.

    If an audit in full is due and was not completed, the parent's incarnation is kept, so that it stays due.
    """
    kept = place.load("audit")
    order = kept["order"]
    audits = [disk["audit"] for disk in copied if disk.get("audit")]
    failed = [one["error"]["msg"] for one in audits if one.get("error")]
    checked = sum(int(one["blocks_checked"]) for one in audits)
    result = {"in_full": order["in_full"], "reason": order["reason"], "blocks_checked": checked, "failed": failed}
    complete = len(audits) == len(order["counts"]) and not failed
    due = order["in_full"] and order["reason"] != audit.REQUESTED and not complete
    versions = audit.kept_incarnation(kept["before"] if due else incarnation)
    versions[audit.NEXT_TURN] = str(kept["turn"])
    if audits:
        versions[audit.AUDITED] = audit.ALL if order["in_full"] and complete else audit.SAMPLE
    return result, {name: text for name, text in versions.items() if text}


def condemn(repository: Repository, key: str, parent_id: str, lies: List[Dict[str, Any]]) -> Dict[str, Any]:
    """Mark every point that has a wrong block on a lie's word, and let nothing be built on the point that the job stood on.

    Repetition changes nothing. PointNotFoundError, PointDamagedError (the chain below is broken), RepositoryIoError.
    """
    blocks = sum(int(lie["count"]) for lie in lies)
    reason = f"an audit found {blocks} blocks changed that change tracking had not reported"
    marked: List[str] = []
    # In this order: after a full that a distrust asked for, nobody would find again what has not been marked.
    try:
        for suspect in [*_suspects(repository, key, parent_id, lies), *_built_meanwhile(repository, key, parent_id, lies)]:
            marked += repository.mark_damaged(key, suspect, f"{reason}: this point took at least one of them from the point before it")
        reached("condemn:marked")
    finally:
        repository.distrust(key, parent_id, reason)
    return {"parent_id": parent_id, "blocks": blocks, "marked": sorted(marked), "disks": [lie["disk_id"] for lie in lies]}


def _built_meanwhile(repository: Repository, key: str, parent_id: str, lies: List[Dict[str, Any]]) -> List[str]:
    """Points that stand on the parent by the same change tracking: another run came first, after this one had lost its lease."""
    lied = {lie["disk_id"] for lie in lies}
    children = [point.manifest for point in repository.list(PointFilter(machine_key=key)) if point.manifest.parent_id == parent_id]
    return [child.point_id for child in children if any(disk.id in lied and disk.level == INCREMENTAL for disk in child.disks)]


def _suspects(repository: Repository, key: str, parent_id: str, lies: List[Dict[str, Any]]) -> List[str]:
    """The oldest suspect of each disk, the oldest first: a mark on it counts for all that stands on it at once."""
    listed = repository.list(PointFilter(machine_key=key))
    manifests = {point.manifest.point_id: point.manifest for point in listed if point.manifest.schema_version > 0}
    files = repository.hash_files(key, parent_id)
    return sorted(filter(None, (_suspect(manifests, files, parent_id, lie) for lie in lies)))


def _suspect(manifests: Dict[str, Manifest], files: Dict[str, List[str]], parent_id: str, lie: Dict[str, Any]) -> str:
    """The oldest point that has one of the blocks wrong, as far as can be told; empty if none has."""
    layers = chain.disk_layers(manifests, parent_id, lie["disk_id"])
    ids = [point_id for point_id, _disk in layers]
    with ExitStack() as stack:
        hashes = [stack.enter_context(BlockHashFile(path)) for path in files[layers[-1][1].key]]
        versions = [manifests[point_id].versions for point_id in ids]
        # What a merge or a synthetic full made of several points has not read all of it from the source itself.
        read = [audit.COMPOSED_AT not in one for one in versions]
        proved = [at for at, one in enumerate(versions) if one.get(audit.AUDITED) == audit.ALL]
        floor = max([0 if read[0] else -1, *proved])
        trusted = [] if lie["complete"] else [floor]
        for block in lie["blocks"]:
            positions = (at for at in range(len(hashes) - 1, floor, -1) if read[at] and hashes[at].holds(block))
            trusted.append(next(positions, floor))
    return audit.first_suspect(ids, trusted)
