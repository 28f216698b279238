# Copyright: (c) 2026, Sendense contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Every failure of the product has one shape, so that a person, a play and the runner can all act on it.

A message says what failed, on which object, why, and what to do. ``error_code`` is stable and documented;
``details`` holds the facts as data; ``retryable`` says whether the same call may succeed later unchanged.
"""

from __future__ import annotations

from typing import Any, ClassVar, Dict, Optional, Type


class SendenseError(Exception):
    """Base of all typed errors. Connectors raise these; only ``main()`` and worker loops catch them broadly."""

    error_code: ClassVar[str] = "INTERNAL_ERROR"
    retryable: ClassVar[bool] = False

    def __init__(self, msg: str, *, details: Optional[Dict[str, Any]] = None, retryable: Optional[bool] = None) -> None:
        super().__init__(msg)
        self.msg = msg
        self.details: Dict[str, Any] = dict(details or {})
        if retryable is not None:
            self.retryable = retryable  # type: ignore[misc]

    def as_result(self) -> Dict[str, Any]:
        """The error as the fields that every module, status file and API answer carries."""
        return {
            "msg": self.msg,
            "error_code": self.error_code,
            "details": self.details,
            "retryable": self.retryable,
        }


class InvalidInputError(SendenseError):
    """An argument cannot mean anything; nothing was touched."""

    error_code = "INVALID_INPUT"


class DependencyMissingError(SendenseError):
    """A program or Python library that this step needs is not installed at this place."""

    error_code = "DEPENDENCY_MISSING"


# --- platforms -------------------------------------------------------------------------------------------------


class PlatformUnreachableError(SendenseError):
    """The platform's API did not answer."""

    error_code = "PLATFORM_UNREACHABLE"
    retryable = True


class PlaceUnreachableError(SendenseError):
    """The controller has lost the connection to the hub or the node, or never had it; what runs there ends by itself."""

    error_code = "PLACE_UNREACHABLE"
    retryable = True


class PlatformAuthenticationError(SendenseError):
    """The platform answered and refused the credentials or the privilege."""

    error_code = "PLATFORM_AUTHENTICATION"


class MachineNotFoundError(SendenseError):
    """No machine with this id exists on the platform."""

    error_code = "MACHINE_NOT_FOUND"


class MachineHasNoDisksError(SendenseError):
    """The machine has no disk that can be backed up."""

    error_code = "MACHINE_HAS_NO_DISKS"


class DiskExcludedError(SendenseError):
    """The platform cannot snapshot one of the disks and the policy does not allow leaving it out."""

    error_code = "DISK_EXCLUDED"


class SnapshotFailedError(SendenseError):
    """The platform could not make the snapshot of all disks at once; nothing of it is left."""

    error_code = "SNAPSHOT_FAILED"
    retryable = True


class ForeignJobError(SendenseError):
    """A block job, snapshot or checkpoint of somebody else stands in the way; it was not touched."""

    error_code = "FOREIGN_JOB"
    retryable = True


class PlatformJobLostError(SendenseError):
    """The platform believes in a job of the machine that it has lost, and refuses every new one until a person helps it."""

    error_code = "PLATFORM_JOB_LOST"


class QuiesceFailedError(SendenseError):
    """The guest could not be quiesced and the policy does not allow a crash-consistent point."""

    error_code = "QUIESCE_FAILED"
    retryable = True


class SourceVanishedError(SendenseError):
    """The machine or its export went away while it was being read."""

    error_code = "SOURCE_VANISHED"
    retryable = True


class MachineExistsError(SendenseError):
    """A restore would overwrite a machine, a disk or a file that is not ours."""

    error_code = "MACHINE_EXISTS"


class TargetFailedError(SendenseError):
    """The target platform refused to create, define or start the machine."""

    error_code = "TARGET_FAILED"


# --- repositories ----------------------------------------------------------------------------------------------


class RepositoryMissingError(SendenseError):
    """The path holds no repository marker: never initialised, or not mounted."""

    error_code = "REPOSITORY_MISSING"


class RepositoryMismatchError(SendenseError):
    """The path holds another repository than the one that was asked for."""

    error_code = "REPOSITORY_MISMATCH"


class RepositoryFullError(SendenseError):
    """The repository has not the space that this backup may need."""

    error_code = "REPOSITORY_FULL"
    retryable = True


class RepositoryIoError(SendenseError):
    """The storage below the repository failed a read, a write or a flush."""

    error_code = "REPOSITORY_IO"
    retryable = True


class PointNotFoundError(SendenseError):
    """No such backup in this repository."""

    error_code = "POINT_NOT_FOUND"


class PointDamagedError(SendenseError):
    """The backup, or one that it depends on, is not what was committed."""

    error_code = "POINT_DAMAGED"


class SchemaUnknownError(SendenseError):
    """A newer version of this product wrote this; it was not touched, and only an upgrade can read it."""

    error_code = "SCHEMA_UNKNOWN"


class PointImmutableError(SendenseError):
    """The backup may not be deleted or changed before a stated time."""

    error_code = "POINT_IMMUTABLE"


class PointInUseError(SendenseError):
    """The backup has dependants or is being read; it was not touched."""

    error_code = "POINT_IN_USE"
    retryable = True


class ExpiryRefusedError(SendenseError):
    """More backups would expire at once than the policy allows unasked; nothing was removed."""

    error_code = "EXPIRY_REFUSED"


class FencedError(SendenseError):
    """A newer job has taken over this machine; the result of this one was refused."""

    error_code = "FENCED"


class CapabilityMissingError(SendenseError):
    """This connector cannot do what was asked, by its nature; see its capabilities."""

    error_code = "CAPABILITY_MISSING"


# --- jobs, ports, data path ------------------------------------------------------------------------------------


class JobRunningError(SendenseError):
    """A job for this machine is already running."""

    error_code = "JOB_RUNNING"
    retryable = True


class JobNotFoundError(SendenseError):
    """No such job at this place, or its keeper is dead."""

    error_code = "JOB_NOT_FOUND"


class JobAbandonedError(SendenseError):
    """The job's heartbeat stopped, so its keeper undid it."""

    error_code = "JOB_ABANDONED"
    retryable = True


class JobCancelledError(SendenseError):
    """The job was cancelled on request."""

    error_code = "JOB_CANCELLED"


class KeeperFailedError(SendenseError):
    """The process that keeps a job at a place did not start, or it hangs."""

    error_code = "KEEPER_FAILED"
    retryable = True


class PortsExhaustedError(SendenseError):
    """The port pool did not have the ports within the stated wait."""

    error_code = "PORTS_EXHAUSTED"
    retryable = True


class LeaseHeldError(SendenseError):
    """Another living process holds the lease."""

    error_code = "LEASE_HELD"
    retryable = True


class ExportFailedError(SendenseError):
    """An NBD export did not start, died, or is not the one that was expected."""

    error_code = "EXPORT_FAILED"
    retryable = True


class PortBusyError(ExportFailedError):
    """A program outside the port pool listens on the port that an export server was to use."""

    error_code = "PORT_BUSY"


class TooManyConnectionsError(SendenseError):
    """A copy would need more connections to one export server than it serves; nothing was touched."""

    error_code = "TOO_MANY_CONNECTIONS"


class TunnelFailedError(SendenseError):
    """The SSH connection that carries the data between node and hub was refused, could not be made, or was lost."""

    error_code = "TUNNEL_FAILED"
    retryable = True


class CopyFailedError(SendenseError):
    """Reading or writing a disk failed."""

    error_code = "COPY_FAILED"
    retryable = True


class CopyStalledError(SendenseError):
    """No byte moved for longer than the watchdog allows."""

    error_code = "COPY_STALLED"
    retryable = True


class VerificationFailedError(SendenseError):
    """What was read back is not what was read from the source."""

    error_code = "VERIFICATION_FAILED"
    retryable = True


class TrackingLiedError(SendenseError):
    """Blocks that change tracking called unchanged are not what the repository holds; nothing was committed."""

    error_code = "TRACKING_LIED"


class FindingsRemainError(SendenseError):
    """The doctor found errors that it did not mend."""

    error_code = "FINDINGS_REMAIN"


class ImageRejectedError(SendenseError):
    """An image header is not one that this product wrote or may open."""

    error_code = "IMAGE_REJECTED"


def error_classes() -> Dict[str, Type[SendenseError]]:
    """All typed errors by code: the source of docs/reference/error-codes.md and of every decoder."""
    found: Dict[str, Type[SendenseError]] = {}
    pending = [SendenseError]
    while pending:
        cls = pending.pop()
        found[cls.error_code] = cls
        pending.extend(cls.__subclasses__())
    return dict(sorted(found.items()))


def from_result(result: Dict[str, Any]) -> SendenseError:
    """Rebuild the typed error that another process reported with :meth:`SendenseError.as_result`."""
    cls = error_classes().get(str(result.get("error_code")), SendenseError)
    return cls(
        str(result.get("msg", "unknown error")),
        details=result.get("details") or {},
        retryable=bool(result.get("retryable", cls.retryable)),
    )
