# Copyright: (c) 2026, Sendense contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""One disk's asynchronous pipeline: several requests in flight, every block looked at once on its way.

Read requests lie within request-aligned borders, so that clusters stay whole. Completion callbacks run inside libnbd and
therefore only take note; all work happens in :meth:`Pipeline.step`, in the thread of its loop.
"""

from __future__ import annotations

import errno
import time
from collections import deque
from dataclasses import dataclass
from typing import Any, Deque, Dict, Iterator, List, NamedTuple, Optional, Protocol, Sequence, Set, Tuple

from ..errors import CopyFailedError
from .bandwidth import TokenBucket
from .extents import CopyPlan
from .hashing import BLOCK_BYTES
from .nbd_handle import NbdConnection
from .slots import Slot, SlotPool
from .status import DiskProgress

#: Bytes per request to write zeros: large, as no data travels, but not so large that one request looks like a stall.
ZERO_BYTES = 32 << 20
MAX_ZEROS_IN_FLIGHT = 16

#: Seconds after which a disk that waits for the bandwidth cap looks whether the cap has changed.
LOOK_AGAIN_SECONDS = 0.5

_CANNOT = (errno.EOPNOTSUPP, errno.ENOTSUP, errno.EINVAL, errno.ENOSYS)


class Chunk(NamedTuple):
    """One request. ``position`` counts held blocks from 0; ``zero`` means: write zeros, read nothing."""

    offset: int
    length: int
    position: int
    zero: bool


class Piece(NamedTuple):
    """Part of a chunk, in bytes from its start, to be written as data or as zeros."""

    start: int
    length: int
    zero: bool


class BlockHandler(Protocol):
    """What is done with the blocks: hashing for a copy, comparing for a verification."""

    def blocks(self, chunk: Chunk, buffer: Any) -> List[Piece]:
        """Look at a chunk that was read; say what of it is to be written."""

    def zeros(self, chunk: Chunk) -> None:
        """Take note of a chunk that is known to be zero."""


@dataclass
class PipelineOptions:
    """``depth`` requests in flight; times in seconds. ``flush_seconds`` is how long the target may take to flush."""

    depth: int = 4
    stall_seconds: float = 60.0
    flush_seconds: float = 300.0


def chunks(plan: CopyPlan, request_bytes: int, zero_bytes: int = ZERO_BYTES) -> Iterator[Chunk]:
    """The requests of a plan in ascending order, none across a border of its request size."""
    position = 0
    for segment in plan.segments:
        step = zero_bytes if segment.zero else request_bytes
        offset = segment.first * BLOCK_BYTES
        end = min((segment.first + segment.blocks) * BLOCK_BYTES, plan.size)
        while offset < end:
            length = min(end - offset, step - offset % step)
            yield Chunk(offset, length, position, segment.zero)
            position += -(-length // BLOCK_BYTES)
            offset += length


class _Watch:
    """How long one server has owed an answer without moving a byte."""

    def __init__(self, connection: NbdConnection) -> None:
        self.connection = connection
        self.owed = 0
        self.since = 0.0

    def begin(self) -> None:
        if self.owed == 0:
            self.since = time.monotonic()
        self.owed += 1

    def end(self) -> None:
        self.owed -= 1
        self.since = time.monotonic()

    def check(self, now: float, limit: float, what: str) -> None:
        if self.owed and now - self.since > limit:
            raise self.connection.stalled(limit, what)


def _busy(watch: _Watch) -> Tuple[int, float]:
    """Of several connections to one server the one that owes least is asked next, and of these the one that was quiet longest."""
    return watch.owed, watch.since


class Pipeline:
    """Moves one disk. Typed errors leave :meth:`step`; the loop then drops the whole pipeline."""

    def __init__(
        self,
        source: NbdConnection,
        target: Optional[NbdConnection],
        requests: Iterator[Chunk],
        handler: BlockHandler,
        progress: DiskProgress,
        options: PipelineOptions,
        bucket: Optional[TokenBucket] = None,
        also: Sequence[NbdConnection] = (),
    ) -> None:
        self.progress = progress
        self.finished = False
        self.wake_at: Optional[float] = None
        """When the bandwidth cap allows the next request."""
        self.starved = False
        """Whether it waits for a slot that another disk of its thread uses."""
        self.options = options
        self._target = target
        self._requests = requests
        self._handler = handler
        self._bucket = bucket
        self._next: Optional[Chunk] = next(requests, None)
        self._position: Optional[float] = None
        """Of the next read in the flow of the bucket."""
        self._rest: Optional[Chunk] = None
        """What a low cap has left of the chunk before."""
        self._busy = 0
        self._held: Set[Slot] = set()
        self._zeroing = 0
        self._flush = ""
        self._read_done: Deque[Tuple[Chunk, Slot, "_Watch", Any, int]] = deque()
        self._write_done: Deque[Tuple["_Chunkwork", Piece, int]] = deque()
        self._can_zero = target is not None and target.can_zero
        self._sources = [_Watch(connection) for connection in (source, *also)]
        self._target_watch = _Watch(target) if target is not None else None
        self._watches: Dict[NbdConnection, _Watch] = {watch.connection: watch for watch in self._sources}
        if target is not None and self._target_watch is not None:
            self._watches[target] = self._target_watch

    def connections(self) -> List[NbdConnection]:
        """What the loop has to poll."""
        return list(self._watches)

    def notify(self, connection: NbdConnection, readable: bool, now: float) -> int:
        """The socket is ready: bytes move, so this server is alive. What to poll for next, as of :meth:`NbdConnection.direction`."""
        self._watches[connection].since = now
        connection.notify(readable)
        return connection.direction()

    def due(self) -> bool:
        """Whether anything was completed since the last step."""
        return bool(self._read_done or self._write_done or self._flush not in ("", "sent"))

    def step(self, slots: SlotPool) -> None:
        """Do all that can be done without waiting."""
        while True:
            self._take_writes(slots)
            self._take_reads(slots)
            self._issue(slots)
            if self._next is None and not self._busy and not self._zeroing:
                self._finish()
            # libnbd may have completed further commands while these were being issued
            if self.finished or not self.due():
                return

    def check(self, now: float) -> None:
        """CopyStalledError if a server owes an answer and has moved no byte for too long."""
        for watch in self._watches.values():
            if self._flush:
                watch.check(now, max(self.options.flush_seconds, self.options.stall_seconds), "flush")
            else:
                watch.check(now, self.options.stall_seconds, "copy")

    def abandon(self, slots: SlotPool) -> None:
        """Drop the connections, then give back the buffers that commands in flight were using."""
        for connection in self._watches:
            connection.close()
        for slot in self._held:
            slots.give(slot)
        self._held.clear()

    # --- issuing ------------------------------------------------------------------------------------------------

    def _issue(self, slots: SlotPool) -> None:
        self.wake_at, self.starved = None, False
        while self._next is not None:
            chunk = self._next = self._shortened(self._next)
            if not (self._issue_zeros(chunk, slots) if chunk.zero else self._issue_read(chunk, slots)):
                return
            self._next, self._rest = self._rest or next(self._requests, None), None

    def _shortened(self, chunk: Chunk) -> Chunk:
        """As much of a chunk as a low cap admits at once; what is left of it comes next."""
        if chunk.zero or self._bucket is None or self._position is not None or self._rest is not None:
            return chunk
        length = self._bucket.fitting(chunk.length)
        if length >= chunk.length:
            return chunk
        self._rest = Chunk(chunk.offset + length, chunk.length - length, chunk.position + length // BLOCK_BYTES, False)
        return chunk._replace(length=length)

    def _admitted(self, bucket: TokenBucket, length: int) -> bool:
        """Whether the cap admits the next read now; else when to look again, which is soon, because the cap may change."""
        if self._position is None:
            self._position = bucket.reserve(length)
        delay = bucket.delay(self._position)
        if delay > 0:
            self.wake_at = time.monotonic() + min(delay, LOOK_AGAIN_SECONDS)
        return delay <= 0

    def _issue_zeros(self, chunk: Chunk, slots: SlotPool) -> bool:
        if self._zeroing >= MAX_ZEROS_IN_FLIGHT:
            return False
        self._handler.zeros(chunk)
        work = _Chunkwork(chunk, None)
        self._zeroing += 1
        self._write_zeros(work, Piece(0, chunk.length, True), slots)
        return True

    def _issue_read(self, chunk: Chunk, slots: SlotPool) -> bool:
        if self._busy >= self.options.depth:
            return False
        if not slots.free():
            self.starved = True
            return False
        if self._bucket is not None and not self._admitted(self._bucket, chunk.length):
            return False
        slot = slots.take()
        if slot is None:
            return False
        self._position = None
        buffer = slot.buffer(chunk.length)
        self._busy += 1
        self._held.add(slot)
        watch = min(self._sources, key=_busy) if len(self._sources) > 1 else self._sources[0]
        watch.begin()
        arrived = self._read_done

        def done(code: int) -> None:
            arrived.append((chunk, slot, watch, buffer, code))

        watch.connection.start_read(buffer, chunk.offset, done)
        return True

    def _write_zeros(self, work: "_Chunkwork", piece: Piece, slots: SlotPool) -> None:
        if self._can_zero:
            self._write(work, piece, None)
            return
        for start in range(piece.start, piece.start + piece.length, slots.size):
            length = min(slots.size, piece.start + piece.length - start)
            self._write(work, Piece(start, length, True), slots.zeros.buffer(length))

    def _write(self, work: "_Chunkwork", piece: Piece, buffer: Any) -> None:
        if self._target_watch is None:
            raise CopyFailedError("There is nothing to write to. This is a defect.")
        work.pending += 1
        work.sent.append(buffer)  # keeps the memory alive until the server has it
        self._target_watch.begin()
        offset = work.chunk.offset + piece.start
        arrived = self._write_done
        by_server = piece.zero and buffer is None

        def done(code: int) -> None:
            arrived.append((work, piece if by_server else piece._replace(zero=False), code))

        if by_server:
            self._target_watch.connection.start_zero(piece.length, offset, done)
        else:
            self._target_watch.connection.start_write(buffer, offset, done)
        if piece.zero:
            self.progress.bytes_zeroed += piece.length

    # --- completing ---------------------------------------------------------------------------------------------

    def _take_reads(self, slots: SlotPool) -> None:
        while self._read_done:
            chunk, slot, watch, buffer, code = self._read_done.popleft()
            watch.end()
            if code:
                raise watch.connection.failure("read", chunk.offset, chunk.length, code)
            self.progress.bytes_read += chunk.length
            work = _Chunkwork(chunk, slot)
            for piece in self._handler.blocks(chunk, buffer):
                if piece.zero:
                    self._write_zeros(work, piece, slots)
                else:
                    self._write(work, piece, slot.buffer(piece.length, piece.start))
            if not work.pending:
                self._complete(work, slots)

    def _take_writes(self, slots: SlotPool) -> None:
        while self._write_done:
            work, piece, code = self._write_done.popleft()
            if self._target_watch is None:
                return
            self._target_watch.end()
            work.pending -= 1
            if code and piece.zero and code in _CANNOT:
                self._can_zero = False
                self.progress.bytes_zeroed -= piece.length
                self._write_zeros(work, piece, slots)
            elif code:
                offset = work.chunk.offset + piece.start
                raise self._target_watch.connection.failure("write", offset, piece.length, code)
            elif not piece.zero:
                self.progress.bytes_written += piece.length
            if not work.pending:
                self._complete(work, slots)

    def _complete(self, work: "_Chunkwork", slots: SlotPool) -> None:
        self.progress.bytes_done += work.chunk.length
        if work.slot is None:
            self._zeroing -= 1
        else:
            self._busy -= 1
            self._held.discard(work.slot)
            slots.give(work.slot)

    def _finish(self) -> None:
        if self._target_watch is None or self._flush == "done":
            self.finished = True
        elif not self._flush:
            self._flush = "sent"
            self._target_watch.begin()
            self._target_watch.connection.start_flush(self._flushed)
        elif self._flush != "sent":
            raise self._target_watch.connection.failure("flush", 0, 0, int(self._flush))

    def _flushed(self, code: int) -> None:
        self._flush = str(code) if code else "done"


class _Chunkwork:
    """One chunk between its arrival and the last of its writes."""

    __slots__ = ("chunk", "pending", "sent", "slot")

    def __init__(self, chunk: Chunk, slot: Optional[Slot]) -> None:
        self.chunk = chunk
        self.slot = slot
        self.pending = 0
        self.sent: List[Any] = []
