# Copyright: (c) 2026, Sendense contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The names by which this product recognises its own: checkpoints, change ids, sockets, exports, scratch files.

A bitmap keeps nothing but its name, so the name of a checkpoint says when, for whom and by which job it was made.
"""

from __future__ import annotations

import calendar
import hashlib
import json
import os
import re
import time
from dataclasses import dataclass
from typing import Iterable, Optional, Set

from ...errors import InvalidInputError
from ...model import Disk, Machine

MAX_NAME = 200
MAX_SOCKET = 107

_TIME = "%Y-%m-%d-%H-%M-%S"
_CHECKPOINT = re.compile(
    r"(?P<vm>[A-Za-z0-9_][A-Za-z0-9._-]*)-backup-(?P<time>[0-9]{4}(?:-[0-9]{2}){5})-(?P<owner>[0-9a-f]{8})-(?P<job>[0-9a-f]{8})"
)
_SOCKET = re.compile(r"sb-(?P<job>[0-9a-f]{8})-(?P<owner>[0-9a-f]{8})\.sock")
_EXPORT = re.compile(r"sendense-(?P<job>[0-9a-f]{32})-disk[0-9]+")
_SCRATCH = re.compile(r"sendense-scratch-(?P<job>[0-9a-f]{8})-disk[0-9]+\.qcow2")
_JOB_ID = re.compile(r"[0-9a-f]{32}")
_OWNER = re.compile(r"[0-9a-f]{8}")
_UNSAFE = re.compile(r"[^A-Za-z0-9._-]")


@dataclass(frozen=True)
class CheckpointName:
    """The parts of a checkpoint's name. ``created`` is seconds since 1970 (UTC); ``owner`` and ``job`` are 8 hex each."""

    vm: str
    created: int
    owner: str
    job: str

    def __str__(self) -> str:
        tail = f"-backup-{time.strftime(_TIME, time.gmtime(self.created))}-{self.owner}-{self.job}"
        return self.vm[: MAX_NAME - len(tail)] + tail

    @classmethod
    def make(cls, vm_name: str, created: int, owner: str, job_id: str) -> "CheckpointName":
        """The name for a new checkpoint; the machine's name is made safe and shortened."""
        safe = _UNSAFE.sub("_", vm_name) or "_"
        if not re.match(r"[A-Za-z0-9_]", safe):
            safe = "_" + safe[1:]
        return cls(safe, created, owner, job_id[:8])

    @classmethod
    def parse(cls, text: str) -> "Optional[CheckpointName]":
        """The parts, or None if the name is not one of ours."""
        found = _CHECKPOINT.fullmatch(text)
        if found is None or len(text) > MAX_NAME:
            return None
        try:
            created = calendar.timegm(time.strptime(found["time"], _TIME))
        except ValueError:
            return None
        return cls(found["vm"], created, found["owner"], found["job"])


@dataclass(frozen=True)
class ChangeId:
    """What an incremental of one disk starts from: the checkpoint, and what must still be true of the disk.

    The text is opaque to everybody else, but the checkpoint's name stands in it verbatim.
    """

    checkpoint: str
    machine_id: str
    device: str
    path: str
    size_bytes: int
    snapshots: str
    current_snapshot: str

    def encode(self) -> str:
        """The text that the backup stores."""
        fields = {"v": 1, "checkpoint": self.checkpoint, "machine": self.machine_id, "device": self.device, "path": self.path}
        fields.update(size=self.size_bytes, snapshots=self.snapshots, current=self.current_snapshot)
        return json.dumps(fields, sort_keys=True, separators=(",", ":"))

    @classmethod
    def decode(cls, text: str) -> "Optional[ChangeId]":
        """The parts, or None for anything that this version did not write."""
        try:
            data = json.loads(text)
            if not isinstance(data, dict) or data["v"] != 1:
                return None
            values = [data[name] for name in ("checkpoint", "machine", "device", "path", "size", "snapshots", "current")]
        except (ValueError, KeyError):
            return None
        texts_only = all(isinstance(value, str) for value in values[:4] + values[5:])
        return cls(*values) if texts_only and isinstance(values[4], int) else None

    @classmethod
    def of(cls, machine: Machine, disk: Disk, checkpoint: str, current_snapshot: str) -> "ChangeId":
        """The change id of a disk as it is now."""
        seen = fingerprint(*sorted(machine.snapshots))
        current = fingerprint(current_snapshot)
        return cls(checkpoint, machine.id, disk.device, fingerprint(disk.path), disk.size_bytes, seen, current)


def fingerprint(*texts: str) -> str:
    """16 hex that stand for these texts."""
    joined = "\0".join(texts).encode("utf-8", "surrogateescape")
    return hashlib.sha256(joined).hexdigest()[:16]


def checkpoints_in(change_ids: Iterable[str]) -> Set[str]:
    """The names of all checkpoints that these change ids need."""
    decoded = (ChangeId.decode(text) for text in change_ids)
    return {change_id.checkpoint for change_id in decoded if change_id is not None}


def require_ids(job_id: str, owner: str) -> None:
    """InvalidInputError unless the job id is 32 hex and the owner 8 hex: both become part of names."""
    if not _JOB_ID.fullmatch(job_id):
        raise InvalidInputError(f"The job id {job_id!r} is not 32 lower-case hex digits.")
    if not _OWNER.fullmatch(owner):
        raise InvalidInputError(f"The owner {owner!r} of the change chain is not 8 lower-case hex digits.")


def socket_path(directory: str, job_id: str, owner: str) -> str:
    """Where qemu serves the job's disks. InvalidInputError if the path is too long for a unix socket."""
    path = os.path.join(directory, f"sb-{job_id[:8]}-{owner}.sock")
    if len(os.fsencode(path)) > MAX_SOCKET:
        raise InvalidInputError(f"The socket path {path} is longer than {MAX_SOCKET} bytes. Use a shorter work or scratch directory.")
    return path


def parse_socket(path: str) -> "Optional[tuple[str, str]]":
    """Job (8 hex) and owner of a socket of ours, else None."""
    found = _SOCKET.fullmatch(os.path.basename(path))
    return (found["job"], found["owner"]) if found else None


def export_name(job_id: str, key: str) -> str:
    """The NBD export of one disk in a job."""
    return f"sendense-{job_id}-{key}"


def parse_export(name: str) -> str:
    """The job id (32 hex) in an export's name, empty if it is not ours."""
    found = _EXPORT.fullmatch(name)
    return found["job"] if found else ""


def scratch_name(job_id: str, key: str) -> str:
    """The scratch file of one disk in a job."""
    return f"{scratch_prefix(job_id)}{key}.qcow2"


def scratch_prefix(job_id: str) -> str:
    """How the scratch files of a job begin."""
    return f"sendense-scratch-{job_id[:8]}-"


def parse_scratch(name: str) -> str:
    """The job (8 hex) of a scratch file of ours, else empty."""
    found = _SCRATCH.fullmatch(name)
    return found["job"] if found else ""
