# Copyright: (c) 2026, Sendense contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Making, publishing and taking back the partial point of a job. The machine's lock is held where it is said."""

from __future__ import annotations

import json
import os
import re
from typing import Any, Dict, List, Optional

from ..catalog import chain
from ..catalog.fields import DISK_KEY, FULL, INCREMENTAL
from ..catalog.manifest import Manifest
from ..catalog.times import compact, utc_text
from ..datapath.images import create_qcow2, qcow2_node
from ..errors import InvalidInputError, JobRunningError, PointNotFoundError, VerificationFailedError
from ..steps import reached
from . import checks
from . import local_files as files
from ._base import Finding, NewDisk, NewPoint, OpenPoint
from .checks import Shelf
from .local_paths import JOB, MANIFEST, Paths, require_job_id, require_machine_key
from .local_points import partial_job, partial_of_job

_SCHEMA_VERSION = 1
_UNREADABLE_JOB = re.compile(r"[0-9a-f]{8}")


def validate(new: NewPoint) -> str:
    """The id of the point to be. InvalidInputError for whatever cannot become one."""
    require_machine_key(new.machine_key)
    require_job_id(new.job_id)
    keys = [disk.key for disk in new.disks]
    ids = [disk.disk_id for disk in new.disks]
    if not keys or len(set(keys)) != len(keys) or len(set(ids)) != len(ids):
        raise InvalidInputError(f"Cannot write a point with the disks {keys}: there must be at least one, each once.")
    incremental = [disk.key for disk in new.disks if disk.level == INCREMENTAL]
    if any(disk.level not in (FULL, INCREMENTAL) or not DISK_KEY.fullmatch(disk.key) or disk.size_bytes < 1 for disk in new.disks):
        raise InvalidInputError(f"Cannot write a point with the disks {keys}: a key, level or size is not valid.")
    if incremental and not new.parent_id:
        raise InvalidInputError(f"Cannot write {incremental} as incrementals: no parent was named. Make a full backup.")
    return f"{compact(new.created_at)}-{new.job_id[:8]}"


def make_partial(paths: Paths, new: NewPoint, parent_id: str, point_id: str, hub_id: str) -> str:
    """Make ``<point id>.partial`` with its job.json in one step; its path. The lock is held. JobRunningError, RepositoryIoError."""
    key = new.machine_key
    if partial_of_job(paths, key, new.job_id) or files.exists(paths.point(key, point_id)):
        raise JobRunningError(
            f"Cannot write point {point_id} of machine {key}: its job has one already. Abort the job, then start a new backup.",
            details={"machine_key": key, "job_id": new.job_id},
            retryable=False,
        )
    preparing, partial = paths.preparing(key, point_id), paths.partial(key, point_id)
    files.remove_directory(preparing)
    with files.undone_on_error(preparing):
        files.make_directory(preparing)
        files.write_durable(os.path.join(preparing, JOB), _job_text(new, parent_id, point_id, hub_id))
        files.rename(preparing, partial)
    return partial


def make_images(directory: str, new: NewPoint, shelf: Shelf, parent_id: str) -> Dict[str, Dict[str, Any]]:
    """Make the empty images; their block nodes by disk key. InvalidInputError, RepositoryIoError, RepositoryFullError."""
    images: Dict[str, Dict[str, Any]] = {}
    for disk in new.disks:
        path = os.path.join(directory, f"{disk.key}.qcow2")
        backing = _backing(disk, shelf, parent_id)
        with files.storage_below("create the image", path):
            create_qcow2(path, disk.size_bytes, backing)
        images[disk.key] = _node(path, disk.disk_id if backing is not None else "", shelf, parent_id)
    files.sync_directory(directory)
    return images


def open_point(paths: Paths, key: str, point_id: str) -> OpenPoint:
    """What its directory tells of a partial point. RepositoryIoError, but never for a damaged job.json."""
    job = partial_job(paths, key, point_id)
    text = {name: job[name] if isinstance(job.get(name), str) else "" for name in ("job_id", "parent_id", "hub_id")}
    generation = job.get("generation")
    return OpenPoint(
        machine_key=key,
        job_id=text["job_id"] or point_id[-8:],
        generation=generation if isinstance(generation, int) else 0,
        point_id=point_id,
        path=paths.partial(key, point_id),
        parent_id=text["parent_id"],
        hub_id=text["hub_id"],
    )


def sync(directory: str) -> None:
    """Make every file of a point, and their names, durable. RepositoryIoError."""
    for name in files.names(directory):
        files.sync_file(os.path.join(directory, name))
    files.sync_directory(directory)


def publish(paths: Paths, point: OpenPoint, manifest: Manifest, shelf: Shelf) -> None:
    """Write the manifest and give the point its name. The lock is held and the generation was compared.

    PointNotFoundError if the partial point is gone, VerificationFailedError if manifest and files do not fit each other,
    PointDamagedError if the parent is not sound any more.
    """
    key, point_id = point.machine_key, point.point_id
    partial = paths.partial(key, point_id)
    if partial_job(paths, key, point_id).get("job_id") != point.job_id:
        raise PointNotFoundError(
            f"Cannot commit point {point_id} of machine {key}: it was aborted, or is not of job {point.job_id}. Start a new backup.",
            details={"machine_key": key, "point_id": point_id},
        )
    require_fitting(point, manifest, shelf, partial)
    sync(partial)
    reached("commit:files-synced")
    files.write_durable(os.path.join(partial, MANIFEST), manifest.to_text().encode("ascii"))
    reached("commit:manifest-written")
    files.rename(partial, paths.point(key, point_id))
    reached("commit:renamed")


def require_job(job_id: str) -> None:
    """InvalidInputError unless this is a job id, or what stands for the id of an unreadable job."""
    if not _UNREADABLE_JOB.fullmatch(job_id):
        require_job_id(job_id)


def forget_job(paths: Paths, key: str, point_id: str) -> None:
    """Remove the job.json of a point that is committed. RepositoryIoError."""
    files.remove_file(os.path.join(paths.point(key, point_id), JOB))


def remove_partial(paths: Paths, key: str, point_id: str) -> bool:
    """Remove a partial point, its job.json last, so that a cut-off removal can be told and repeated. The lock is held."""
    return files.remove_directory(paths.partial(key, point_id), last=(JOB,))


def require_fitting(point: OpenPoint, manifest: Manifest, shelf: Shelf, directory: str) -> None:
    """The manifest describes this point, these files and the parent that is there. VerificationFailedError, PointDamagedError."""
    names = ("machine_key", "job_id", "generation", "point_id", "parent_id")
    wrong = [name for name in names if getattr(manifest, name) != getattr(point, name)]
    if wrong:
        raise VerificationFailedError(f"Cannot commit point {point.point_id}: its manifest has another {', '.join(wrong)}.")
    with_new = Shelf(
        {**shelf.manifests, point.point_id: manifest},
        lambda other: directory if other == point.point_id else shelf.directory(other),
        shelf.merging,
    )
    fault = chain.fault(with_new.manifests, point.point_id)
    if fault:
        checks.require_sound([Finding(point.parent_id, "", "chain", fault)], f"the parent of point {point.point_id}")
    found = checks.own_structure(with_new, point.point_id)
    if found:
        raise VerificationFailedError(
            f"Cannot commit point {point.point_id}: {found[0].message}. Nothing was committed; run the backup again.",
            details={"findings": [vars(finding) for finding in found]},
        )


def _backing(disk: NewDisk, shelf: Shelf, parent_id: str) -> Optional[str]:
    if disk.level != INCREMENTAL:
        return None
    parent = shelf.manifests[parent_id].disk(disk.disk_id)
    if parent is None or parent.size_bytes != disk.size_bytes:
        raise InvalidInputError(
            f"Cannot write {disk.key} as an incremental: the parent {parent_id} has no such disk of {disk.size_bytes} bytes. Make it a"
            " full."
        )
    return checks.backing_path(parent_id, parent.file)


def _node(path: str, disk_id: str, shelf: Shelf, parent_id: str) -> Dict[str, Any]:
    return qcow2_node(path, backing=shelf.node(parent_id, disk_id) if disk_id else None)


def _job_text(new: NewPoint, parent_id: str, point_id: str, hub_id: str) -> bytes:
    disks: List[Dict[str, Any]] = [
        {"key": disk.key, "disk_id": disk.disk_id, "size_bytes": disk.size_bytes, "level": disk.level, "reason": disk.reason}
        for disk in new.disks
    ]
    job = {
        "schema_version": _SCHEMA_VERSION,
        "machine_key": new.machine_key,
        "job_id": new.job_id,
        "generation": new.generation,
        "hub_id": hub_id,
        "point_id": point_id,
        "parent_id": parent_id,
        "created_at": utc_text(new.created_at),
        "expected_bytes": new.expected_bytes,
        "disks": disks,
    }
    return (json.dumps(job, indent=1) + "\n").encode("ascii")
