# Copyright: (c) 2026, Sendense contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What must be read of a disk: block status of an NBD export turned into whole 64 KiB blocks.

Every doubt is decided towards reading: data is rounded outward to blocks, known zeros inward, and a server that does not
report allocation is read completely. A server that does not report *changes* when asked to is an error, never "no data".
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Iterable, Iterator, List, NamedTuple, Optional, Protocol, Tuple

from ..errors import CopyFailedError, ExportFailedError, SendenseError
from .hashing import BLOCK_BYTES

ALLOCATION = "base:allocation"

#: Status bits of ``base:allocation``.
STATE_HOLE, STATE_ZERO = 1, 2

#: Bytes per block status request: lengths on the wire have 32 bits.
STATUS_STEP = (4 << 30) - BLOCK_BYTES


class StatusServer(Protocol):
    """The part of ``NbdConnection`` that is needed here."""

    def has_context(self, context: str) -> bool:
        """Whether the server reports this context."""

    def block_status(self, context: str, offset: int, length: int) -> List[int]:
        """Flat (length, flags) pairs."""


class StatusRange(NamedTuple):
    """Bytes of an export that have one status."""

    offset: int
    length: int
    flags: int


class Extent(NamedTuple):
    """Bytes of a disk: ``data`` if something is stored for them, ``zero`` if they read as zeros."""

    offset: int
    length: int
    data: bool
    zero: bool


class Run(NamedTuple):
    """Consecutive blocks."""

    first: int
    blocks: int


class Segment(NamedTuple):
    """Consecutive blocks that are treated alike: read, or (``zero``) known to be zero and written as zeros."""

    first: int
    blocks: int
    zero: bool


@dataclass(frozen=True)
class CopyPlan:
    """The blocks that a point will hold, ascending. ``size`` is the disk's, in bytes; the last block may be short."""

    size: int
    segments: Tuple[Segment, ...]

    def runs(self) -> List[Run]:
        """All held blocks, read or zero, merged."""
        return _merge_runs(Run(segment.first, segment.blocks) for segment in self.segments)

    @property
    def read_bytes(self) -> int:
        """Bytes to read."""
        return sum(self._bytes(segment) for segment in self.segments if not segment.zero)

    @property
    def zero_bytes(self) -> int:
        """Bytes known to be zero that will be written as zeros."""
        return sum(self._bytes(segment) for segment in self.segments if segment.zero)

    def _bytes(self, segment: Segment) -> int:
        return min((segment.first + segment.blocks) * BLOCK_BYTES, self.size) - segment.first * BLOCK_BYTES


def block_count(size: int) -> int:
    """Blocks of a disk of so many bytes."""
    return -(-size // BLOCK_BYTES)


def block_status(handle: StatusServer, context: str, size: int, step: int = STATUS_STEP) -> List[StatusRange]:
    """The status of every byte of the export, ascending, without gaps, neighbours of equal flags merged.

    CopyFailedError if the server's answer makes no progress or reaches beyond the end.
    """
    found: List[StatusRange] = []
    offset = 0
    while offset < size:
        entries = handle.block_status(context, offset, min(step, size - offset))
        if not entries or len(entries) % 2:
            raise _lying(context, offset, "it reported nothing")
        for length, flags in zip(entries[0::2], entries[1::2]):
            if length <= 0:
                raise _lying(context, offset, "it reported a range of no length")
            if offset + length > size:
                raise _lying(context, offset, f"it reported a range up to {offset + length} of {size} bytes")
            _append(found, StatusRange(offset, length, flags))
            offset += length
    return found


def allocation(handle: StatusServer, size: int) -> Optional[List[StatusRange]]:
    """The ``base:allocation`` of the export; None where the server does not report it (then everything is read)."""
    return block_status(handle, ALLOCATION, size) if handle.has_context(ALLOCATION) else None


def changes(handle: StatusServer, context: str, size: int) -> List[StatusRange]:
    """The status in a change-tracking context. ExportFailedError if the server does not offer it."""
    if not handle.has_context(context):
        raise ExportFailedError(
            f"The source does not report the changed blocks ({context!r}) that this incremental needs. "
            "Nothing was copied; back the machine up in full.",
            details={"context": context},
            retryable=False,
        )
    return block_status(handle, context, size)


def plan_full(allocated: Optional[List[StatusRange]], size: int) -> CopyPlan:
    """Read every block that is not known to be zero. Blocks left out are zero; the target is fresh."""
    segments = _split([Run(0, block_count(size))] if size else [], _zero_runs(allocated or [], size))
    return CopyPlan(size, tuple(segment for segment in segments if not segment.zero))


def plan_incremental(changed: List[StatusRange], flag: int, allocated: Optional[List[StatusRange]], size: int) -> CopyPlan:
    """Take every block that a changed byte touches: write it as zeros if it is known to be all zero, else read it."""
    touched = _merge_runs(_outward(item) for item in changed if item.flags & flag)
    return CopyPlan(size, tuple(_split(touched, _zero_runs(allocated or [], size))))


def pieces(runs: Iterable[Run], blocks: int = 1 << 16) -> Iterator[Run]:
    """The same blocks in runs of at most so many."""
    for run in runs:
        for first in range(run.first, run.first + run.blocks, blocks):
            yield Run(first, min(blocks, run.first + run.blocks - first))


def without(wanted: List[Run], taken: List[Run]) -> List[Run]:
    """The blocks of ``wanted`` that ``taken`` does not have; both ascending and without overlap."""
    return [Run(segment.first, segment.blocks) for segment in _split(wanted, taken) if not segment.zero]


def _append(found: List[StatusRange], item: StatusRange) -> None:
    if found and found[-1].flags == item.flags:
        item = StatusRange(found[-1].offset, found[-1].length + item.length, item.flags)
        found[-1] = item
    else:
        found.append(item)


def _outward(item: StatusRange) -> Run:
    first = item.offset // BLOCK_BYTES
    return Run(first, block_count(item.offset + item.length) - first)


def _zero_runs(allocated: List[StatusRange], size: int) -> List[Run]:
    """Blocks that lie completely in zeros; the short last block counts if its real bytes do."""
    runs = []
    for start, end in _zero_spans(allocated):
        first = block_count(start)
        last = block_count(size) if end >= size else end // BLOCK_BYTES
        if last > first:
            runs.append(Run(first, last - first))
    return runs


def _zero_spans(allocated: List[StatusRange]) -> Iterator[Tuple[int, int]]:
    """Zero ranges as (start, end), joined across other flags before anything is rounded."""
    start = end = 0
    for item in allocated:
        if not item.flags & STATE_ZERO:
            continue
        if item.offset != end:
            if end > start:
                yield start, end
            start = item.offset
        end = item.offset + item.length
    if end > start:
        yield start, end


def _merge_runs(runs: "Iterator[Run]") -> List[Run]:
    merged: List[Run] = []
    for run in runs:
        if merged and run.first <= merged[-1].first + merged[-1].blocks:
            end = max(merged[-1].first + merged[-1].blocks, run.first + run.blocks)
            merged[-1] = Run(merged[-1].first, end - merged[-1].first)
        else:
            merged.append(run)
    return merged


def _split(wanted: List[Run], zeros: List[Run]) -> List[Segment]:
    """Cut the wanted runs into read and zero segments; both lists are ascending and without overlap."""
    segments: List[Segment] = []
    position = 0
    for run in wanted:
        block, end = run.first, run.first + run.blocks
        while position < len(zeros) and zeros[position].first + zeros[position].blocks <= block:
            position += 1
        look = position
        while block < end:
            zero = zeros[look] if look < len(zeros) else Run(end, 0)
            if zero.first > block:
                stop = min(zero.first, end)
                segments.append(Segment(block, stop - block, False))
            else:
                stop = min(zero.first + zero.blocks, end)
                segments.append(Segment(block, stop - block, True))
                look += 1
            block = stop
    return segments


def _lying(context: str, offset: int, why: str) -> SendenseError:
    return CopyFailedError(
        f"The server's report of {context!r} at {offset} makes no sense: {why}. Nothing was copied; look at its export.",
        details={"context": context, "offset": offset, "reason": why},
    )
