# Copyright: (c) 2026, Sendense contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A repository whose catalogue lives in memory: the contract once more, written differently.

Manifests, marks and generations are in a :class:`MemoryStore` that several handles may share, as several processes share
a directory. Only the images and hash files are real, in ``store.scratch``: the data path needs something to open.
Immutability is enforced by this product alone, and re-reads cannot be forced past the page cache.
"""

from __future__ import annotations

import os
import shutil
import time
import uuid
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Callable, Dict, List, Optional

from ansible_collections.sendense.platform.plugins.module_utils.catalog import chain
from ansible_collections.sendense.platform.plugins.module_utils.catalog.fields import DISK_KEY, FULL, INCREMENTAL
from ansible_collections.sendense.platform.plugins.module_utils.catalog.manifest import Manifest
from ansible_collections.sendense.platform.plugins.module_utils.catalog.times import compact, utc_from_seconds, utc_text
from ansible_collections.sendense.platform.plugins.module_utils.datapath.hashing import BLOCK_BYTES, DEFAULT_ALGORITHM
from ansible_collections.sendense.platform.plugins.module_utils.datapath.images import create_qcow2, qcow2_node
from ansible_collections.sendense.platform.plugins.module_utils.errors import (
    FencedError,
    InvalidInputError,
    JobRunningError,
    PointDamagedError,
    PointImmutableError,
    PointInUseError,
    PointNotFoundError,
    RepositoryFullError,
    RepositoryMismatchError,
    RepositoryMissingError,
    VerificationFailedError,
)
from ansible_collections.sendense.platform.plugins.module_utils.repositories import checks, merging
from ansible_collections.sendense.platform.plugins.module_utils.repositories._base import (
    Finding,
    NewPoint,
    OpenMerge,
    OpenPoint,
    Point,
    PointFilter,
    Repository,
    RepositoryCapabilities,
    Space,
)
from ansible_collections.sendense.platform.plugins.module_utils.repositories.local_paths import (
    require_job_id,
    require_machine_key,
    require_point_id,
)


@dataclass
class MemoryMachine:
    """What is known of one machine."""

    generation: int = 0
    points: Dict[str, bytes] = field(default_factory=dict)
    damage: Dict[str, str] = field(default_factory=dict)
    immutable: Dict[str, str] = field(default_factory=dict)
    distrust: Dict[str, str] = field(default_factory=dict)
    partials: Dict[str, OpenPoint] = field(default_factory=dict)
    merge: Optional[OpenMerge] = None


@dataclass
class MemoryStore:
    """The storage that handles share. ``free_bytes`` is what it claims to have."""

    scratch: Path
    marker: Optional[Dict[str, Any]] = None
    machines: Dict[str, MemoryMachine] = field(default_factory=dict)
    free_bytes: int = 1 << 40
    clock: Callable[[], float] = time.time


class MemoryRepository(Repository):
    """A handle on a :class:`MemoryStore`."""

    NAME = "memory"

    def __init__(self, store: MemoryStore, repository_id: str = "") -> None:
        self._store = store
        self._repository_id = repository_id

    def capabilities(self) -> RepositoryCapabilities:
        self.identity()
        return RepositoryCapabilities(immutability="software", incremental=True, direct_reread=False)

    def initialise(self, hash_algorithm: str = DEFAULT_ALGORITHM) -> bool:
        if self._store.marker is not None or self._repository_id:
            self.identity()
            return False
        if self._store.machines:
            raise RepositoryMismatchError("Cannot make a repository: the store holds something else. Choose an empty one.")
        self._store.marker = {
            "schema_version": 1,
            "repository_id": str(uuid.uuid4()),
            "hash_algorithm": hash_algorithm,
            "block_bytes": BLOCK_BYTES,
            "created_at": utc_from_seconds(self._store.clock()),
        }
        return True

    def identity(self) -> Dict[str, Any]:
        marker = self._store.marker
        if marker is None:
            raise RepositoryMissingError("No repository in this store. Initialise it once.")
        if self._repository_id not in ("", marker["repository_id"]):
            raise RepositoryMismatchError(f"The store holds {marker['repository_id']}, not {self._repository_id}. Use the right one.")
        return {**marker, "owner": marker["repository_id"][:8]}

    def space(self) -> Space:
        self.identity()
        return Space(total_bytes=1 << 40, free_bytes=self._store.free_bytes)

    def machines(self) -> List[str]:
        self.identity()
        return sorted(self._store.machines)

    def list(self, wanted: Optional[PointFilter] = None) -> List[Point]:
        self.identity()
        asked = wanted or PointFilter()
        since, until = utc_text(asked.since or "1970-01-01T00:00:00Z"), utc_text(asked.until or "9999-12-31T23:59:59Z")
        keys = [require_machine_key(asked.machine_key)] if asked.machine_key else self.machines()
        found = [point for key in keys for point in self._points(key)]
        return [
            point
            for point in sorted(found, key=lambda one: (one.manifest.created_at, one.manifest.generation))
            if since <= point.manifest.created_at <= until
            and asked.status in ("", point.status)
            and asked.level in ("", point.manifest.level)
        ]

    def get(self, machine_key: str, point_id: str) -> Point:
        self.identity()
        require_point_id(point_id)
        for point in self._points(require_machine_key(machine_key)):
            if point.manifest.point_id == point_id:
                return point
        raise PointNotFoundError(f"No point {point_id} of machine {machine_key}. List the points.")

    def raise_generation(self, machine_key: str) -> int:
        self.identity()
        machine = self._store.machines.setdefault(require_machine_key(machine_key), MemoryMachine())
        machine.generation += 1
        return machine.generation

    def create(self, new: NewPoint) -> OpenPoint:
        self.identity()
        self._validate(new)
        self._fence(new.machine_key, new.generation)
        if self._store.free_bytes < new.expected_bytes:
            raise RepositoryFullError(f"The backup may need {new.expected_bytes} bytes; {self._store.free_bytes} are free. Free space.")
        parent_id = new.parent_id if any(disk.level == INCREMENTAL for disk in new.disks) else ""
        shelf = self._sound(new.machine_key, parent_id) if parent_id else None
        point_id = f"{compact(new.created_at)}-{new.job_id[:8]}"
        machine = self._store.machines[new.machine_key]
        if point_id in machine.partials or point_id in machine.points:
            raise JobRunningError(f"Job {new.job_id} has a point already. Abort it.", retryable=False)
        directory = self._directory(new.machine_key, point_id)
        point = OpenPoint(new.machine_key, new.job_id, new.generation, point_id, str(directory), parent_id)
        directory.mkdir(parents=True)
        with ExitStack() as on_error:
            on_error.callback(shutil.rmtree, directory)
            point.images = self._images(new, directory, shelf, parent_id)
            on_error.pop_all()
        machine.partials[point_id] = replace(point, images={})
        return point

    def reread_images(self, point: OpenPoint) -> Dict[str, Dict[str, Any]]:
        self._partial(point)
        return dict(point.images)

    def commit(self, point: OpenPoint, manifest: Manifest) -> Point:
        self.identity()
        machine = self._machine(point.machine_key)
        if point.point_id not in machine.points:
            self._fence(point.machine_key, point.generation)
            self._partial(point)
            self._require_fitting(point, manifest)
            machine.points[point.point_id] = manifest.to_text().encode("ascii")
            del machine.partials[point.point_id]
        return self.get(point.machine_key, point.point_id)

    def abort(self, machine_key: str, job_id: str) -> bool:
        self.identity()
        require_job_id(job_id)
        machine = self._machine(machine_key)
        for point_id in [key for key, partial in machine.partials.items() if partial.job_id == job_id]:
            shutil.rmtree(self._directory(machine_key, point_id))
            del machine.partials[point_id]
            return True
        return False

    def partials(self, machine_key: str) -> List[OpenPoint]:
        self.identity()
        return [partial for _point_id, partial in sorted(self._machine(machine_key).partials.items())]

    def open_for_read(self, machine_key: str, point_id: str) -> Dict[str, Dict[str, Any]]:
        shelf = self._sound(machine_key, point_id)
        return {disk.key: shelf.node(point_id, disk.id) for disk in shelf.manifests[point_id].disks}

    def hash_files(self, machine_key: str, point_id: str) -> Dict[str, List[str]]:
        manifest, shelf = self._promised(machine_key, point_id).manifest, self._shelf(machine_key)
        return {disk.key: shelf.hash_paths(point_id, disk.id) for disk in manifest.disks}

    def files(self, machine_key: str, point_id: str) -> Dict[str, str]:
        manifest, shelf = self._promised(machine_key, point_id).manifest, self._shelf(machine_key)
        checks.require_sound(checks.side_files(shelf, point_id), f"the files of point {point_id}")
        parts = {"native": manifest.native, "nvram": manifest.nvram}
        return {name: shelf.path(point_id, part["file"]) for name, part in parts.items() if part}

    def structure_check(self, machine_key: str, point_id: str) -> List[Finding]:
        self._promised(machine_key, point_id)
        return checks.structure(self._shelf(machine_key), point_id)

    def digest_check(self, machine_key: str, point_id: str) -> List[Finding]:
        self._promised(machine_key, point_id)
        return checks.digests(self._shelf(machine_key), point_id)

    def mark_damaged(self, machine_key: str, point_id: str, reason: str) -> List[str]:
        self.get(machine_key, point_id)
        machine = self._machine(machine_key)
        shelf = self._shelf(machine_key)
        concerned = {point_id, *chain.descendants(shelf.manifests, point_id)} - shelf.merging
        new = [one for one in sorted(concerned) if one not in machine.damage]
        machine.damage.update(dict.fromkeys(new, f"{reason} (began in {point_id})"))
        return new

    def distrust(self, machine_key: str, point_id: str, reason: str) -> bool:
        self.get(machine_key, point_id)
        known = self._machine(machine_key).distrust
        new = point_id not in known
        known.setdefault(point_id, reason)
        return new

    def delete(self, machine_key: str, point_id: str) -> bool:
        self.identity()
        require_point_id(point_id)
        machine = self._machine(machine_key)
        if point_id not in machine.points:
            return False
        self._unmerged(machine, [point_id])
        if machine.immutable.get(point_id, "") > utc_from_seconds(self._store.clock()):
            raise PointImmutableError(f"Point {point_id} may not be deleted before {machine.immutable[point_id]}. Delete it then.")
        standing = chain.descendants(self._shelf(machine_key).manifests, point_id)
        standing += [partial.point_id for partial in machine.partials.values() if partial.parent_id == point_id]
        if standing:
            raise PointInUseError(f"Point {point_id} is needed by {standing}. Delete those first.")
        for known in (machine.points, machine.damage, machine.immutable, machine.distrust):
            known.pop(point_id, None)
        shutil.rmtree(self._directory(machine_key, point_id))
        return True

    def set_immutable(self, machine_key: str, point_id: str, until: str) -> str:
        wanted = utc_text(until)
        self._promised(machine_key, point_id)
        machine = self._machine(machine_key)
        concerned = [point_id, *chain.ancestors(self._shelf(machine_key).manifests, point_id)]
        self._unmerged(machine, concerned)
        for one in concerned:
            machine.immutable[one] = max(wanted, machine.immutable.get(one, ""))
        return "software"

    def begin_merge(self, machine_key: str, survivor: str, consumed: List[str], job_id: str) -> OpenMerge:
        self.identity()
        for point_id in [survivor, *consumed]:
            require_point_id(point_id)
        require_job_id(job_id)
        shelf = self._sound(machine_key, survivor)
        merging.require_run(shelf.manifests, survivor, consumed)
        machine, run = self._machine(machine_key), [*consumed, survivor]
        if machine.merge is not None and (machine.merge.survivor, machine.merge.consumed) != (survivor, consumed):
            raise PointInUseError(f"Point {machine.merge.survivor} is the survivor of an open merge. End that first.")
        self._require_unneeded(machine, shelf, consumed, run)
        work = self._directory(machine_key, survivor + ".work")
        shutil.rmtree(work, ignore_errors=True)
        disks = merging.plan_disks(shelf, survivor, consumed, str(work))
        if machine.merge is None and self._store.free_bytes < sum(merging.growth_bytes(disk) for disk in disks):
            raise RepositoryFullError(f"Merging into {survivor} may need more than is free. Free space.")
        work.mkdir()
        for disk in disks:
            if disk.action == merging.COPY:
                create_qcow2(disk.base, disk.size_bytes)
        kind = "merge" if consumed else "synthetic"
        machine.merge = OpenMerge(machine_key, kind, list(consumed), survivor, job_id, disks, str(work))
        return replace(machine.merge)

    def _require_unneeded(self, machine: MemoryMachine, shelf: checks.Shelf, consumed: List[str], run: List[str]) -> None:
        others = [key for key, manifest in shelf.manifests.items() if manifest.parent_id in consumed and key not in run]
        others += [key for key, partial in machine.partials.items() if partial.parent_id in consumed]
        if others:
            raise PointInUseError(f"The points to merge are needed by {others}. Merge later.")
        for point_id in {*run, *(one for member in run for one in chain.descendants(shelf.manifests, member))}:
            if machine.immutable.get(point_id, "") > utc_from_seconds(self._store.clock()):
                raise PointImmutableError(f"Point {point_id} may not be changed before {machine.immutable[point_id]}. Merge then.")

    def merged_images(self, merge: OpenMerge) -> Dict[str, Dict[str, Any]]:
        self._require_open(merge)
        shelf = self._shelf(merge.machine_key)
        return {disk.key: merging.node(shelf, merge, disk) for disk in merging.moved(merge)}

    def merged_hashes(self, merge: OpenMerge) -> Dict[str, str]:
        self._require_open(merge)
        return merging.compose_hashes(self._shelf(merge.machine_key), merge)

    def finish_merge(self, merge: OpenMerge, digests: Dict[str, str], verified: Dict[str, str]) -> Point:
        self.identity()
        key, machine = merge.machine_key, self._machine(merge.machine_key)
        if machine.merge is None and merge.survivor in machine.points:
            present = {disk.key: disk.file_digest for disk in self.get(key, merge.survivor).manifest.disks}
            if all(present.get(disk) == digest for disk, digest in digests.items()):
                return self.get(key, merge.survivor)
        self._require_open(merge)
        shelf = self._sound(key, merge.survivor)
        old, own = shelf.manifests[merge.survivor], self._directory(key, merge.survivor)
        for disk in old.disks:
            planned = next(one for one in merge.disks if one.key == disk.key)
            if planned.action != merging.COPY:
                shutil.copy(planned.base, os.path.join(merge.path, disk.file))
            if planned.action == merging.KEEP:
                shutil.copy(own / disk.hashes_file, merge.path)
        for part in (old.native, old.nvram):
            if part:
                shutil.copy(own / part["file"], merge.path)
        manifest = merging.merged_manifest(shelf, merge, digests, verified)
        shutil.rmtree(own)
        os.rename(merge.path, own)
        machine.points[merge.survivor] = manifest.to_text().encode("ascii")
        for point_id in merge.consumed:
            for known in (machine.points, machine.damage, machine.immutable, machine.distrust):
                known.pop(point_id, None)
            shutil.rmtree(self._directory(key, point_id))
        machine.merge = None
        return self.get(key, merge.survivor)

    def abandon_merge(self, machine_key: str, reason: str, job_id: str) -> List[str]:
        self.identity()
        machine, manifests = self._machine(machine_key), self._shelf(machine_key).manifests
        merge = machine.merge
        if merge is None:
            return []
        if merge.job_id != job_id:
            raise FencedError(f"The merge into {merge.survivor} is of another job. Prune again.")
        machine.merge = None
        shutil.rmtree(merge.path)
        return self.mark_damaged(machine_key, merge.consumed[0], reason) if merge.consumed and manifests else []

    def open_merges(self, machine_key: str) -> List[OpenMerge]:
        self.identity()
        merge = self._machine(machine_key).merge
        return [replace(merge)] if merge is not None else []

    def recover(self, machine_key: str) -> List[str]:
        self.identity()
        self._machine(machine_key)
        return []

    def _require_open(self, merge: OpenMerge) -> None:
        self.identity()
        present = self._machine(merge.machine_key).merge
        if present is None or (present.survivor, present.consumed, present.job_id) != (merge.survivor, merge.consumed, merge.job_id):
            raise FencedError(f"The merge into {merge.survivor} has ended or is of another job. Prune again.")

    def _unmerged(self, machine: MemoryMachine, point_ids: List[str]) -> None:
        if machine.merge is not None and {machine.merge.survivor, *machine.merge.consumed} & set(point_ids):
            raise PointInUseError(f"One of {point_ids} is being merged. Wait until that has ended.")

    def _promised(self, machine_key: str, point_id: str) -> Point:
        point = self.get(machine_key, point_id)
        if point.status == "merging":
            raise PointNotFoundError(f"Point {point_id} has expired and is being merged. Choose another.")
        return point

    def _machine(self, machine_key: str) -> MemoryMachine:
        return self._store.machines.get(require_machine_key(machine_key)) or MemoryMachine()

    def _directory(self, machine_key: str, point_id: str) -> Path:
        return self._store.scratch / machine_key / point_id

    def _shelf(self, machine_key: str) -> checks.Shelf:
        read = {key: Manifest.from_bytes(content, f"point {key}") for key, content in self._machine(machine_key).points.items()}
        merge = self._machine(machine_key).merge
        merging_points = frozenset(merge.consumed if merge is not None else ())
        return checks.Shelf(read, lambda point_id: str(self._directory(machine_key, point_id)), merging_points)

    def _points(self, machine_key: str) -> List[Point]:
        machine, manifests = self._machine(machine_key), self._shelf(machine_key).manifests
        found = []
        for point_id, manifest in manifests.items():
            damage = machine.damage.get(point_id) or chain.fault(manifests, point_id)
            for parent in [] if damage else chain.ancestors(manifests, point_id):
                damage = damage or machine.damage.get(parent, "")
            until, distrusted = machine.immutable.get(point_id, ""), machine.distrust.get(point_id, "")
            merges = machine.merge is not None and point_id in machine.merge.consumed
            status = "merging" if merges else "damaged" if damage else "ok"
            found.append(Point(manifest, status, "" if merges else damage, until, distrusted))
        return found

    def _sound(self, machine_key: str, point_id: str) -> checks.Shelf:
        point, shelf = self._promised(machine_key, point_id), self._shelf(machine_key)
        found = checks.structure(shelf, point_id)
        if point.damage:
            raise PointDamagedError(f"Point {point_id} is damaged: {point.damage}. Make a full backup.")
        if found:
            self.mark_damaged(machine_key, found[0].point_id, found[0].message)
            checks.require_sound(found, f"point {point_id}")
        return shelf

    def _fence(self, machine_key: str, generation: int) -> None:
        if self._machine(machine_key).generation != generation:
            raise FencedError(f"Generation {generation} is not the newest of {machine_key}. Start a new backup.")

    def _partial(self, point: OpenPoint) -> OpenPoint:
        self.identity()
        found = self._machine(point.machine_key).partials.get(point.point_id)
        if found is None or found.job_id != point.job_id:
            raise PointNotFoundError(f"Point {point.point_id} is not being written by job {point.job_id}. Start a new backup.")
        return found

    def _require_fitting(self, point: OpenPoint, manifest: Manifest) -> None:
        stated = (manifest.point_id, manifest.machine_key, manifest.job_id, manifest.generation, manifest.parent_id)
        if stated != (point.point_id, point.machine_key, point.job_id, point.generation, point.parent_id):
            raise VerificationFailedError(f"The manifest is not of point {point.point_id}. Nothing was committed.")
        if point.parent_id and self.get(point.machine_key, point.parent_id).damage:
            raise PointDamagedError(f"The parent {point.parent_id} was damaged meanwhile. Make a full backup.")
        shelf = self._shelf(point.machine_key)
        with_new = checks.Shelf({**shelf.manifests, point.point_id: manifest}, shelf.directory, shelf.merging)
        if checks.structure(with_new, point.point_id):
            raise VerificationFailedError(f"Manifest and files of point {point.point_id} do not fit. Nothing was committed.")

    def _validate(self, new: NewPoint) -> None:
        require_machine_key(new.machine_key)
        require_job_id(new.job_id)
        keys, ids = {disk.key for disk in new.disks}, {disk.disk_id for disk in new.disks}
        good = all(DISK_KEY.fullmatch(disk.key) and disk.level in (FULL, INCREMENTAL) and disk.size_bytes > 0 for disk in new.disks)
        incremental = any(disk.level == INCREMENTAL for disk in new.disks)
        if not new.disks or len(keys) + len(ids) != 2 * len(new.disks) or not good or (incremental and not new.parent_id):
            raise InvalidInputError("The disks of the new point are not valid. Correct them.")

    def _images(self, new: NewPoint, directory: Path, shelf: Optional[checks.Shelf], parent_id: str) -> Dict[str, Dict[str, Any]]:
        images: Dict[str, Dict[str, Any]] = {}
        for disk in new.disks:
            path = os.path.join(directory, f"{disk.key}.qcow2")
            node = backing = None
            if disk.level == INCREMENTAL and shelf is not None:
                parent = shelf.manifests[parent_id].disk(disk.disk_id)
                if parent is None or parent.size_bytes != disk.size_bytes:
                    raise InvalidInputError(f"The parent has no such disk as {disk.key}. Make it a full.")
                backing, node = checks.backing_path(parent_id, parent.file), shelf.node(parent_id, disk.disk_id)
            create_qcow2(path, disk.size_bytes, backing)
            images[disk.key] = qcow2_node(path, backing=node)
        return images
