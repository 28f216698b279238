# Copyright: (c) 2026, Sendense contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The repository in a directory: a local disk, or a file system of another machine that is mounted here.

Everything is in plain files that describe themselves; docs/reference/repositories/local.md shows the layout, and
docs/runbooks/restore-by-hand.md restores without this code. The work is done in the ``local_*`` files beside this one.
"""

from __future__ import annotations

import os
import time
from contextlib import contextmanager, suppress
from typing import Any, Callable, Dict, Iterator, List, Optional

from ..catalog import chain
from ..catalog.fields import INCREMENTAL
from ..catalog.manifest import Manifest
from ..catalog.times import utc_from_seconds, utc_text
from ..datapath.hashing import DEFAULT_ALGORITHM
from ..errors import InvalidInputError, PointDamagedError, PointNotFoundError, RepositoryFullError, RepositoryIoError, SendenseError
from ..steps import reached
from . import checks, local_generation, local_immutability, local_marker, local_marks, local_partial, local_removal
from . import local_files as files
from ._base import Finding, NewPoint, OpenPoint, Point, PointFilter, Repository, RepositoryCapabilities, Space
from .checks import Shelf
from .local_paths import PARTIAL, Paths, require_point_id
from .local_points import OK, partial_of_job, scan

RESERVE_BYTES = 256 << 20


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
                for point in scan(self._paths, key, lenient=True)
                if wanted.status in ("", point.status)
                and wanted.level in ("", point.manifest.level)
                and since <= point.manifest.created_at
                and (not until or point.manifest.created_at <= until)
            ]
        return sorted(found, key=lambda point: point.manifest.created_at)

    def get(self, machine_key: str, point_id: str) -> Point:
        self.identity()
        require_point_id(point_id)
        for point in scan(self._paths, machine_key):
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
        manifest, shelf = self.get(machine_key, point_id).manifest, self._shelf(machine_key)
        checks.require_sound(checks.chain_findings(shelf, point_id), f"point {point_id}")
        return {disk.key: shelf.hash_paths(point_id, disk.id) for disk in manifest.disks}

    def files(self, machine_key: str, point_id: str) -> Dict[str, str]:
        self.get(machine_key, point_id)
        shelf = self._shelf(machine_key)
        self._refuse_damage(machine_key, checks.side_files(shelf, point_id), f"the files of point {point_id}")
        manifest = shelf.manifests[point_id]
        parts = {"native": manifest.native, "nvram": manifest.nvram}
        return {name: shelf.path(point_id, part["file"]) for name, part in parts.items() if part}

    def structure_check(self, machine_key: str, point_id: str) -> List[Finding]:
        point = self.get(machine_key, point_id)
        shelf = self._shelf(machine_key)
        if point_id not in shelf.manifests:
            return [Finding(point_id, "", "manifest", point.damage)]
        return checks.structure(shelf, point_id)

    def digest_check(self, machine_key: str, point_id: str) -> List[Finding]:
        point = self.get(machine_key, point_id)
        shelf = self._shelf(machine_key)
        if point_id not in shelf.manifests:
            return [Finding(point_id, "", "manifest", point.damage)]
        return checks.digests(shelf, point_id)

    def mark_damaged(self, machine_key: str, point_id: str, reason: str) -> List[str]:
        self.get(machine_key, point_id)
        with self._locked(machine_key):
            present = local_marks.read_all(self._paths, machine_key, local_marks.DAMAGE)
            concerned = [point_id, *chain.descendants(self._shelf(machine_key).manifests, point_id)]
            new = [one for one in concerned if one not in present]
            for one in new:
                at = utc_from_seconds(self._clock())
                mark = {"schema_version": 1, "point_id": one, "began_in": point_id, "reason": reason, "at": at}
                local_marks.write(self._paths, machine_key, local_marks.DAMAGE, one, mark)
                reached("damage:marked")
        return new

    def delete(self, machine_key: str, point_id: str) -> bool:
        self.identity()
        require_point_id(point_id)
        if not files.is_directory(self._paths.machine(machine_key)):
            return False
        with self._locked(machine_key):
            return local_removal.delete(self._paths, machine_key, point_id, utc_from_seconds(self._clock()))

    def set_immutable(self, machine_key: str, point_id: str, until: str) -> str:
        utc_text(until)
        self.get(machine_key, point_id)
        manifests = self._shelf(machine_key).manifests
        below = chain.ancestors(manifests, point_id) if point_id in manifests else []
        with self._locked(machine_key):
            enforced = [local_immutability.protect(self._paths, machine_key, one, until) for one in [*reversed(below), point_id]]
        return enforced[0] if len(set(enforced)) == 1 else local_immutability.SOFTWARE

    # --- writing ---------------------------------------------------------------------------------------------------

    def raise_generation(self, machine_key: str) -> int:
        self.identity()
        self._paths.make_machine(machine_key)
        with self._locked(machine_key):
            local_removal.sweep(self._paths, machine_key)
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
            return local_removal.sweep(self._paths, machine_key)

    # --- inside ----------------------------------------------------------------------------------------------------

    @contextmanager
    def _locked(self, machine_key: str) -> Iterator[None]:
        with files.locked(self._paths.lock(machine_key)):
            yield

    def _shelf(self, machine_key: str) -> Shelf:
        readable = [point.manifest for point in scan(self._paths, machine_key) if point.manifest.schema_version > 0]
        return Shelf({manifest.point_id: manifest for manifest in readable}, lambda point_id: self._paths.point(machine_key, point_id))

    def _require_sound(self, machine_key: str, point_id: str) -> Shelf:
        """The checks of opening. PointNotFoundError; PointDamagedError, after marking what was found."""
        point = self.get(machine_key, point_id)
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
