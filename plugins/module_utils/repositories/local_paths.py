# Copyright: (c) 2026, Sendense contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Where things lie in a local repository. No path is built before every external part of it has been checked."""

from __future__ import annotations

import os
from typing import List

from ..catalog.fields import JOB_ID, MACHINE_KEY, POINT_ID
from ..errors import InvalidInputError
from . import local_files as files

MARKER = "sendense-repository.json"
MANIFEST = "manifest.json"
JOB = "job.json"
PARTIAL = ".partial"
PREPARING = ".preparing"
DELETING = ".deleting"
MERGED = ".merged"
REPLACED = ".replaced"


def require_machine_key(key: str) -> str:
    """The key itself if it may become part of a path. InvalidInputError."""
    if not isinstance(key, str) or not MACHINE_KEY.fullmatch(key):
        raise InvalidInputError(f"Cannot use {key!r} as a machine key: it is not <platform>-<id>. Take it from the list of backups.")
    return key


def require_point_id(point_id: str) -> str:
    """The id itself if it may become part of a path. InvalidInputError."""
    if not isinstance(point_id, str) or not POINT_ID.fullmatch(point_id):
        raise InvalidInputError(
            f"Cannot use {point_id!r} as a point id: it is not like 20261120T115400Z-0123abcd. Take it from the list of backups."
        )
    return point_id


def require_job_id(job_id: str) -> str:
    """The id itself if it is one. InvalidInputError."""
    if not isinstance(job_id, str) or not JOB_ID.fullmatch(job_id):
        raise InvalidInputError(f"Cannot use {job_id!r} as a job id: it is not 32 hexadecimal digits. Take it from the job's start.")
    return job_id


class Paths:
    """Paths below one repository directory. Methods raise InvalidInputError for keys and ids that are not safe."""

    def __init__(self, root: str) -> None:
        self.root = root
        self.marker = os.path.join(root, MARKER)
        self.machines = os.path.join(root, "machines")

    def machine(self, key: str) -> str:
        """Directory of one machine."""
        return os.path.join(self.machines, require_machine_key(key))

    def points(self, key: str) -> str:
        """Directory of a machine's points."""
        return os.path.join(self.machine(key), "points")

    def point(self, key: str, point_id: str) -> str:
        """Directory of a committed point."""
        return os.path.join(self.points(key), require_point_id(point_id))

    def partial(self, key: str, point_id: str) -> str:
        """Directory of a point that is being written."""
        return self.point(key, point_id) + PARTIAL

    def preparing(self, key: str, point_id: str) -> str:
        """Directory of a partial point before its job.json is in it."""
        return self.point(key, point_id) + PREPARING

    def deleting(self, key: str, point_id: str) -> str:
        """Directory of a point that is being removed and counts no more."""
        return self.point(key, point_id) + DELETING

    def merged(self, key: str, point_id: str) -> str:
        """Directory with the complete new form of the survivor of a merge; after the exchange, with its old form."""
        return self.point(key, point_id) + MERGED

    def merging(self, key: str, point_id: str) -> str:
        """Work directory of a merge: what :meth:`merged` is before it is complete."""
        return self.point(key, point_id) + MERGED + PREPARING

    def replaced(self, key: str, point_id: str) -> str:
        """Directory with the old form of a survivor where the file system cannot exchange two names."""
        return self.point(key, point_id) + REPLACED

    def journal(self, key: str) -> str:
        """File that says which merge of the machine is open."""
        return os.path.join(self.machine(key), "merge.json")

    def generation(self, key: str) -> str:
        """File with the machine's newest fencing token."""
        return os.path.join(self.machine(key), "generation")

    def lock(self, key: str) -> str:
        """File that is locked while names in the machine's directory change."""
        return os.path.join(self.machine(key), "lock")

    def marks(self, key: str, kind: str) -> str:
        """Directory of the marks of one kind (``damage`` or ``immutable``)."""
        return os.path.join(self.machine(key), kind)

    def mark(self, key: str, kind: str, point_id: str) -> str:
        """File of one point's mark."""
        return os.path.join(self.marks(key, kind), f"{require_point_id(point_id)}.json")

    def make_machine(self, key: str) -> None:
        """Make the directories of a machine. RepositoryIoError, RepositoryFullError."""
        for path in (self.machines, self.machine(key), self.points(key)):
            files.make_directory(path)

    def machine_keys(self) -> List[str]:
        """Keys of the machines that have a directory, sorted."""
        found = files.names(self.machines)
        return [name for name in found if MACHINE_KEY.fullmatch(name) and files.is_directory(os.path.join(self.machines, name))]

    def point_ids(self, key: str, suffix: str = "") -> List[str]:
        """Ids that a machine's points directory names with ``suffix``, oldest first; anything else there is not ours."""
        found = [name for name in files.names(self.points(key)) if name.endswith(suffix)]
        ids = [name[: len(name) - len(suffix)] for name in found]
        return [point_id for point_id in ids if POINT_ID.fullmatch(point_id)]
