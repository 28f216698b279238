# Copyright: (c) 2026, Sendense contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Ending a merge: the survivor's new form takes its place, and what was consumed goes. The machine's lock is always held.

Every step may be repeated after a crash; the survivor is whole before and after each, because old and new form hold the
same content. What has been done is told by the journal and by which of two manifests lies where.
"""

from __future__ import annotations

import hashlib
import os
from dataclasses import replace
from typing import Dict, List

from ..catalog.manifest import MAXIMUM_BYTES, Manifest
from ..errors import PointDamagedError
from ..steps import reached
from . import local_files as files
from . import local_journal as journals
from . import merging
from ._base import OpenMerge
from .checks import Shelf
from .local_journal import Journal
from .local_paths import MANIFEST, MERGED, PREPARING, REPLACED, Paths
from .local_removal import take_away


def complete(paths: Paths, merge: OpenMerge, manifest: Manifest, journal: Journal) -> Journal:
    """Write the manifest into the work directory, which gets its name as the survivor's new form; the journal as it is now."""
    key, content = merge.machine_key, manifest.to_text().encode("ascii")
    files.write_durable(os.path.join(merge.path, MANIFEST), content)
    files.sync_directory(merge.path)
    journal = replace(journal, manifest_sha256=hashlib.sha256(content).hexdigest())
    journals.write(paths, key, journal)
    reached("merge:manifest-written")
    files.remove_directory(paths.merged(key, merge.survivor))
    files.rename(merge.path, paths.merged(key, merge.survivor))
    reached("merge:prepared")
    return journal


def gather(shelf: Shelf, merge: OpenMerge) -> None:
    """Bring the files of the survivor's new form into the work directory, each as a second name of a file that is there."""
    manifest = shelf.manifests[merge.survivor]
    by_key = {disk.key: disk for disk in manifest.disks}
    own = shelf.directory(merge.survivor)
    for disk in merge.disks:
        known = by_key[disk.key]
        if disk.action != merging.COPY:
            files.link(disk.base, os.path.join(merge.path, known.file))
        if disk.action == merging.KEEP:
            files.link(os.path.join(own, known.hashes_file), os.path.join(merge.path, known.hashes_file))
    for part in (manifest.native, manifest.nvram):
        if part:
            files.link(os.path.join(own, part["file"]), os.path.join(merge.path, part["file"]))
    files.sync_directory(merge.path)


def settle(paths: Paths, key: str, journal: Journal) -> bool:
    """Put the survivor's new form in its place if it is complete; whether it is there now. RepositoryIoError."""
    point, merged = paths.point(key, journal.survivor), paths.merged(key, journal.survivor)
    if not journal.manifest_sha256:
        return False
    if _manifest_digest(point) == journal.manifest_sha256:
        return True
    if _manifest_digest(merged) != journal.manifest_sha256:
        return False
    if not files.exists(point):  # a crash between the two renames
        files.rename(merged, point)
    elif not files.exchange(merged, point):
        files.rename(point, paths.replaced(key, journal.survivor))
        reached("merge:moved-aside")
        files.rename(merged, point)
    reached("merge:exchanged")
    return True


def ended(paths: Paths, merge: OpenMerge, digests: Dict[str, str], shelf: Shelf) -> bool:
    """Whether this very merge is over: no merge is open, and the survivor's images have the digests of its result."""
    manifest = shelf.manifests.get(merge.survivor)
    if manifest is None or files.exists(paths.journal(merge.machine_key)):
        return False
    present = {disk.key: disk.file_digest for disk in manifest.disks}
    return bool(digests) and all(present.get(key) == digest for key, digest in digests.items())


def put_back(paths: Paths, key: str) -> None:
    """Give the survivor its name again if a crash fell between the two renames that stand for an exchange."""
    try:
        journal = journals.read(paths, key)
    except PointDamagedError:
        return
    if journal is not None and not files.exists(paths.point(key, journal.survivor)):
        settle(paths, key, journal)


def finish(paths: Paths, key: str) -> List[str]:
    """Redo what a crash interrupted after the survivor's new form was complete; what was done.

    Nothing is done with a journal that cannot be read: the points are listed as damaged, and the next backup is a full one.
    """
    try:
        journal = journals.read(paths, key)
    except PointDamagedError:
        return []
    if journal is None or not settle(paths, key, journal):
        return []
    done = [f"{journal.survivor} has taken the place of {', '.join(journal.consumed) or 'its chain'}"]
    for point_id in reversed(journal.consumed):
        if take_away(paths, key, point_id):
            done.append(f"{point_id} removed")
        reached("merge:consumed-removed")
    _remove_leftovers(paths, key, journal.survivor)
    journals.remove(paths, key)
    reached("merge:journal-removed")
    return done


def drop(paths: Paths, key: str) -> None:
    """End a merge whose result did not take its place."""
    journals.remove(paths, key)
    sweep(paths, key)


def sweep(paths: Paths, key: str) -> List[str]:
    """Remove what merges left that are not open any more; the names."""
    if files.exists(paths.journal(key)):
        return []
    removed: List[str] = []
    for suffix in (MERGED + PREPARING, MERGED, REPLACED):
        for point_id in paths.point_ids(key, suffix):
            # Without the point itself, what lies here may be all that there is of it.
            if files.exists(paths.point(key, point_id)):
                files.remove_directory(paths.point(key, point_id) + suffix)
                removed.append(f"{point_id}{suffix}")
    return removed


def _remove_leftovers(paths: Paths, key: str, survivor: str) -> None:
    for path in (paths.merged(key, survivor), paths.replaced(key, survivor), paths.merging(key, survivor)):
        files.remove_directory(path)


def _manifest_digest(directory: str) -> str:
    content = files.read_file(os.path.join(directory, MANIFEST), MAXIMUM_BYTES) if files.is_directory(directory) else None
    return hashlib.sha256(content or b"").hexdigest()
