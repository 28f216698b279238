# Copyright: (c) 2026, Sendense contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What is wrong with a repository: the storage itself, damaged and unreadable points, partials and merges of dead jobs."""

from __future__ import annotations

import os
import time
from typing import Any, Dict, FrozenSet, List, Tuple

from ...catalog.times import utc_from_seconds
from ...errors import (
    LeaseHeldError,
    PointDamagedError,
    RepositoryIoError,
    RepositoryMismatchError,
    RepositoryMissingError,
    SchemaUnknownError,
    SendenseError,
)
from ...hubstate.jobs import list_jobs
from ...hubstate.locks import FileLease
from ...hubstate.statedir import StateDir
from ...repositories._base import Point, PointFilter, Repository
from ..backup import lease_name
from .damage import damaged, distrusted, faults, still_wrong
from .kinds import Diagnosis
from .place import living_job_ids

#: Seconds that the clocks of two machines may differ.
CLOCK_TOLERANCE_SECONDS = 300.0
#: File systems on which a file cannot have two names.
_WITHOUT_HARD_LINKS = ("vfat", "msdos", "exfat", "fuse.exfat", "fuseblk.exfat")


def examine_storage(repository: Repository, options: Dict[str, Any]) -> Tuple[List[Diagnosis], bool]:
    """Findings of the repository as a whole, and whether it can be used at all. Reads only."""
    path = str(options["path"])
    try:
        repository.identity()
        capabilities, space = repository.capabilities(), repository.space()
    except (RepositoryMissingError, SchemaUnknownError) as error:
        return [Diagnosis("repository_missing", path, error.msg, details=error.details)], False
    except RepositoryMismatchError as error:
        return [Diagnosis("repository_mismatch", path, error.msg, details=error.details)], False
    except RepositoryIoError as error:
        return [Diagnosis("repository_unreadable", path, error.msg, details=error.details)], False
    found = []
    reserve = int(options.get("reserve_bytes") or 0)
    if space.free_bytes < reserve:
        text = f"{space.free_bytes} bytes are free, less than the reserve of {reserve}"
        found.append(Diagnosis("space_low", path, text, details={"free_bytes": space.free_bytes, "reserve_bytes": reserve}))
    status = os.statvfs(path)
    if status.f_files and status.f_favail * 1000 < status.f_files:
        text = f"{status.f_favail} of {status.f_files} inodes are free"
        found.append(Diagnosis("space_low", f"{path} (inodes)", text, details={"free_inodes": status.f_favail}))
    if not capabilities.direct_reread:
        found.append(Diagnosis("no_direct_io", path, "the file system knows no direct I/O"))
    kind = file_system_of(path, _mounts())
    if kind in _WITHOUT_HARD_LINKS:
        found.append(Diagnosis("no_hard_links", path, f"the file system is {kind}, which knows no hard links"))
    return found, True


def examine_machine(repository: Repository, state: StateDir, key: str, digests: bool = False, now: float = 0) -> List[Diagnosis]:
    """Findings of one machine's points. Reads manifests, headers and block hashes; with ``digests`` every byte of every file.

    ``now`` is in seconds since 1970; 0 means the clock of this place.
    """
    try:
        points = repository.list(PointFilter(machine_key=key))
        found = damaged(points) + distrusted(points) + faults(repository, key, points, digests) + _clock(points, now or time.time())
        if points and not any(point.status == "ok" for point in points):
            text = "its only backup is not sound" if len(points) == 1 else f"none of its {len(points)} backups is sound"
            found.append(Diagnosis("no_sound_point", key, text, details={"points": [point.manifest.point_id for point in points]}))
        found += _partials(repository, state, key) + _merges(repository, state, key)
    except RepositoryIoError as error:
        found = [Diagnosis("repository_unreadable", key, error.msg, details=error.details)]
    for one in found:
        one.machine_key = key
    return found


def mend_machine(repository: Repository, state: StateDir, key: str, found: List[Diagnosis], wanted: FrozenSet[str]) -> None:
    """Mend what is wanted of one machine, under its lease; sets ``mended`` and ``why_not``."""
    chosen = [one for one in found if one.kind in wanted and one.mendable]
    if not chosen:
        return
    state.create()
    name = lease_name(repository.identity()["owner"], key)
    try:
        lease = FileLease.acquire(os.path.join(state.leases, f"{name}.lease"), {"what": f"doctor of {key}"})
    except LeaseHeldError as error:
        for one in chosen:
            one.why_not = error.msg
        return
    try:
        for one in chosen:
            try:
                _mend(repository, state, key, one)
            except SendenseError as error:
                one.why_not = error.msg
    finally:
        lease.release()


def _mend(repository: Repository, state: StateDir, key: str, one: Diagnosis) -> None:
    if one.kind == "partial_orphan":
        if any(job_id.startswith(one.details["job_id"]) for job_id in living_job_ids(state)):
            one.why_not = "its job is alive now"
            return
        repository.abort(key, one.details["job_id"])
        one.mended = True
    elif one.kind == "merge_open":
        _recover(repository, key, one)
    elif still_wrong(repository, key, one):
        one.mended = bool(repository.mark_damaged(key, one.details["point_id"], one.details["message"]))
    else:
        one.why_not = "it is in order now: something was at work here"


def _recover(repository: Repository, key: str, one: Diagnosis) -> None:
    done = repository.recover(key)
    one.details["done"] = done
    one.mended = bool(done)
    if any(merge.survivor == one.details["survivor"] for merge in repository.open_merges(key)):
        one.mended, one.why_not = False, "its data has not been merged yet: the next prune (playbooks/prune.yml) does that"


def _merges(repository: Repository, state: StateDir, key: str) -> List[Diagnosis]:
    try:
        merges = repository.open_merges(key)
    except PointDamagedError as error:
        return [Diagnosis("merge_unreadable", key, error.msg, details=error.details)]
    living, found = living_job_ids(state), []
    for merge in merges:
        if merge.job_id in living:
            continue
        text = f"a {merge.kind} of {len(merge.consumed)} backups into {merge.survivor} did not end; its job {merge.job_id} is dead"
        facts = {"survivor": merge.survivor, "consumed": list(merge.consumed), "job_id": merge.job_id}
        found.append(Diagnosis("merge_open", merge.survivor, text, details=facts))
    return found


def _clock(points: List[Point], now: float) -> List[Diagnosis]:
    limit = utc_from_seconds(now + CLOCK_TOLERANCE_SECONDS)
    known = [point.manifest for point in points if point.manifest.generation > 0]
    found = []
    for manifest in known:
        if max(manifest.created_at, manifest.committed_at) > limit:
            text = f"made at {manifest.created_at}, committed at {manifest.committed_at}: both cannot be before now"
            found.append(Diagnosis("point_from_future", manifest.point_id, text))
    by_generation = sorted(known, key=lambda manifest: manifest.generation)
    for before, after in zip(by_generation, by_generation[1:]):
        if after.created_at < before.created_at:
            text = f"made after {before.point_id}, but says {after.created_at}, which is before {before.created_at}"
            found.append(Diagnosis("points_out_of_order", after.point_id, text))
    return found


def _partials(repository: Repository, state: StateDir, key: str) -> List[Diagnosis]:
    living = living_job_ids(state)
    known = {job.job_id for job in list_jobs(state)}
    found = []
    for partial in repository.partials(key):
        if any(job_id.startswith(partial.job_id) for job_id in living):
            continue
        facts = {"job_id": partial.job_id, "hub_id": partial.hub_id}
        if state.is_of_another_hub(partial.hub_id) and partial.job_id not in known:
            text = f"hub {partial.hub_id} writes or wrote it"
            found.append(Diagnosis("partial_of_other_hub", partial.point_id, text, details=facts))
        else:
            text = f"job {partial.job_id}, which wrote it, is dead"
            found.append(Diagnosis("partial_orphan", partial.point_id, text, details=facts))
    return found


def file_system_of(path: str, mounts: str) -> str:
    """The type of the file system that ``path`` lies on, by the text of ``/proc/self/mountinfo``; empty if it cannot be told. Pure."""
    real, best, kind = os.path.realpath(path), -1, ""
    for line in mounts.splitlines():
        before, _dash, after = line.partition(" - ")
        fields = before.split(" ")
        if len(fields) < 5:
            continue
        point = fields[4].encode("ascii", "replace").decode("unicode_escape")
        if (real == point or real.startswith(point.rstrip("/") + "/")) and len(point) >= best:
            best, kind = len(point), after.split(" ")[0]
    return kind


def _mounts() -> str:
    try:
        with open("/proc/self/mountinfo", encoding="utf-8", errors="replace") as stream:
            return stream.read()
    except OSError:
        return ""
