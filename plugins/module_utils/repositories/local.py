# Copyright: (c) 2026, Sendense contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The repository in a directory: a local disk, or a file system of another machine that is mounted here.

Everything is in plain files that describe themselves; docs/reference/repositories/local.md shows the layout, and
docs/runbooks/restore-by-hand.md restores without this code. The work is done in the ``local_*`` files beside this one.
"""

from __future__ import annotations

import errno
import os
import time
from contextlib import contextmanager, suppress
from typing import Any, Callable, Dict, Iterator, List, Optional, Set

from ..catalog import chain
from ..catalog.fields import INCREMENTAL
from ..catalog.manifest import Manifest
from ..catalog.times import utc_from_seconds, utc_text
from ..datapath.hashing import DEFAULT_ALGORITHM
from ..errors import InvalidInputError, PointDamagedError, PointNotFoundError, RepositoryFullError, RepositoryIoError, SendenseError
from ..steps import reached
from . import (
    checks,
    local_exchange,
    local_generation,
    local_immutability,
    local_marker,
    local_marks,
    local_merge,
    local_partial,
    local_removal,
    merging,
)
from . import local_files as files
from ._base import Finding, NewPoint, OpenMerge, OpenPoint, Point, PointFilter, Repository, RepositoryCapabilities, Space
from .checks import Shelf
from .local_journal import MERGE, SYNTHETIC, Journal
from .local_paths import PARTIAL, Paths, require_job_id, require_point_id
from .local_points import MERGING, OK, partial_of_job, scan

RESERVE_BYTES = 256 << 20
#: What a repository says that is mounted read-only, or of another user: it can be read without its locks.
READ_ONLY = (errno.EROFS, errno.EACCES)


class LocalRepository(Repository):
    """One repository directory.

    ``repository_id`` empty accepts whichever repository is there. ``reserve_bytes`` stay free when a backup starts.
    ``hub_id`` is recorded in points being written. ``clock`` gives seconds since the epoch.
    """

    NAME = "local"

    def __init__(
        self,
        path: str,
        repository_id: str = "",
        reserve_bytes: int = RESERVE_BYTES,
        hub_id: str = "",
        clock: Callable[[], float] = time.time,
    ) -> None:
        if not os.path.isabs(path) or "\0" in path:
            raise InvalidInputError(f"Cannot use {path!r} as a repository: it is not an absolute path.")
        self._paths = Paths(os.path.normpath(path))
        self._repository_id = repository_id
        self._reserve_bytes = reserve_bytes
        self._hub_id = hub_id
        self._clock = clock
        self._held: Set[str] = set()

    # --- the repository --------------------------------------------------------------------------------------------

    def capabilities(self) -> RepositoryCapabilities:
        self.identity()
        return RepositoryCapabilities(
            immutability=local_immutability.probe(self._paths.root),
            incremental=True,
            direct_reread=files.supports_direct(self._paths.marker),
        )

    def initialise(self, hash_algorithm: str = DEFAULT_ALGORITHM) -> bool:
        return local_marker.create(self._paths, self._repository_id, hash_algorithm)

    def identity(self) -> Dict[str, Any]:
        return local_marker.read(self._paths, self._repository_id)

    def space(self) -> Space:
        self.identity()
        with files.storage("ask for the free space of", self._paths.root):
            status = os.statvfs(self._paths.root)
        return Space(total_bytes=status.f_blocks * status.f_frsize, free_bytes=status.f_bavail * status.f_frsize)

    def machines(self) -> List[str]:
        self.identity()
        return self._paths.machine_keys()

    # --- points ----------------------------------------------------------------------------------------------------

    def list(self, wanted: Optional[PointFilter] = None) -> List[Point]:
        self.identity()
        wanted = wanted or PointFilter()
        since, until = (utc_text(text) if text else "" for text in (wanted.since, wanted.until))
        found: List[Point] = []
        for key in [wanted.machine_key] if wanted.machine_key else self._paths.machine_keys():
            found += [
                point
                for point in self._points(key, lenient=True)
                if wanted.status in ("", point.status)
                and wanted.level in ("", point.manifest.level)
                and since <= point.manifest.created_at
                and (not until or point.manifest.created_at <= until)
            ]
        return sorted(found, key=lambda point: point.manifest.created_at)

    def get(self, machine_key: str, point_id: str) -> Point:
        self.identity()
        require_point_id(point_id)
        for point in self._points(machine_key):
            if point.manifest.point_id == point_id:
                return point
        raise PointNotFoundError(
            f"No point {point_id} of machine {machine_key} in the repository {self._paths.root}. List the machine's points.",
            details={"machine_key": machine_key, "point_id": point_id},
        )

    def open_for_read(self, machine_key: str, point_id: str) -> Dict[str, Dict[str, Any]]:
        shelf = self._require_sound(machine_key, point_id)
        return {disk.key: shelf.node(point_id, disk.id) for disk in shelf.manifests[point_id].disks}

    def hash_files(self, machine_key: str, point_id: str) -> Dict[str, List[str]]:
        manifest, shelf = self._promised(machine_key, point_id).manifest, self._shelf(machine_key)
        checks.require_sound(checks.chain_findings(shelf, point_id), f"point {point_id}")
        return {disk.key: shelf.hash_paths(point_id, disk.id) for disk in manifest.disks}

    def files(self, machine_key: str, point_id: str) -> Dict[str, str]:
        self._promised(machine_key, point_id)
        shelf = self._shelf(machine_key)
        self._refuse_damage(machine_key, checks.side_files(shelf, point_id), f"the files of point {point_id}")
        manifest = shelf.manifests[point_id]
        parts = {"native": manifest.native, "nvram": manifest.nvram}
        return {name: shelf.path(point_id, part["file"]) for name, part in parts.items() if part}

    def structure_check(self, machine_key: str, point_id: str) -> List[Finding]:
        point = self._promised(machine_key, point_id)
        shelf = self._shelf(machine_key)
        if point_id not in shelf.manifests:
            return [Finding(point_id, "", "manifest", point.damage)]
        return checks.structure(shelf, point_id)

    def digest_check(self, machine_key: str, point_id: str) -> List[Finding]:
        point = self._promised(machine_key, point_id)
        shelf = self._shelf(machine_key)
        if point_id not in shelf.manifests:
            return [Finding(point_id, "", "manifest", point.damage)]
        return checks.digests(shelf, point_id)

    def mark_damaged(self, machine_key: str, point_id: str, reason: str) -> List[str]:
        self.get(machine_key, point_id)
        with self._locked(machine_key):
            shelf = self._shelf(machine_key)
            concerned = [point_id, *chain.descendants(shelf.manifests, point_id)]
            # What is being merged is offered no more: a mark on it would say nothing.
            return self._mark(machine_key, [one for one in concerned if one not in shelf.merging], point_id, reason)

    def distrust(self, machine_key: str, point_id: str, reason: str) -> bool:
        self.get(machine_key, point_id)
        with self._locked(machine_key):
            if point_id in local_marks.read_all(self._paths, machine_key, local_marks.DISTRUST):
                return False
            mark = {"schema_version": 1, "point_id": point_id, "reason": reason, "at": utc_from_seconds(self._clock())}
            local_marks.write(self._paths, machine_key, local_marks.DISTRUST, point_id, mark)
        reached("distrust:marked")
        return True

    def delete(self, machine_key: str, point_id: str) -> bool:
        self.identity()
        require_point_id(point_id)
        if not files.is_directory(self._paths.machine(machine_key)):
            return False
        with self._locked(machine_key):
            local_merge.require_unmerged(self._paths, machine_key, [point_id], "delete it")
            return local_removal.delete(self._paths, machine_key, point_id, utc_from_seconds(self._clock()))

    def set_immutable(self, machine_key: str, point_id: str, until: str) -> str:
        utc_text(until)
        self._promised(machine_key, point_id)
        with self._locked(machine_key):
            manifests = self._shelf(machine_key).manifests
            below = chain.ancestors(manifests, point_id) if point_id in manifests else []
            local_merge.require_unmerged(self._paths, machine_key, [*below, point_id], "make it immutable")
            enforced = [local_immutability.protect(self._paths, machine_key, one, until) for one in [*reversed(below), point_id]]
        return enforced[0] if len(set(enforced)) == 1 else local_immutability.SOFTWARE

    # --- writing ---------------------------------------------------------------------------------------------------

    def raise_generation(self, machine_key: str) -> int:
        self.identity()
        self._paths.make_machine(machine_key)
        with self._locked(machine_key):
            self._sweep(machine_key)
            return local_generation.raise_generation(self._paths, machine_key)

    def create(self, new: NewPoint) -> OpenPoint:
        self.identity()
        point_id = local_partial.validate(new)
        parent_id = new.parent_id if any(disk.level == INCREMENTAL for disk in new.disks) else ""
        key = new.machine_key
        local_generation.require_newest(self._paths, key, new.generation, f"write point {point_id}")
        self._require_space(new.expected_bytes)
        shelf = self._require_sound(key, parent_id) if parent_id else Shelf({}, str)
        with self._locked(key):
            local_generation.require_newest(self._paths, key, new.generation, f"write point {point_id}")
            if parent_id and not files.exists(self._paths.point(key, parent_id)):
                raise PointNotFoundError(f"Cannot build on point {parent_id} of machine {key}: it was just deleted. Start a new backup.")
            partial = local_partial.make_partial(self._paths, new, parent_id, point_id, self._hub_id)
        reached("create:partial-made")
        with files.undone_on_error(partial):
            images = local_partial.make_images(partial, new, shelf, parent_id)
        reached("create:images-made")
        return OpenPoint(key, new.job_id, new.generation, point_id, partial, parent_id, images, self._hub_id)

    def reread_images(self, point: OpenPoint) -> Dict[str, Dict[str, Any]]:
        self.identity()
        directory = self._paths.partial(point.machine_key, point.point_id)
        if not files.is_directory(directory):
            raise PointNotFoundError(f"Cannot re-read point {point.point_id} of machine {point.machine_key}: it was aborted.")
        local_partial.sync(directory)
        reached("reread:files-synced")
        return dict(point.images)

    def commit(self, point: OpenPoint, manifest: Manifest) -> Point:
        self.identity()
        key, point_id = point.machine_key, point.point_id
        if not files.is_directory(self._paths.point(key, point_id)):
            with self._locked(key):
                local_generation.require_newest(self._paths, key, point.generation, f"commit point {point_id}")
                parent_damage = self.get(key, point.parent_id).damage if point.parent_id else ""
                if parent_damage:
                    raise PointDamagedError(f"Cannot commit point {point_id}: its parent {point.parent_id} is damaged: {parent_damage}.")
                local_partial.publish(self._paths, point, manifest, self._shelf(key))
        committed = self.get(key, point_id)
        if committed.manifest.job_id != point.job_id:
            raise PointNotFoundError(f"Cannot commit point {point_id} of machine {key}: another job has published it.")
        with suppress(RepositoryIoError):  # the point is published; the sweep of the next job removes the file, too
            local_partial.forget_job(self._paths, key, point_id)
        return committed

    def abort(self, machine_key: str, job_id: str) -> bool:
        self.identity()
        local_partial.require_job(job_id)
        if not files.is_directory(self._paths.machine(machine_key)):
            return False
        with self._locked(machine_key):
            point_id = partial_of_job(self._paths, machine_key, job_id)
            return point_id is not None and local_partial.remove_partial(self._paths, machine_key, point_id)

    def partials(self, machine_key: str) -> List[OpenPoint]:
        self.identity()
        ids = self._paths.point_ids(machine_key, PARTIAL)
        return [local_partial.open_point(self._paths, machine_key, point_id) for point_id in ids]

    def sweep(self, machine_key: str) -> List[str]:
        """Finish what a crash interrupted; returns the names removed. Every new job does this for its machine."""
        self.identity()
        if not files.is_directory(self._paths.machine(machine_key)):
            return []
        with self._locked(machine_key):
            return self._sweep(machine_key)

    # --- merging ---------------------------------------------------------------------------------------------------

    def begin_merge(self, machine_key: str, survivor: str, consumed: List[str], job_id: str) -> OpenMerge:
        for point_id in [survivor, *consumed]:
            require_point_id(point_id)
        kind = MERGE if consumed else SYNTHETIC
        journal = Journal(kind, survivor, list(consumed), require_job_id(job_id), utc_from_seconds(self._clock()))
        self.recover(machine_key)
        shelf = self._require_sound(machine_key, survivor)
        with self._locked(machine_key):
            return local_merge.begin(self._paths, machine_key, shelf, journal, journal.began_at, self._reserve_bytes)

    def merged_images(self, merge: OpenMerge) -> Dict[str, Dict[str, Any]]:
        self.identity()
        local_merge.require_open(self._paths, merge)
        shelf = self._shelf(merge.machine_key)
        return {disk.key: merging.node(shelf, merge, disk) for disk in local_merge.sync_images(merge)}

    def merged_hashes(self, merge: OpenMerge) -> Dict[str, str]:
        self.identity()
        local_merge.require_open(self._paths, merge)
        return local_merge.composed(self._shelf(merge.machine_key), merge)

    def finish_merge(self, merge: OpenMerge, digests: Dict[str, str], verified: Dict[str, str]) -> Point:
        self.identity()
        key, survivor = merge.machine_key, merge.survivor
        with self._locked(key):
            if not local_exchange.ended(self._paths, merge, digests, self._shelf(key)):
                journal = local_merge.require_open(self._paths, merge)
                shelf = self._require_sound(key, survivor)
                local_exchange.gather(shelf, merge)
                local_exchange.complete(self._paths, merge, merging.merged_manifest(shelf, merge, digests, verified), journal)
                local_exchange.finish(self._paths, key)
            return self.get(key, survivor)

    def abandon_merge(self, machine_key: str, reason: str, job_id: str) -> List[str]:
        if self.recover(machine_key) or not files.exists(self._paths.journal(machine_key)):
            return []
        with self._locked(machine_key):
            local_merge.require_owned(self._paths, machine_key, job_id)
            concerned = local_merge.concerned(self._paths, machine_key, self._shelf(machine_key))
            marked = self._mark(machine_key, concerned, concerned[0], reason) if concerned else []
            local_exchange.drop(self._paths, machine_key)
            return marked

    def open_merges(self, machine_key: str) -> List[OpenMerge]:
        self.identity()
        found = local_merge.describe(self._paths, machine_key, self._shelf(machine_key))
        return [found] if found is not None else []

    def recover(self, machine_key: str) -> List[str]:
        self.identity()
        if not files.exists(self._paths.journal(machine_key)):
            return []
        with self._locked(machine_key):
            return local_exchange.finish(self._paths, machine_key)

    # --- inside ----------------------------------------------------------------------------------------------------

    @contextmanager
    def _locked(self, machine_key: str) -> Iterator[None]:
        """Hold the machine's lock; a caller that holds it already goes on with it."""
        if machine_key in self._held:
            yield
            return
        with files.locked(self._paths.lock(machine_key)):
            self._held.add(machine_key)
            try:
                yield
            finally:
                self._held.discard(machine_key)

    def _sweep(self, machine_key: str) -> List[str]:
        done = local_exchange.finish(self._paths, machine_key)
        return done + local_exchange.sweep(self._paths, machine_key) + local_removal.sweep(self._paths, machine_key)

    def _points(self, machine_key: str, lenient: bool = False) -> List[Point]:
        """All points; with a merge open under the lock, lest the survivor be read before it changes and its parent after that."""
        if not files.exists(self._paths.journal(machine_key)):
            return scan(self._paths, machine_key, lenient)
        try:
            with self._locked(machine_key):
                local_exchange.put_back(self._paths, machine_key)
                return scan(self._paths, machine_key, lenient)
        except RepositoryIoError as error:
            if error.details.get("errno") not in READ_ONLY:
                raise
        return scan(self._paths, machine_key, lenient)

    def _promised(self, machine_key: str, point_id: str) -> Point:
        """A point that is not being merged. PointNotFoundError."""
        point = self.get(machine_key, point_id)
        if point.status == MERGING:
            raise PointNotFoundError(
                f"Cannot use point {point_id} of machine {machine_key}: it has expired and is being merged into a newer one. Choose another"
                " point.",
                details={"machine_key": machine_key, "point_id": point_id},
            )
        return point

    def _mark(self, machine_key: str, point_ids: List[str], began_in: str, reason: str) -> List[str]:
        present = local_marks.read_all(self._paths, machine_key, local_marks.DAMAGE)
        new = [one for one in point_ids if one not in present]
        for one in new:
            at = utc_from_seconds(self._clock())
            mark = {"schema_version": 1, "point_id": one, "began_in": began_in, "reason": reason, "at": at}
            local_marks.write(self._paths, machine_key, local_marks.DAMAGE, one, mark)
            reached("damage:marked")
        return new

    def _shelf(self, machine_key: str) -> Shelf:
        points = self._points(machine_key)
        return Shelf(
            {point.manifest.point_id: point.manifest for point in points if point.manifest.schema_version > 0},
            lambda point_id: self._paths.point(machine_key, point_id),
            frozenset(point.manifest.point_id for point in points if point.status == MERGING),
        )

    def _require_sound(self, machine_key: str, point_id: str) -> Shelf:
        """The checks of opening. PointNotFoundError; PointDamagedError, after marking what was found."""
        point = self._promised(machine_key, point_id)
        if point.status != OK:
            raise PointDamagedError(
                f"Cannot use point {point_id} of machine {machine_key}: {point.damage}. See docs/runbooks/damaged-point.md.",
                details={"machine_key": machine_key, "point_id": point_id, "damage": point.damage},
            )
        shelf = self._shelf(machine_key)
        self._refuse_damage(machine_key, checks.structure(shelf, point_id), f"point {point_id} of machine {machine_key}")
        return shelf

    def _refuse_damage(self, machine_key: str, found: List[Finding], what: str) -> None:
        if found:
            with suppress(SendenseError):  # the damage is the news, even if it cannot be written down here
                self.mark_damaged(machine_key, found[0].point_id, found[0].message)
        checks.require_sound(found, what)

    def _require_space(self, expected_bytes: int) -> None:
        # Image metadata and block hashes take less than a thousandth of the data.
        needed = expected_bytes + expected_bytes // 1000 + self._reserve_bytes
        free = self.space().free_bytes
        if free < needed:
            raise RepositoryFullError(
                f"Cannot start the backup in {self._paths.root}: it may need {needed} bytes with the reserve, and {free} are free. Free"
                " space or choose another repository; nothing was touched.",
                details={"needed_bytes": needed, "free_bytes": free, "reserve_bytes": self._reserve_bytes},
            )
