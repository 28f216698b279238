# Copyright: (c) 2026, Sendense contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""One disk of a copy, from the first connection to the sealed hash file."""

from __future__ import annotations

from itertools import groupby
from typing import Any, Callable, Iterator, List, Optional

from ..errors import CopyFailedError, ExportFailedError, SendenseError
from .bandwidth import BURST_SECONDS, TokenBucket
from .blockhashes import FULL, INCREMENTAL, BlockHashWriter
from .extents import ALLOCATION, CopyPlan, Run, allocation, changes, plan_full, plan_incremental
from .hashing import BLOCK_BYTES, HashAlgorithm, algorithm, split
from .loop import end_state
from .mover_plan import DEFAULT_PRIME_BYTES, DiskJob, MoverOptions
from .nbd_handle import SOURCE, TARGET, NbdConnection
from .pacing import (
    FULL_DEPTH,
    INCREMENTAL_DEPTH,
    LARGE_BYTES,
    READS,
    UNPRIMED_BYTES,
    UNPRIMED_DEPTH,
    Line,
    Pace,
    choose,
    measure,
)
from .pipeline import ZERO_BYTES, Chunk, Piece, Pipeline, PipelineOptions, chunks
from .status import DONE, DiskProgress
from .targets import parse_uri

#: A copy of less is over before its lines are measured.
MEASURED_FROM_BYTES = 16 << 20

#: A server is only primed if 1 MiB flows so quickly: on a slow line, or under a cap, the large read would cost, not save.
PROBE_SECONDS, PRIMING_RATE = 0.25, 64 << 20

#: Up to so many disks of a copy have a second connection each, if its server greets it within so many seconds.
WIDE_DISKS, WIDE_SECONDS = 16, 2.0


class CopyHandler:
    """Hashes every block and says what is to be written: zeros are left out of a full, written as zeros otherwise."""

    def __init__(self, hasher: Optional[HashAlgorithm], writer: Optional[BlockHashWriter], write_zeros: bool) -> None:
        self._hasher = hasher
        self._writer = writer
        self._write_zeros = write_zeros

    def blocks(self, chunk: Chunk, buffer: Any) -> List[Piece]:
        """Pieces to write, neighbours alike merged."""
        if buffer.is_zero(0, chunk.length):
            self.zeros(chunk)
            return [Piece(0, chunk.length, True)] if self._write_zeros else []
        zeros = [buffer.is_zero(start, min(BLOCK_BYTES, chunk.length - start)) for start in range(0, chunk.length, BLOCK_BYTES)]
        if self._writer is not None and self._hasher is not None:
            self._writer.put(chunk.position, self._hasher.digests(split(buffer.to_buffer(), chunk.length), zeros))
        if not any(zeros):
            return [Piece(0, chunk.length, False)]
        return [piece for piece in _pieces(zeros, chunk.length) if self._write_zeros or not piece.zero]

    def zeros(self, chunk: Chunk) -> None:
        """A chunk that is zero throughout."""
        if self._writer is not None:
            self._writer.put_zeros(chunk.position, -(-chunk.length // BLOCK_BYTES))


def _pieces(zeros: List[bool], length: int) -> Iterator[Piece]:
    """The blocks of a chunk of so many bytes as data and zeros, neighbours alike merged."""
    start = 0
    for zero, alike in groupby(zeros):
        end = min(start + BLOCK_BYTES * len(list(alike)), length)
        yield Piece(start, end - start, zero)
        start = end


class Transfer:
    """The stages of one disk: prepare, prime, start, then finish or fail; close at last."""

    def __init__(self, job: DiskJob, options: MoverOptions, cancelled: Callable[[], bool]) -> None:
        self.job = job
        self.options = options
        self.progress = DiskProgress(job.key)
        self._cancelled = cancelled
        self._source: Optional[NbdConnection] = None
        self._target: Optional[NbdConnection] = None
        self._plan: Optional[CopyPlan] = None
        self._writer: Optional[BlockHashWriter] = None
        self._lines: List[Line] = []
        self._second: Optional[NbdConnection] = None
        self._primed, self._near = True, False

    def prepare(self) -> None:
        """Connect both sides, check that they fit, and plan what to read. Typed errors; nothing is written."""
        job = self.job
        hasher = algorithm(self.options.hash_algorithm) if job.hashes_path else None
        contexts = [ALLOCATION] + ([job.changed_context] if job.level == INCREMENTAL else [])
        self._source = self._open(SOURCE, job.source_uri, contexts)
        self._target = self._open(TARGET, job.target_uri, [])
        size = self._check_sizes(self._source, self._target)
        allocated = allocation(self._source, size)
        if job.level == FULL:
            self._plan = plan_full(allocated, size)
        else:
            changed = changes(self._source, job.changed_context, size)
            self._plan = plan_incremental(changed, job.changed_flag, allocated, size)
        self.progress.bytes_total = self._plan.read_bytes + self._plan.zero_bytes
        if hasher is not None:
            runs = self._plan.runs()
            self._writer = BlockHashWriter(job.hashes_path, hasher.name, size, job.level, runs)

    def planned(self) -> List[Run]:
        """The blocks that this copy takes. CopyFailedError before :meth:`prepare`."""
        if self._plan is None:
            raise CopyFailedError(f"{self.job.key} was audited before it was prepared. This is a defect.")
        return self._plan.runs()

    def _open(self, role: str, uri: str, contexts: List[str], timeout_s: float = 0.0) -> NbdConnection:
        target = parse_uri(uri, self.job.key)
        seconds = timeout_s or self.options.stall_seconds
        return NbdConnection.open(target, role=role, contexts=contexts, timeout_s=seconds, cancelled=self._cancelled)

    def _check_sizes(self, source: NbdConnection, target: NbdConnection) -> int:
        sizes = {"source": source.size, "target": target.size}
        if self.job.size_bytes:
            sizes["plan"] = self.job.size_bytes
        if len(set(sizes.values())) != 1:
            said = ", ".join(f"{name} {size}" for name, size in sizes.items())
            raise ExportFailedError(
                f"The sizes of {self.job.key} differ in bytes: {said}. Nothing was copied; plan this machine again.",
                details={"disk": self.job.key, "sizes": sizes},
                retryable=False,
            )
        if target.read_only or not target.can_flush:
            why = "is read-only" if target.read_only else "cannot flush"
            raise ExportFailedError(
                f"The target of {self.job.key} ({target.target.uri()}) {why}. Serve it writable, by a server with flush.",
                details={"disk": self.job.key, "reason": why},
                retryable=False,
            )
        for connection in (source, target):
            check_block_sizes(connection)
        return sizes["source"]

    def measure(self, bucket: Optional[TokenBucket]) -> None:
        """See how far the servers of a larger copy are. Under a cap that is low, or used up by other disks, it does not matter."""
        if self._plan is None or self._plan.read_bytes < MEASURED_FROM_BYTES:
            return
        if bucket is not None and (bucket.fitting(LARGE_BYTES) < LARGE_BYTES or _used_up(bucket)):
            return
        for connection in (self._source, self._target):
            found = measure(connection, self._plan) if connection is not None else []
            self._lines += found
            if bucket is not None and found:
                bucket.reserve(sum(READS))

    def prime(self, bucket: Optional[TokenBucket]) -> None:
        """One large read on each side of a big copy, if a smaller one was quick. An error means nothing, unless the server is lost."""
        prime = self.options.prime_bytes
        plan, source, target = self._plan, self._source, self._target
        if plan is None or source is None or target is None or plan.read_bytes < 4 * (prime or DEFAULT_PRIME_BYTES):
            return
        quick = len(self._lines) == 2 and all(line.large_s - line.latency_s < PROBE_SECONDS for line in self._lines)
        self._primed = bool(prime) and quick and (bucket is None or (bucket.rate >= PRIMING_RATE and not _used_up(bucket)))
        self._near = self._primed
        for connection in (source, target) if self._primed else ():
            length = min(prime, connection.max_block) // BLOCK_BYTES * BLOCK_BYTES
            if length <= connection.size:
                connection.read_discard(0, length)
                if bucket is not None:
                    bucket.reserve(length)

    def _pace(self, largest: int, disks: int) -> Pace:
        """How many requests of which size, as one of so many disks."""
        if self.options.depth:
            return Pace(largest, self.options.depth)
        if self.job.level == INCREMENTAL:
            near = Pace(largest, INCREMENTAL_DEPTH)
        elif self._primed:
            near = Pace(largest, FULL_DEPTH)
        else:
            near = Pace(min(largest, UNPRIMED_BYTES), UNPRIMED_DEPTH)
        segments = [segment for segment in self._plan.segments if not segment.zero] if self._plan is not None else []
        average = self._plan.read_bytes // len(segments) if self._plan is not None and segments else near.request_bytes
        return choose(self._lines, near, min(near.request_bytes, average), disks)

    def start(self, bucket: Optional[TokenBucket], disks: int = 1) -> Pipeline:
        """The pipeline of this disk, one of so many, ready to run."""
        source, target, plan = self._source, self._target, self._plan
        if source is None or target is None or plan is None:
            raise CopyFailedError(f"{self.job.key} was started before it was prepared. This is a defect.")
        incremental = self.job.level == INCREMENTAL
        pace = self._pace(request_bytes(self.options.request_bytes, source, target), disks)
        request = pace.request_bytes
        latency = round(pace.latency_s * 1000, 1)
        self.progress.extra.update(request_bytes=request, depth=pace.depth, latency_ms=latency)
        zero = min(ZERO_BYTES, target.max_block // request * request) if target.can_zero else request
        hasher = algorithm(self.options.hash_algorithm) if self._writer is not None else None
        options = PipelineOptions(
            depth=pace.depth,
            stall_seconds=self.options.stall_seconds,
            flush_seconds=self.options.flush_seconds,
        )
        handler = CopyHandler(hasher, self._writer, write_zeros=incremental)
        self.progress.start()
        also = self._widened(source, disks)
        self.progress.extra["connections"] = 1 + len(also)
        return Pipeline(source, target, chunks(plan, request, zero), handler, self.progress, options, bucket, also)

    def _widened(self, source: NbdConnection, disks: int) -> List[NbdConnection]:
        """A second connection to a near server of a few disks, so that it goes on sending while what came by the first is dealt with."""
        if not self._near or disks > WIDE_DISKS or not source.can_multi_conn:
            return []
        try:
            self._second = self._open(SOURCE, self.job.source_uri, [], min(WIDE_SECONDS, self.options.stall_seconds))
        except ExportFailedError:
            return []  # it was a wish
        return [self._second]

    def finish(self) -> None:
        """All is copied and flushed: seal the hash file."""
        if self._writer is not None:
            self.progress.hashes = self._writer.finish()
        self.progress.end(DONE)
        self.close()

    def fail(self, error: SendenseError) -> None:
        """Record how this disk ended."""
        self.progress.end(end_state(error), error.as_result())
        self.close()

    def close(self) -> None:
        """Drop the connections and an unfinished hash file. Repetition is a no-op."""
        for connection in (self._source, self._second, self._target):
            if connection is not None:
                connection.close()
        if self._writer is not None:
            self._writer.abort()


def _used_up(bucket: TokenBucket) -> bool:
    """Whether the disks before have read ahead of the cap already: what only makes a copy quicker must not add to that."""
    return bucket.delay(bucket.reserve(0)) > BURST_SECONDS


def check_block_sizes(connection: NbdConnection) -> None:
    """ExportFailedError for a server whose limits do not admit requests of whole blocks."""
    if connection.min_block > BLOCK_BYTES or connection.max_block < BLOCK_BYTES:
        raise ExportFailedError(
            f"The {connection.role} {connection.target.uri()} takes requests from {connection.min_block} to "
            f"{connection.max_block} bytes; blocks of {BLOCK_BYTES} bytes do not fit. Use another server or filter.",
            details={"minimum": connection.min_block, "maximum": connection.max_block},
            retryable=False,
        )


def request_bytes(wanted: int, *connections: NbdConnection) -> int:
    """The largest request, in whole blocks, that is wanted and that every server takes."""
    largest = min([wanted] + [connection.max_block for connection in connections])
    return largest // BLOCK_BYTES * BLOCK_BYTES
