# Copyright: (c) 2026, Sendense contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The contracts of a platform: :class:`Source` is read from, :class:`Target` is restored to.

Every platform is one folder beside this file, one line in ``registry.py``, one page under ``docs/reference/platforms``
and one subclass of each contract suite in ``tests/contract``. Connectors raise typed errors of ``errors.py``; they never
print, exit, retry silently or know about Ansible.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import asdict, dataclass, field
from typing import Any, ClassVar, Dict, List, Optional

from ..model import Disk, Machine

FULL = "full"
INCREMENTAL = "incremental"

#: Consistency levels, weakest first.
CRASH, FILE_SYSTEM, APPLICATION = "crash", "filesystem", "application"

#: Why a disk is read in full. The texts behind them are in docs/reference/full-backup-reasons.md.
REASONS = (
    "no_previous_backup",
    "previous_damaged",
    "disk_set_changed",
    "disk_size_changed",
    "disk_path_changed",
    "change_id_of_another_epoch",
    "tracking_unsupported",
    "tracking_missing",
    "tracking_inconsistent",
    "tracking_error",
    "foreign_snapshot",
    "machine_reverted",
    "tracking_lied",
    "chain_too_deep",
    "requested",
)


#: What can be wrong with the change tracking of a machine and with what jobs left at it; docs/runbooks/doctor-findings.md.
TRACKING_FINDINGS = (
    "tracking_inconsistent",
    "checkpoint_without_bitmap",
    "bitmap_without_checkpoint",
    "tracking_unneeded",
    "tracking_lost",
    "checkpoint_chain_broken",
    "source_image_unreadable",
    "scratch_left",
)


@dataclass(frozen=True)
class SourceCapabilities:
    """What a source can do, as data."""

    change_tracking: bool
    """Whether incrementals are possible at all."""
    quiesce: bool
    """Whether the guest can be asked to flush and freeze."""
    powered_off: bool
    """Whether machines that are switched off can be backed up."""


@dataclass
class PreviousDisk:
    """What the newest usable backup in one repository knows about one disk."""

    disk_id: str
    size_bytes: int
    change_id: str
    """The source's own opaque token; empty if that backup has none for this disk."""


@dataclass
class SnapshotRequest:
    """What a job wants of a source.

    ``owner`` (8 hex) names the change chain: the repository or replica that the job serves; change tracking state of
    other owners is foreign. ``previous`` is None where the repository has no usable backup, with ``full_reason`` saying
    why. ``known_change_ids`` are all change ids that this owner's committed backups still need.
    """

    machine_id: str
    job_id: str
    owner: str
    previous: Optional[List[PreviousDisk]] = None
    full_reason: str = "no_previous_backup"
    known_change_ids: List[str] = field(default_factory=list)
    consistency: str = FILE_SYSTEM
    """The level wanted: crash, filesystem or application."""
    allow_downgrade: bool = True
    """Whether a crash-consistent point is acceptable when quiescing fails; the downgrade is recorded."""
    skip_excluded_disks: bool = False
    """Whether disks that the platform cannot snapshot are left out (recorded) instead of failing the job."""
    work_dir: str = ""
    """A directory of this job at this place, for sockets and scratch files. At most 80 characters long."""


@dataclass
class DiskPlan:
    """How one disk will be read, decided before anything is touched."""

    key: str
    disk_id: str
    size_bytes: int
    level: str
    reason: str
    """For a full: one of REASONS. For an incremental: ``change_tracking``."""
    change_id: str = ""
    """The token that the incremental starts from."""
    expected_bytes: int = 0
    """Bytes that will be read: an estimate unless ``expected_exact``. A running machine may add to it until the snapshot."""
    expected_exact: bool = False
    """Whether change tracking itself counted the bytes, a moment ago."""


@dataclass
class SnapshotPlan:
    """The decision for a whole machine. ``warnings`` are shown by ``--check``."""

    machine: Machine
    disks: List[DiskPlan]
    consistency: str
    skipped_disks: List[Dict[str, str]] = field(default_factory=list)
    """``{"disk_id", "reason"}`` (and what else the platform knows) of disks left out."""
    warnings: List[str] = field(default_factory=list)

    @property
    def expected_bytes(self) -> int:
        """Upper bound in bytes of what the job will read."""
        return sum(disk.expected_bytes for disk in self.disks)

    def to_dict(self) -> Dict[str, Any]:
        """Plain data for JSON."""
        return asdict(self)

    @classmethod
    def from_dict(cls, data: Dict[str, Any]) -> "SnapshotPlan":
        """The inverse of :meth:`to_dict`."""
        return cls(**{**data, "machine": Machine.from_dict(data["machine"]), "disks": [DiskPlan(**disk) for disk in data["disks"]]})


@dataclass
class DiskSnapshot:
    """One disk of an open snapshot: where it can be read and what a later incremental starts from.

    Either ``uri`` names a running NBD export (at this place, or at the near end of one of the snapshot's ``forwards``), or
    ``image`` is a block node (see ``datapath.images``) that the caller serves read-only, with the bitmap ``image_bitmap`` if set,
    under ``export``.
    """

    key: str
    disk_id: str
    size_bytes: int
    level: str
    reason: str
    change_id: str
    """The token for the next incremental; empty if this disk has none."""
    export: str
    uri: str = ""
    image: Optional[Dict[str, Any]] = None
    image_bitmap: str = ""
    changed_context: str = ""
    """NBD meta context that marks changed ranges (incremental only)."""
    changed_flag: int = 1
    """The status bit in ``changed_context`` that means changed."""
    expected_bytes: int = 0


@dataclass
class Forward:
    """The way to exports that another machine serves at a unix socket of its own.

    Before the disks' URIs, which name ``socket``, can be read, the caller lets ``socket`` (at this place) lead to ``remote_socket`` (at
    the other machine), by ssh as ``route`` says: see ``datapath.ssh_route``. It ends with the job.
    """

    socket: str
    remote_socket: str
    route: Dict[str, Any]


@dataclass
class Snapshot:
    """One instant of all disks of one machine, open for reading. Plain data: survives the process that made it."""

    machine: Machine
    job_id: str
    created_at: str
    """UTC, ISO 8601 with seconds."""
    consistency: str
    """The level that was reached."""
    consistency_wanted: str
    consistency_reason: str
    """Why it is less than wanted; empty if it is not."""
    disks: List[DiskSnapshot]
    token: str
    """The source's name for this snapshot (a checkpoint name, a snapshot id)."""
    native_format: str = ""
    native_config: str = ""
    """The platform's own machine description at this instant."""
    nvram_path: str = ""
    """A copy of the firmware variables in ``work_dir``, if the machine has any."""
    skipped_disks: List[Dict[str, str]] = field(default_factory=list)
    warnings: List[str] = field(default_factory=list)
    incarnation: Dict[str, str] = field(default_factory=dict)
    """By what a later snapshot can tell that change tracking was interrupted meanwhile, as far as the platform says:
    ``host`` (this boot of the host), ``run`` (this run of the machine; empty while it is off), ``began`` (how that run began, if not
    in the usual way: ``restored``, ``crashed``)."""
    forwards: List[Forward] = field(default_factory=list)
    """What the caller must set up before the exports can be reached; none where the platform serves them at this place."""

    def to_dict(self) -> Dict[str, Any]:
        """Plain data for JSON."""
        return asdict(self)

    @classmethod
    def from_dict(cls, data: Dict[str, Any]) -> "Snapshot":
        """The inverse of :meth:`to_dict`."""
        values = {name: data[name] for name in cls.__dataclass_fields__ if name in data}
        values["machine"] = Machine.from_dict(data["machine"])
        values["disks"] = [DiskSnapshot(**disk) for disk in data["disks"]]
        values["forwards"] = [Forward(**forward) for forward in data.get("forwards", [])]
        return cls(**values)


@dataclass(frozen=True)
class TrackingFinding:
    """One thing that is not in order at a machine; plain data."""

    kind: str
    """One of TRACKING_FINDINGS."""
    name: str
    """Of the checkpoint, bitmap, disk or file, verbatim."""
    message: str
    job_id: str = ""
    """The job that made it, as :meth:`Source.stale` gives it; empty if unknown."""
    created: float = 0
    """Seconds since 1970; 0 if unknown."""


class Source(ABC):
    """The side of a platform that is read from. A context manager; not shared between threads.

    Errors common to all methods: PlatformUnreachableError (retryable), PlatformAuthenticationError.
    """

    NAME: ClassVar[str]
    CAPABILITIES: ClassVar[SourceCapabilities]

    @abstractmethod
    def connect(self) -> None:
        """Open the connection. Repetition is a no-op."""

    @abstractmethod
    def close(self) -> None:
        """Close the connection; never raises; repetition is a no-op."""

    def __enter__(self) -> "Source":
        self.connect()
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    @abstractmethod
    def discover(self) -> List[Machine]:
        """All machines, sorted by id. Reads only. A machine that vanishes meanwhile is left out, never an error."""

    @abstractmethod
    def machine(self, machine_id: str) -> Machine:
        """One machine by id. MachineNotFoundError if there is none."""

    @abstractmethod
    def plan(self, request: SnapshotRequest) -> SnapshotPlan:
        """Decide full or incremental per disk, with the reason. Touches nothing; may be called any number of times.

        Any doubt about change tracking means full, never "no data" and never an error. Raises MachineNotFoundError,
        MachineHasNoDisksError, DiskExcludedError, TooManyConnectionsError (more disks than the platform serves at once),
        ForeignJobError (somebody else's job is in the way), JobRunningError (a job of ours is, alive or dead),
        CapabilityMissingError (not over this connection).
        """

    @abstractmethod
    def open_snapshot(self, request: SnapshotRequest, plan: SnapshotPlan) -> Snapshot:
        """Freeze all disks at one instant and open them for reading.

        Starts change tracking for the next run. On error nothing of it is left (SnapshotFailedError,
        QuiesceFailedError, ForeignJobError, JobRunningError) and the guest is thawed. Called once per job.

        A disk planned as incremental becomes full if its tracking turns out to be unusable: the levels and reasons that
        count are those of the result. A machine whose disks or power changed since the plan is SnapshotFailedError (retryable).
        """

    @abstractmethod
    def close_snapshot(self, machine_id: str, job_id: str, owner: str, committed: bool, known_change_ids: List[str]) -> List[str]:
        """End what ``open_snapshot`` of this job opened, thaw the guest, and return what was removed.

        ``committed`` False: also drop the new tracking state, so that the previous change id stays valid.
        ``committed`` True: also drop tracking state of this owner that ``known_change_ids`` does not name.
        May be called twice, by another process, after a crash, or when nothing is open (returns an empty list).
        Never touches what carries another owner's or another job's mark, nor the tracking state of a job that is open.
        ``owner`` empty: end this job only, and keep all tracking state. ``job_id`` may be the 8 digits that ``stale`` gave.

        Raises only after everything was tried: SnapshotFailedError (retryable) if an image is still being served, for example.
        """

    @abstractmethod
    def stale(self, machine_id: str) -> List[Dict[str, str]]:
        """What jobs of ours left at this machine: ``{"kind", "name", "job_id", "owner"}``; reads only.

        ``kind`` is ``job`` (a running backup job) or ``checkpoint``, whose ``name`` stands verbatim in the change ids that need
        it. ``job_id`` may be no more than the job's first 8 digits: a checkpoint keeps only its name. Whether a job is dead is
        the caller's knowledge. A machine that does not exist has nothing.
        """

    @abstractmethod
    def tracking_findings(self, machine_id: str, owner: str, known_change_ids: List[str]) -> List[TrackingFinding]:
        """What is wrong with this owner's change tracking and with what jobs left; reads only. Empty for a healthy machine.

        ``known_change_ids`` are those that the owner's newest backup needs. What belongs to others is not in it, nor what an
        open job has just made. A machine that does not exist has nothing.
        """

    @abstractmethod
    def mend_tracking(self, machine_id: str, owner: str, known_change_ids: List[str], finding: TrackingFinding) -> bool:
        """Mend one finding of :meth:`tracking_findings`; False if it is not there any more or cannot be mended.

        Looks again first, so that it never removes what has become sound or needed. Never touches what is not this owner's.
        SnapshotFailedError if the platform refuses.
        """

    def reached_from_elsewhere(self) -> bool:
        """Whether other places may reach these machines, too, so that a job which does not live here may live there."""
        return False

    def files_in_use(self) -> Optional[List[str]]:
        """Paths, at this place, of the files that the machines use, as far as they can be told: disks and firmware variables.

        None if the machines are somewhere else, so that nothing follows for the files of this place.
        """
        used = [[machine.nvram_path, *(disk.path for disk in machine.disks)] for machine in self.discover()]
        return sorted({path for paths in used for path in paths if path})


@dataclass
class TargetDisk:
    """One disk to create: what the caller then serves for writing (``image``) or reaches (``uri``)."""

    key: str
    disk_id: str
    size_bytes: int
    path: str = ""
    image: Optional[Dict[str, Any]] = None
    uri: str = ""


@dataclass
class TargetRequest:
    """A machine to create. ``machine`` is the description from the manifest; the other fields override it."""

    machine: Machine
    job_id: str
    name: str
    storage: str
    """Where disks go: for libvirt a directory at the node."""
    point_id: str
    """The backup that is restored: recorded at the machine, so that a repeated restore is recognised."""
    disks: List[str] = field(default_factory=list)
    """Keys of the disks to restore; empty means all."""
    networks: Dict[str, str] = field(default_factory=dict)
    """Source network name to target network name; ``*`` is the default for all others."""
    keep_mac: bool = False
    nvram_path: str = ""
    """The firmware variables of the backup, at this place."""
    format: str = "qcow2"
    """``qcow2`` or ``raw``."""


@dataclass
class PreparedMachine:
    """What ``prepare`` made; plain data that ``finish`` and ``destroy`` take back."""

    name: str
    job_id: str
    point_id: str
    disks: List[TargetDisk]
    existing_id: str = ""
    """Set if this very restore was already done: nothing was created and nothing is to be copied."""
    nvram_path: str = ""

    def to_dict(self) -> Dict[str, Any]:
        """Plain data for JSON."""
        return asdict(self)

    @classmethod
    def from_dict(cls, data: Dict[str, Any]) -> "PreparedMachine":
        """The inverse of :meth:`to_dict`."""
        return cls(**{**data, "disks": [TargetDisk(**disk) for disk in data["disks"]]})


class Target(ABC):
    """The side of a platform that is restored to. A context manager; not shared between threads."""

    NAME: ClassVar[str]

    @abstractmethod
    def connect(self) -> None:
        """Open the connection. Repetition is a no-op."""

    @abstractmethod
    def close(self) -> None:
        """Close the connection; never raises."""

    def __enter__(self) -> "Target":
        self.connect()
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    @abstractmethod
    def check(self, request: TargetRequest) -> str:
        """Refuse early, touching nothing; return the id of the machine if this very restore (point, disks) already exists.

        MachineExistsError if a machine or file of that name is not the result of this restore; InvalidInputError for an
        unknown network, storage or disk; RepositoryFullError if the storage has not the space.
        """

    @abstractmethod
    def planned(self, request: TargetRequest) -> PreparedMachine:
        """What ``prepare`` would make, as far as its names are known before; touches nothing.

        ``destroy`` takes it as an undo for a ``prepare`` that was killed in the middle.
        """

    @abstractmethod
    def prepare(self, request: TargetRequest) -> PreparedMachine:
        """Create empty disks for writing. On error nothing is left. Never overwrites a file or a machine."""

    @abstractmethod
    def finish(self, request: TargetRequest, prepared: PreparedMachine) -> Machine:
        """Define the machine once all data is flushed. Repetition returns the same machine."""

    @abstractmethod
    def power_on(self, machine_id: str) -> bool:
        """Start it; False if it was already running."""

    @abstractmethod
    def power_off(self, machine_id: str) -> bool:
        """Stop it at once; False if it was already off."""

    @abstractmethod
    def destroy(self, prepared: PreparedMachine) -> List[str]:
        """Undo ``prepare`` and ``finish`` of this job only; returns what was removed. Repetition is a no-op."""


def assign_keys(disks: List[Disk]) -> List[Disk]:
    """Give the disks of one job their keys, ``disk0``..., in machine order."""
    for position, disk in enumerate(disks):
        disk.key = f"disk{position}"
    return disks
