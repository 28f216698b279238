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
    """``ok``, ``damaged`` or ``merging``."""
    level: str = ""
    since: str = ""
    until: str = ""


@dataclass
class Point:
    """One committed backup as listed: its manifest and its present state."""

    manifest: Manifest
    status: str
    """``ok``, ``damaged``, or ``merging``: it has expired, is being merged into the next point, and is offered no more."""
    damage: str = ""
    """What was found, and in which point it began."""
    immutable_until: str = ""
    distrusted: str = ""
    """Why no incremental may be built on this point, although it is sound: change tracking since then has lied."""


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


@dataclass
class MergeDisk:
    """What has to be done for one disk of the survivor of a merge."""

    key: str
    """Key of the disk in the survivor."""
    action: str
    """``keep``: nothing. ``commit``: bring the data of ``top`` down into ``base``. ``copy``: write ``top`` into ``base`` anew."""
    top: Dict[str, Any]
    """Block node (explicit chain) whose data goes down; empty for ``keep``."""
    base: str
    """Path of the lowest image, for ``commit``, which is a member of that chain; of the new, empty image, for ``copy``."""
    size_bytes: int
    """Virtual size."""
    hashes: List[str]
    """Block hash files that make up the new image, oldest first."""

    def order(self) -> Dict[str, Any]:
        """This disk in the plan of a merger (``datapath/merger.py``)."""
        return {"key": self.key, "action": self.action, "top": self.top, "base": self.base, "size_bytes": self.size_bytes}


@dataclass
class OpenMerge:
    """A merge that has begun; plain data that survives the process. docs/design/retention.md shows its steps."""

    machine_key: str
    kind: str
    """``merge``, or ``synthetic`` if nothing is consumed and the survivor is written anew as a full."""
    consumed: List[str]
    """Oldest first."""
    survivor: str
    job_id: str
    disks: List[MergeDisk]
    path: str
    """A directory at this place for the survivor's new files."""

    @property
    def orders(self) -> List[Dict[str, Any]]:
        """The disks in the plan of a merger: those that are not kept."""
        return [disk.order() for disk in self.disks if disk.action != "keep"]


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
        """Make the partial point and its empty images. On error nothing is left. PointNotFoundError for a parent being merged.

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
    def distrust(self, machine_key: str, point_id: str, reason: str) -> bool:
        """Durably let no incremental be built on this point; False if it was so. The point itself stays what it is.

        PointNotFoundError.
        """

    @abstractmethod
    def delete(self, machine_key: str, point_id: str) -> bool:
        """Delete one point that nothing depends on; False if it is gone. PointImmutableError, PointInUseError.

        The points of an open merge, consumed and survivor, are in use.
        A partial point that is being built on it depends on it, too. A crash leaves the point whole or not listed.
        """

    # --- merging: docs/design/retention.md ---------------------------------------------------------------------------

    @abstractmethod
    def begin_merge(self, machine_key: str, survivor: str, consumed: List[str], job_id: str) -> OpenMerge:
        """Durably decide that ``consumed`` go into ``survivor``: from now on they have the status ``merging``.

        ``consumed`` are the points right below the survivor, oldest first; empty means a synthetic full. An open merge of the
        same points is taken over from its former job and begun again. The caller holds the machine's lease and, exclusively,
        those of all points that stand on the oldest of them.
        PointNotFoundError; PointInUseError if others depend on a consumed point, or another merge is open;
        PointImmutableError; PointDamagedError after the checks of opening the survivor; InvalidInputError if the points are
        no run, or nothing is to be done; RepositoryFullError, CapabilityMissingError. On error nothing was changed.
        """

    @abstractmethod
    def merged_images(self, merge: OpenMerge) -> Dict[str, Dict[str, Any]]:
        """Block nodes to re-read, by key of the disks that are not kept, after making their data durable (fsync).

        Called when the data of all disks was moved. FencedError if another job has taken the merge over.
        """

    @abstractmethod
    def merged_hashes(self, merge: OpenMerge) -> Dict[str, str]:
        """Write the composed block hashes into the work directory; their paths by key of the disks that are not kept.

        VerificationFailedError if they have not the root of the survivor; FencedError, PointDamagedError.
        """

    @abstractmethod
    def finish_merge(self, merge: OpenMerge, digests: Dict[str, str], verified: Dict[str, str]) -> Point:
        """Put the survivor's new form in its place, by one atomic step, and remove what was consumed; the survivor.

        ``digests`` are those of the image files of :meth:`merged_images`; ``verified`` says how they were re-read, as in the
        manifest. Repetition after success returns the survivor. FencedError, VerificationFailedError if the files are not
        complete or do not fit. A crash leaves what :meth:`recover` or a repetition of all finishes.
        """

    @abstractmethod
    def abandon_merge(self, machine_key: str, reason: str, job_id: str) -> List[str]:
        """End job ``job_id``'s merge whose data cannot be proved: consumed, survivor and what stands on it are marked as damaged.

        Returns the ids newly marked; an empty list if no merge was open. From then on they may be deleted. A merge whose
        result is in its place already is finished instead. FencedError if another job has taken the merge over; of a journal
        that cannot be read nobody knows whose it is, and all of the machine's points are marked.
        """

    @abstractmethod
    def open_merges(self, machine_key: str) -> List[OpenMerge]:
        """Merges that were begun and not finished: one or none. Give its points to :meth:`begin_merge` to go on."""

    @abstractmethod
    def recover(self, machine_key: str) -> List[str]:
        """Finish a merge whose result was complete, in a machine nobody else writes to; what was done, in words.

        Jobs that write for the machine need not call it: :meth:`raise_generation` does.
        """

    @abstractmethod
    def set_immutable(self, machine_key: str, point_id: str, until: str) -> str:
        """Refuse deletion until then (UTC ISO 8601), also of all that the point stands on; returns how far it is enforced.

        Never shortens. PointInUseError while the point, or one that it stands on, is being merged.

        CapabilityMissingError where the backend cannot.
        """
