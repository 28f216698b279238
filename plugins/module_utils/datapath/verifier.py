# Copyright: (c) 2026, Sendense contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Reads the exports of a point back and compares every block with its recorded hash.

Two modes. ``held``: only the blocks that this point itself holds: the re-read before a commit. ``all``: every block of
the disk as seen through the chain; what no layer holds must be zero. What the server knows to be zero without reading is
compared without reading.
"""

from __future__ import annotations

import json
from bisect import insort
from contextlib import ExitStack
from dataclasses import asdict, dataclass, field
from typing import Any, Callable, Dict, List, Optional, Sequence, Tuple

from ..errors import InvalidInputError, PointDamagedError, SendenseError, VerificationFailedError
from .bandwidth import TokenBucket
from .blockhashes import BlockHashFile, BlockMap, compose
from .cap import Cap, parse_node_bandwidth
from .extents import ALLOCATION, CopyPlan, Run, StatusRange, allocation, pieces, plan_incremental
from .hashing import BLOCK_BYTES, HashAlgorithm, algorithm, split
from .loop import DiskLoop, Stop, balance, defect, end_state, run_parallel
from .mover_plan import MoverOptions, check_connections, load_document, record
from .nbd_handle import EXPORT, NbdConnection
from .pipeline import Chunk, Piece, Pipeline, PipelineOptions, chunks
from .status import DONE, DiskProgress
from .supervisor import MoveResult, Supervisor
from .targets import is_disk_key, parse_uri
from .transfer import check_block_sizes, request_bytes

HELD, ALL = "held", "all"
READ_DEPTH = 8

#: How many block numbers of mismatches a result names.
NAMED_MISMATCHES = 20


@dataclass
class VerifyJob:
    """One disk to verify. ``hashes`` are the hash files of its chain, oldest first; ``held`` looks at the last only."""

    key: str
    uri: str
    hashes: List[str] = field(default_factory=list)
    mode: str = HELD
    size_bytes: int = 0
    """What the export must have; 0: what the hash file says is enough."""

    def check(self) -> None:
        """InvalidInputError for a value that cannot mean anything."""
        if not is_disk_key(self.key):
            raise InvalidInputError(f"The plan is refused: the disk key {self.key!r} is not disk<N>.")
        parse_uri(self.uri, self.key)
        if self.mode not in (HELD, ALL) or not self.hashes:
            raise InvalidInputError(f"The plan is refused: {self.key} needs hashes and the mode held or all.")


class CompareHandler:
    """Compares the digests of what is read with those that were recorded."""

    def __init__(self, expected: Callable[[int, int], bytes], hasher: HashAlgorithm, named: int = NAMED_MISMATCHES) -> None:
        self._expected = expected
        self._named = named
        self._hasher = hasher
        self.digest_size = hasher.digest_size
        self.checked = 0
        self.mismatches: List[int] = []
        self.mismatch_count = 0

    def blocks(self, chunk: Chunk, buffer: Any) -> List[Piece]:
        """Compare a chunk; nothing is to be written."""
        zeros = [buffer.is_zero(start, min(BLOCK_BYTES, chunk.length - start)) for start in range(0, chunk.length, BLOCK_BYTES)]
        self.compare(chunk.offset // BLOCK_BYTES, self._hasher.digests(split(buffer.to_buffer(), chunk.length), zeros))
        return []

    def zeros(self, chunk: Chunk) -> None:
        """Never called: known zeros are compared before the pipeline starts."""

    def compare(self, first: int, found: bytes) -> None:
        """Compare the digests of consecutive blocks."""
        size = self.digest_size
        count = len(found) // size
        wanted = self._expected(first, count)
        self.checked += count
        if wanted == found:
            return
        for index in range(count):
            if wanted[index * size : (index + 1) * size] != found[index * size : (index + 1) * size]:
                self.mismatch_count += 1
                insort(self.mismatches, first + index)  # requests complete in any order
                del self.mismatches[self._named :]


class Verification:
    """The stages of one disk: prepare, start, then finish or fail; close at last."""

    #: How many block numbers of mismatches the result names.
    named = NAMED_MISMATCHES

    def __init__(self, job: VerifyJob, options: MoverOptions, cancelled: Callable[[], bool]) -> None:
        self.job = job
        self.options = options
        self.progress = DiskProgress(job.key)
        self._cancelled = cancelled
        self._export: Optional[NbdConnection] = None
        self._plan: Optional[CopyPlan] = None
        self._handler: Optional[CompareHandler] = None
        self._note(False)

    def prepare(self) -> None:
        """Open hashes and export, compare what needs no reading, and plan the rest."""
        with ExitStack() as stack:
            layers = [stack.enter_context(BlockHashFile(path)) for path in self.job.hashes]
            wanted, expected = self._wanted(layers)
            header = layers[-1].header
        self._export = NbdConnection.open(
            parse_uri(self.job.uri, self.job.key),
            role=EXPORT,
            contexts=[ALLOCATION],
            timeout_s=self.options.stall_seconds,
            cancelled=self._cancelled,
        )
        check_block_sizes(self._export)
        self._check_size(header.disk_size)
        self._handler = CompareHandler(expected, algorithm(header.algorithm), self.named)
        self._plan = self._split(wanted, header.disk_size)
        self.progress.bytes_total = self._plan.read_bytes

    def _wanted(self, layers: List[BlockHashFile]) -> Tuple[List[Run], Callable[[int, int], bytes]]:
        """Which blocks to look at, and where their recorded digests are."""
        if self.job.mode == ALL:
            whole = compose(layers)
            return ([Run(0, whole.block_count)] if whole.block_count else []), whole.digests
        own = BlockMap(layers[-1].header)
        own.apply(layers[-1])
        return layers[-1].runs, own.digests

    def _check_size(self, recorded: int) -> None:
        sizes = {recorded, self._export.size if self._export else 0, self.job.size_bytes or recorded}
        if len(sizes) != 1:
            raise PointDamagedError(
                f"The sizes of {self.job.key} differ in bytes (export, hashes, plan): {sorted(sizes)}.",
                details={"disk": self.job.key, "sizes": sorted(sizes)},
            )

    def _split(self, wanted: List[Run], size: int) -> CopyPlan:
        """Compare the blocks that the server knows to be zero; the others are the plan."""
        if self._export is None or self._handler is None:
            raise VerificationFailedError(f"{self.job.key} was planned before it was opened. This is a defect.")
        touched = [StatusRange(run.first * BLOCK_BYTES, min(run.blocks * BLOCK_BYTES, size - run.first * BLOCK_BYTES), 1) for run in wanted]
        plan = plan_incremental(touched, 1, allocation(self._export, size), size)
        for segment in plan.segments:
            if segment.zero:
                for first, count in pieces([Run(segment.first, segment.blocks)]):
                    self._handler.compare(first, bytes(count * self._handler.digest_size))
        return CopyPlan(size, tuple(segment for segment in plan.segments if not segment.zero))

    def start(self, bucket: Optional[TokenBucket]) -> Pipeline:
        """The reading pipeline of this disk."""
        if self._export is None or self._plan is None or self._handler is None:
            raise VerificationFailedError(f"{self.job.key} was started before it was prepared. This is a defect.")
        options = PipelineOptions(depth=self.options.depth or READ_DEPTH, stall_seconds=self.options.stall_seconds)
        requests = chunks(self._plan, request_bytes(self.options.request_bytes, self._export))
        self.progress.start()
        return Pipeline(self._export, None, requests, self._handler, self.progress, options, bucket)

    def finish(self) -> None:
        """All is read: judge."""
        handler = self._handler
        if handler is None or not handler.mismatch_count:
            self._note(True)
            self.progress.end(DONE)
            self.close()
            return
        self.fail(self._judgement(handler))

    def _judgement(self, handler: CompareHandler) -> SendenseError:
        """The error that mismatches mean."""
        return VerificationFailedError(
            f"{self.job.key}: {handler.mismatch_count} of {handler.checked} blocks are not what was recorded "
            f"(first: {handler.mismatches[:5]}). The data of this point is damaged; do not restore from it.",
            details={"disk": self.job.key, "mismatches": handler.mismatches, "count": handler.mismatch_count},
        )

    def fail(self, error: SendenseError) -> None:
        """Record how this disk ended."""
        self._note(False)
        self.progress.end(end_state(error), error.as_result())
        self.close()

    def _note(self, ok: bool) -> None:
        handler = self._handler
        self.progress.extra = {
            "ok": ok,
            "blocks_checked": handler.checked if handler else 0,
            "mismatches": list(handler.mismatches) if handler else [],
            "mismatch_count": handler.mismatch_count if handler else 0,
        }

    def close(self) -> None:
        """Drop the connection. Repetition is a no-op."""
        if self._export is not None:
            self._export.close()


def verify(
    jobs: List[VerifyJob],
    options: MoverOptions,
    status_path: str = "",
    cancel_path: str = "",
    stop: Optional[Stop] = None,
) -> MoveResult:
    """Verify the disks at once; each is read to its end whatever is found in another. Errors are in the result."""
    check_verify_jobs(jobs)
    options.check()
    stop = stop or Stop()
    disks = [Verification(job, options, stop.is_set) for job in jobs]
    with Cap(options.bandwidth_bytes_per_s, parse_node_bandwidth(options.node_bandwidth)) as cap:
        supervisor = Supervisor([disk.progress for disk in disks], stop, status_path, cancel_path, cap=cap)
        supervisor.tick()
        verify_disks(disks, options, stop, cap.bucket, supervisor.tick)
    state, error = _outcome(disks, stop)
    document = supervisor.report.build(state, error)
    supervisor.publish(document)
    return MoveResult(state, error, document["disks"], document)


def verify_disks(
    disks: Sequence[Verification], options: MoverOptions, stop: Stop, bucket: Optional[TokenBucket], tick: Callable[[], None]
) -> None:
    """Run the stages of all disks in threads, each to its end; ``tick`` is called in this thread meanwhile."""
    groups = balance(disks, lambda disk: 1, options.threads)
    try:
        run_parallel(groups, lambda group: _verify_group(group, options, stop, bucket), tick)
    finally:
        for disk in disks:
            disk.close()


def _verify_group(group: List[Verification], options: MoverOptions, stop: Stop, bucket: Optional[TokenBucket]) -> None:
    by_pipeline: Dict[Pipeline, Verification] = {}
    for disk in group:
        try:
            disk.prepare()
            by_pipeline[disk.start(bucket)] = disk
        except SendenseError as exc:
            disk.fail(exc)
        except Exception:  # noqa: BLE001 a defect must end as this disk's error, not as a silent thread
            disk.fail(defect(disk.job.key))
    if by_pipeline:
        DiskLoop(
            list(by_pipeline),
            options.request_bytes,
            stop,
            lambda pipeline: by_pipeline[pipeline].finish(),
            lambda pipeline, error: by_pipeline[pipeline].fail(error),
        ).run()


def _outcome(disks: List[Verification], stop: Stop) -> Tuple[str, Optional[Dict[str, Any]]]:
    if stop.error is not None:
        return end_state(stop.error), stop.error.as_result()
    for disk in disks:
        if disk.progress.state != DONE:
            return disk.progress.state, disk.progress.error
    return DONE, None


def check_verify_jobs(jobs: List[VerifyJob]) -> None:
    """InvalidInputError unless every disk is well-formed and none is named twice."""
    keys = [job.key for job in jobs]
    if not jobs or len(set(keys)) != len(keys):
        raise InvalidInputError("The plan is refused: it names no disks, or one twice.")
    for job in jobs:
        job.check()
    check_connections([job.uri for job in jobs])


def write_verify_plan(path: str, jobs: List[VerifyJob], options: MoverOptions) -> None:
    """Store a plan for the verifier's command line."""
    with open(path, "w", encoding="utf-8") as stream:
        json.dump({"disks": [asdict(job) for job in jobs], "options": asdict(options)}, stream)


def read_verify_plan(path: str) -> Tuple[List[VerifyJob], MoverOptions]:
    """The inverse of :func:`write_verify_plan`, checked. InvalidInputError."""
    document = load_document(path, ("disks", "options"))
    jobs = [record(VerifyJob, item, "disk") for item in document["disks"]]
    options = record(MoverOptions, document.get("options") or {}, "options")
    check_verify_jobs(jobs)
    options.check()
    return jobs, options
