# Copyright: (c) 2026, Sendense contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a mover is told to do: the disks of one machine and the options, checked before anything is touched."""

from __future__ import annotations

import json
import os
from collections import Counter
from dataclasses import asdict, dataclass, field, fields
from typing import Any, Dict, Iterable, List, Tuple, Type, TypeVar

from ..errors import InvalidInputError, TooManyConnectionsError
from .bandwidth import MIN_RATE
from .blockhashes import FULL, INCREMENTAL
from .cap import parse_node_bandwidth
from .hashing import BLOCK_BYTES, DEFAULT_ALGORITHM, digest_size
from .targets import MAX_CONNECTIONS, UNIX, is_disk_key, parse_uri

MAX_REQUEST_BYTES = 32 << 20
DEFAULT_PRIME_BYTES = 16 << 20

Record = TypeVar("Record")


@dataclass
class DiskJob:
    """One disk to copy. A full skips zeros, so its target must be fresh; an incremental writes zeros as zeros."""

    key: str
    """``disk<N>``."""
    source_uri: str
    target_uri: str
    level: str = FULL
    changed_context: str = ""
    """NBD meta context that marks changed ranges (incremental only)."""
    changed_flag: int = 1
    """The status bit in ``changed_context`` that means changed."""
    size_bytes: int = 0
    """What both exports must have; 0: only that both are equal is checked."""
    hashes_path: str = ""
    """Where the hash file goes; empty: no hashes (restore)."""
    audit_path: str = ""
    """A hash file of blocks as the parent says that they are (incremental only); those not copied are audited. Empty: none."""

    def check(self) -> None:
        """InvalidInputError for a value that cannot mean anything."""
        if not is_disk_key(self.key):
            raise _bad(f"the disk key {self.key!r} is not disk<N>")
        if parse_uri(self.source_uri, self.key) == parse_uri(self.target_uri, self.key):
            raise _bad(f"source and target of {self.key} are the same export")
        if self.level not in (FULL, INCREMENTAL):
            raise _bad(f"the level {self.level!r} of {self.key} is neither full nor incremental")
        if self.level == INCREMENTAL and not self.changed_context:
            raise _bad(f"{self.key} is incremental, but changed_context is missing")
        if self.level == INCREMENTAL and self.changed_flag < 1:
            raise _bad(f"changed_flag of {self.key} must be at least 1")
        if self.audit_path and self.level != INCREMENTAL:
            raise _bad(f"{self.key} has an audit, but it is not incremental")
        if self.size_bytes < 0:
            raise _bad(f"the size of {self.key} is negative")


@dataclass
class MoverOptions:
    """Options for all disks of a job. Sizes in bytes, times in seconds."""

    request_bytes: int = 1 << 20
    depth: int = 0
    """Requests in flight per disk; 0: as :mod:`.pacing` chooses."""
    prime_bytes: int = DEFAULT_PRIME_BYTES
    """One large read before a big copy makes a glibc server stop trimming its heap; 0 switches it off."""
    stall_seconds: float = 60.0
    """A server that owes an answer and sends nothing for so long ends the copy."""
    flush_seconds: float = 300.0
    """The same for the final flush, in which a slow storage may have much to write."""
    bandwidth_bytes_per_s: int = 0
    """Cap over all disks; 0: none."""
    node_bandwidth: Dict[str, Any] = field(default_factory=dict)
    """What all movers of this node may use together (:func:`.cap.parse_node_bandwidth`); empty: no cap."""
    hash_algorithm: str = DEFAULT_ALGORITHM
    threads: int = 4

    def check(self) -> None:
        """InvalidInputError for a value out of range."""
        if self.request_bytes % BLOCK_BYTES or not BLOCK_BYTES <= self.request_bytes <= MAX_REQUEST_BYTES:
            raise _bad(f"request_bytes must be a multiple of {BLOCK_BYTES} up to {MAX_REQUEST_BYTES}")
        if not 0 <= self.depth <= 64:
            raise _bad("depth must be from 0 (automatic) to 64")
        if not 0 <= self.prime_bytes <= MAX_REQUEST_BYTES:
            raise _bad(f"prime_bytes must be from 0 to {MAX_REQUEST_BYTES}")
        if self.stall_seconds <= 0 or self.flush_seconds <= 0:
            raise _bad("stall_seconds and flush_seconds must be more than 0")
        if self.bandwidth_bytes_per_s and self.bandwidth_bytes_per_s < MIN_RATE:
            raise _bad(f"a bandwidth must be 0 (no cap) or at least {MIN_RATE} bytes per second, not {self.bandwidth_bytes_per_s}")
        parse_node_bandwidth(self.node_bandwidth)
        if not 1 <= self.threads <= 64:
            raise _bad("threads must be from 1 to 64")
        digest_size(self.hash_algorithm)


def check_jobs(jobs: List[DiskJob]) -> None:
    """InvalidInputError unless every disk is well-formed and no disk, target or hash file is named twice."""
    if not jobs:
        raise _bad("it names no disks")
    for job in jobs:
        job.check()
    for what, values in (
        ("disk", [job.key for job in jobs]),
        ("target", [parse_uri(job.target_uri).uri() for job in jobs]),
        ("hash file", [os.path.abspath(job.hashes_path) for job in jobs if job.hashes_path]),
    ):
        twice = sorted({value for value in values if values.count(value) > 1})
        if twice:
            raise _bad(f"the {what} {twice[0]} is named twice")
    check_connections(
        [job.source_uri for job in jobs] + [job.target_uri for job in jobs],
        {_server(job.source_uri) for job in jobs if job.audit_path},
    )


def spare_connections(jobs: List[DiskJob]) -> int:
    """How many more connections every audited server has left, beside those of the jobs; at least 1."""
    used = Counter(_server(uri) for job in jobs for uri in (job.source_uri, job.target_uri))
    return max(1, MAX_CONNECTIONS - max((used[_server(job.source_uri)] for job in jobs if job.audit_path), default=0))


def check_connections(uris: Iterable[str], audited: Iterable[str] = ()) -> None:
    """TooManyConnectionsError if these would be more connections to one server than it serves.

    ``audited``: the servers that are also audited, each over one further connection at least.
    """
    for name, count in (Counter(_server(uri) for uri in uris) + Counter(set(audited))).items():
        if count > MAX_CONNECTIONS:
            raise TooManyConnectionsError(
                f"The plan is refused: it needs {count} connections to the export server at {name}, which serves {MAX_CONNECTIONS}. "
                "Nothing was touched. Serve the disks by several servers; where the platform serves them itself, exclude disks from "
                "the machine's backup or move some to another machine.",
                details={"server": name, "connections": count, "limit": MAX_CONNECTIONS},
            )


def _server(uri: str) -> str:
    """The address that the connections of several exports have in common."""
    target = parse_uri(uri)
    return target.socket if target.transport == UNIX else f"{target.host}:{target.port}"


def write_plan(path: str, jobs: List[DiskJob], options: MoverOptions) -> None:
    """Store a plan for the mover's command line."""
    document = {"disks": [asdict(job) for job in jobs], "options": asdict(options)}
    with open(path, "w", encoding="utf-8") as stream:
        json.dump(document, stream)


def read_plan(path: str) -> Tuple[List[DiskJob], MoverOptions]:
    """The inverse of :func:`write_plan`, checked. InvalidInputError for anything unknown or malformed."""
    document = load_document(path, ("disks", "options"))
    jobs = [record(DiskJob, item, "disk") for item in document.get("disks") or []]
    options = record(MoverOptions, document.get("options") or {}, "options")
    check_jobs(jobs)
    options.check()
    return jobs, options


def load_document(path: str, known: Tuple[str, ...]) -> Dict[str, Any]:
    """A JSON object from a file with no other members than the known ones. InvalidInputError."""
    try:
        with open(path, encoding="utf-8") as stream:
            document = json.load(stream)
    except (OSError, ValueError) as exc:
        raise _bad(f"{path!r} cannot be read: {exc}") from exc
    if not isinstance(document, dict) or set(document) - set(known) or not isinstance(document.get("disks"), list):
        raise _bad(f"{path!r} must be an object with {' and '.join(known)} only, disks being a list")
    return document


def record(cls: Type[Record], values: Any, what: str) -> Record:
    """A dataclass from JSON: no unknown, no missing members, every type as declared. InvalidInputError."""
    if not isinstance(values, dict):
        raise _bad(f"{what} is not an object")
    declared = {item.name: str(item.type) for item in fields(cls)}  # type: ignore[arg-type]
    unknown = sorted(set(values) - set(declared))
    if unknown:
        raise _bad(f"{what} has the unknown member {unknown[0]!r}")
    for name, value in values.items():
        if not _fits(declared[name], value):
            raise _bad(f"{name} of {what} must be {declared[name]}")
    try:
        return cls(**values)
    except TypeError as exc:
        raise _bad(f"{what} is incomplete: {exc}") from exc


def _fits(declared: str, value: Any) -> bool:
    if declared == "str":
        return isinstance(value, str)
    if declared == "int":
        return isinstance(value, int) and not isinstance(value, bool)
    if declared == "float":
        return isinstance(value, (int, float)) and not isinstance(value, bool)
    if declared.startswith("Dict"):
        return isinstance(value, dict)
    return isinstance(value, list) and all(isinstance(item, str) for item in value)


def _bad(why: str) -> InvalidInputError:
    return InvalidInputError(f"The plan is refused: {why}.", details={"reason": why})
