# Copyright: (c) 2026, Sendense contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The contract of a repository: where backups are stored.

One storage backend is one file beside this one, one line in ``registry.py``, one page under
``docs/reference/repositories`` and one subclass of the suite in ``tests/contract``. A backup ("point") is all disks of
one machine at one instant; it becomes visible by one atomic step, :meth:`Repository.commit`.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass, field
from typing import Any, ClassVar, Dict, List, Optional

from ..catalog.manifest import Manifest
from ..datapath.hashing import DEFAULT_ALGORITHM


@dataclass(frozen=True)
class RepositoryCapabilities:
    """What a backend can do, as data."""

    immutability: str
    """``none``, ``software`` (this product refuses), ``filesystem`` (the file system refuses) or ``storage`` (WORM)."""
    incremental: bool
    direct_reread: bool
    """Whether a re-read can be forced past every cache of this machine."""


@dataclass(frozen=True)
class Space:
    """Bytes on the storage below the repository."""

    total_bytes: int
    free_bytes: int


@dataclass
class PointFilter:
    """Which points to list; every field narrows. Times are UTC ISO 8601, compared with ``created_at``."""

    machine_key: str = ""
    status: str = ""
    """``ok`` or ``damaged``."""
    level: str = ""
    since: str = ""
    until: str = ""


@dataclass
class Point:
    """One committed backup as listed: its manifest and its present state."""

    manifest: Manifest
    status: str
    """``ok`` or ``damaged``."""
    damage: str = ""
    """What was found, and in which point it began."""
    immutable_until: str = ""


@dataclass
class NewDisk:
    """One disk of a point that is about to be written."""

    key: str
    disk_id: str
    size_bytes: int
    level: str
    reason: str
    change_id: str = ""
    """The token of the snapshot being read, for the next incremental."""


@dataclass
class NewPoint:
    """A point that is about to be written. ``parent_id`` empty: every disk is full."""

    machine_key: str
    job_id: str
    generation: int
    created_at: str
    disks: List[NewDisk]
    parent_id: str = ""
    expected_bytes: int = 0
    """Upper bound of the data to come, for the free-space check."""


@dataclass
class OpenPoint:
    """A point being written; plain data that survives the process. ``images`` are block nodes to serve for writing."""

    machine_key: str
    job_id: str
    generation: int
    point_id: str
    path: str
    """A directory at this place for the point's files; for ``local`` it is the point itself (``<point id>.partial``)."""
    parent_id: str
    images: Dict[str, Dict[str, Any]] = field(default_factory=dict)
    hub_id: str = ""
    """The hub whose job writes it; empty if unknown. Only that hub can say whether the job is alive."""


@dataclass(frozen=True)
class Finding:
    """One thing that is not what was committed."""

    point_id: str
    disk: str
    """Key of the disk; empty if the whole point is concerned."""
    kind: str
    """``manifest``, ``chain``, ``missing``, ``size``, ``header``, ``hashes``, ``root`` or ``digest``."""
    message: str


class Repository(ABC):
    """One repository. Methods raise RepositoryMissingError whenever the marker is not there, before anything else.

    RepositoryIoError (retryable) stands for every failure of the storage itself.
    """

    NAME: ClassVar[str]

    @abstractmethod
    def capabilities(self) -> RepositoryCapabilities:
        """What this repository can do here, probed where the answer depends on the storage."""

    @abstractmethod
    def initialise(self, hash_algorithm: str = DEFAULT_ALGORITHM) -> bool:
        """Create the identity marker; False if it was there. Refuses a directory that holds anything else.

        Never called implicitly. RepositoryMissingError if a certain repository was asked for and is not there: it may be
        unmounted, and a new one in its place would hide that.
        """

    @abstractmethod
    def identity(self) -> Dict[str, Any]:
        """The marker: ``repository_id`` (uuid), ``owner`` (its first 8 hex), ``schema_version``, ``hash_algorithm``, ``created_at``.

        RepositoryMissingError if there is none, RepositoryMismatchError if it is not the one that was asked for.
        """

    @abstractmethod
    def space(self) -> Space:
        """Free and total bytes."""

    @abstractmethod
    def machines(self) -> List[str]:
        """Keys of all machines that have a directory here, sorted."""

    @abstractmethod
    def list(self, wanted: Optional[PointFilter] = None) -> List[Point]:
        """Committed points, oldest first, from the stored manifests alone. Unreadable ones are listed as damaged."""

    @abstractmethod
    def get(self, machine_key: str, point_id: str) -> Point:
        """One point. PointNotFoundError."""

    @abstractmethod
    def raise_generation(self, machine_key: str) -> int:
        """Durably raise and return the machine's generation: the fencing token of the job that is about to write.

        The caller holds the machine's lease. Every earlier token is refused from now on.
        """

    @abstractmethod
    def create(self, new: NewPoint) -> OpenPoint:
        """Make the partial point and its empty images. On error nothing is left.

        Opening the parent checks its manifest, sizes, headers and root: PointDamagedError. RepositoryFullError if the
        storage has not ``expected_bytes`` plus the reserve. FencedError for an old generation.
        """

    @abstractmethod
    def reread_images(self, point: OpenPoint) -> Dict[str, Dict[str, Any]]:
        """Block nodes to serve read-only for the re-read, after making every file durable (fsync)."""

    @abstractmethod
    def commit(self, point: OpenPoint, manifest: Manifest) -> Point:
        """Write the manifest, make all durable, and publish by one atomic step.

        FencedError if the generation is not the newest. Repetition after success returns the committed point.
        """

    @abstractmethod
    def abort(self, machine_key: str, job_id: str) -> bool:
        """Remove the partial point of this job; False if there was none. Never touches a committed point.

        ``job_id`` as :meth:`partials` gives it.
        """

    @abstractmethod
    def partials(self, machine_key: str) -> List[OpenPoint]:
        """Points being written or left behind, without ``images``. An unreadable job has the first 8 digits as ``job_id``."""

    @abstractmethod
    def open_for_read(self, machine_key: str, point_id: str) -> Dict[str, Dict[str, Any]]:
        """Block nodes (explicit chains) by disk key, after the checks of opening. PointDamagedError, PointNotFoundError."""

    @abstractmethod
    def hash_files(self, machine_key: str, point_id: str) -> Dict[str, List[str]]:
        """Paths, at this place, of the block hash files that make up each disk, by disk key; the full's first.

        PointNotFoundError, PointDamagedError (the chain is broken). The files check themselves when they are opened.
        """

    @abstractmethod
    def files(self, machine_key: str, point_id: str) -> Dict[str, str]:
        """Paths, at this place, of what else the point holds: ``native``, ``nvram``. Digests are checked: PointDamagedError."""

    @abstractmethod
    def structure_check(self, machine_key: str, point_id: str) -> List[Finding]:
        """What is wrong with this point and the points it stands on, without reading their data; empty if nothing is.

        Manifests, chain, sizes, image headers, block hash files, and the roots of this point's disks. Marks nothing.
        PointNotFoundError.
        """

    @abstractmethod
    def digest_check(self, machine_key: str, point_id: str) -> List[Finding]:
        """Which files of this point alone are not what was committed, by digest: reads every byte of them. Marks nothing.

        PointNotFoundError.
        """

    @abstractmethod
    def mark_damaged(self, machine_key: str, point_id: str, reason: str) -> List[str]:
        """Mark a point and all that depend on it; returns the ids newly marked. Repetition returns an empty list."""

    @abstractmethod
    def delete(self, machine_key: str, point_id: str) -> bool:
        """Delete one point that nothing depends on; False if it is gone. PointImmutableError, PointInUseError.

        A partial point that is being built on it depends on it, too. A crash leaves the point whole or not listed.
        """

    @abstractmethod
    def set_immutable(self, machine_key: str, point_id: str, until: str) -> str:
        """Refuse deletion until then (UTC ISO 8601), also of all that the point stands on; returns how far it is enforced.

        Never shortens.

        CapabilityMissingError where the backend cannot.
        """
