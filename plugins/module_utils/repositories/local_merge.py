# Copyright: (c) 2026, Sendense contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Beginning a merge, and what is done for it while its data is moved. The machine's lock is held where it is said."""

from __future__ import annotations

import os
from typing import Dict, List, Optional

from ..catalog import chain
from ..datapath.images import create_qcow2
from ..errors import FencedError, PointDamagedError, PointImmutableError, PointInUseError, RepositoryFullError
from ..steps import reached
from . import local_files as files
from . import local_immutability as immutability
from . import local_journal as journals
from . import local_marks as marks
from . import merging
from ._base import MergeDisk, OpenMerge
from .checks import Shelf
from .local_journal import Journal
from .local_paths import MANIFEST, Paths
from .local_points import dependants


def begin(paths: Paths, key: str, shelf: Shelf, journal: Journal, now: str, reserve_bytes: int) -> OpenMerge:
    """Write the journal and make the work directory; the lock is held and the survivor's chain is sound.

    ``now`` is UTC in the one spelling. Errors as of the contract; the journal is written last.
    """
    present = journals.read(paths, key)
    if present is not None and not present.same(journal.survivor, journal.consumed):
        raise _busy(key, journal.survivor, f"point {present.survivor} is the survivor of a merge that has not ended")
    merging.require_run(shelf.manifests, journal.survivor, journal.consumed)
    _require_free(paths, key, shelf, journal, now)
    work = paths.merging(key, journal.survivor)
    disks = merging.plan_disks(shelf, journal.survivor, journal.consumed, work)
    if present is None:
        _require_space(paths, journal, disks, reserve_bytes)
    for point_id in [*journal.consumed, journal.survivor]:
        immutability.release(paths, key, point_id)  # their time is over
    files.remove_directory(work)
    with files.undone_on_error(work):
        _make_work(paths, key, work, journal.survivor, disks)
        journals.write(paths, key, journal)
    reached("merge:journal-written")
    return OpenMerge(key, journal.kind, list(journal.consumed), journal.survivor, journal.job_id, disks, work)


def describe(paths: Paths, key: str, shelf: Shelf) -> Optional[OpenMerge]:
    """The machine's open merge, as its journal tells; None if there is none. No disks if its result is in its place already.

    PointDamagedError.
    """
    journal = journals.read(paths, key)
    if journal is None:
        return None
    work = paths.merging(key, journal.survivor)
    planned = all(point_id in shelf.manifests for point_id in [*journal.consumed, journal.survivor])
    disks = merging.plan_disks(shelf, journal.survivor, journal.consumed, work) if planned else []
    return OpenMerge(key, journal.kind, list(journal.consumed), journal.survivor, journal.job_id, disks, work)


def require_open(paths: Paths, merge: OpenMerge) -> Journal:
    """The journal of this merge if its job still owns it. FencedError."""
    journal = journals.read(paths, merge.machine_key)
    if journal is None or not journal.same(merge.survivor, merge.consumed) or journal.job_id != merge.job_id:
        raise _fenced(merge.machine_key, merge.survivor, "go on merging")
    return journal


def require_owned(paths: Paths, key: str, job_id: str) -> None:
    """No other job has taken the machine's open merge over; of a journal that cannot be read nobody knows. FencedError."""
    try:
        journal = journals.read(paths, key)
    except PointDamagedError:
        return
    if journal is not None and journal.job_id != job_id:
        raise _fenced(key, journal.survivor, "abandon the merge")


def sync_images(merge: OpenMerge) -> List[MergeDisk]:
    """Make the images durable that data was moved into; their disks. RepositoryIoError."""
    disks = merging.moved(merge)
    for disk in disks:
        files.sync_file(disk.base)
        files.sync_directory(os.path.dirname(disk.base))
    reached("merge:data-committed")
    return disks


def concerned(paths: Paths, key: str, shelf: Shelf) -> List[str]:
    """The points whose content depends on the data of the open merge, the oldest consumed one first; none of a synthetic full.

    All of the machine's if the journal cannot be read.
    """
    try:
        journal = journals.read(paths, key)
    except PointDamagedError:
        return paths.point_ids(key)
    consumed = journal.consumed if journal is not None else []
    above = {one for point_id in consumed for one in chain.descendants(shelf.manifests, point_id)}
    return [*consumed, *sorted(above - set(consumed))]


def require_unmerged(paths: Paths, key: str, point_ids: List[str], what: str) -> None:
    """PointInUseError if an open merge consumes one of these points, or one of them is its survivor; the lock is held."""
    journal = journals.read(paths, key)
    found = [] if journal is None else [one for one in point_ids if one in [*journal.consumed, journal.survivor]]
    if found:
        raise _busy(key, found[0], f"it is part of a merge that has not ended, so you cannot {what}")


def _make_work(paths: Paths, key: str, work: str, survivor: str, disks: List[MergeDisk]) -> None:
    files.make_directory(work)
    probe = os.path.join(work, MANIFEST)
    files.link(os.path.join(paths.point(key, survivor), MANIFEST), probe)
    files.remove_file(probe)
    for disk in disks:
        if disk.action == merging.COPY:
            with files.storage_below("create the image", disk.base):
                create_qcow2(disk.base, disk.size_bytes)


def _require_free(paths: Paths, key: str, shelf: Shelf, journal: Journal, now: str) -> None:
    """Nobody but the run needs what is consumed, and nothing concerned may not be changed."""
    run = [*journal.consumed, journal.survivor]
    for point_id in journal.consumed:
        others = [other for other in dependants(paths, key, point_id) if other not in run]
        if others:
            raise _busy(key, point_id, f"{', '.join(others)} depends on it")
    kept = marks.read_all(paths, key, marks.IMMUTABLE)
    for point_id in {*run, *(other for one in run for other in chain.descendants(shelf.manifests, one))}:
        if point_id in kept and immutability.until_of(kept[point_id]) > now:
            until = immutability.until_of(kept[point_id])
            raise PointImmutableError(
                f"Cannot merge into {journal.survivor} of machine {key}: point {point_id} may not be changed before {until}. Prune then.",
                details={"machine_key": key, "point_id": point_id, "until": until},
            )


def _require_space(paths: Paths, journal: Journal, disks: List[MergeDisk], reserve_bytes: int) -> None:
    # What a merge consumes it gives back in the end; a synthetic full is as optional as a backup, and keeps the reserve.
    needed = sum(merging.growth_bytes(disk) for disk in disks) + (0 if journal.consumed else reserve_bytes)
    with files.storage("ask for the free space of", paths.root):
        status = os.statvfs(paths.root)
    free = status.f_bavail * status.f_frsize
    if free < needed:
        raise RepositoryFullError(
            f"Cannot merge into point {journal.survivor}: its image may grow by {needed} bytes, and {free} are free in {paths.root}. Free"
            " space; nothing was touched.",
            details={"needed_bytes": needed, "free_bytes": free},
        )


def _fenced(key: str, survivor: str, what: str) -> FencedError:
    return FencedError(
        f"Cannot {what} into point {survivor} of machine {key}: the merge has ended, or another job has taken it over. Prune again.",
        details={"machine_key": key, "point_id": survivor},
    )


def _busy(key: str, point_id: str, why: str) -> PointInUseError:
    return PointInUseError(
        f"Point {point_id} of machine {key} is in use: {why}. Prune again later; nothing was touched.",
        details={"machine_key": key, "point_id": point_id},
    )


def composed(shelf: Shelf, merge: OpenMerge) -> Dict[str, str]:
    """As :func:`merging.compose_hashes`, into the work directory."""
    paths = merging.compose_hashes(shelf, merge)
    files.sync_directory(merge.path)
    reached("merge:hashes-composed")
    return paths
