# Copyright: (c) 2026, Sendense contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""How many requests of which size a disk keeps in flight, from what its two servers answered before the copy.

Beside each other, few large requests are the cheapest (measured: docs/reference/mover.md). Over a line with latency they leave it idle:
then so many are in flight as the line holds, within the memory that all disks of a mover may use.
"""

from __future__ import annotations

import math
import time
from typing import Dict, List, NamedTuple, Sequence

from .extents import CopyPlan
from .hashing import BLOCK_BYTES
from .nbd_handle import NbdConnection

FULL_DEPTH, INCREMENTAL_DEPTH, MAX_DEPTH = 4, 16, 32

#: For a server that could not be primed: large requests would make its heap grow and shrink all the time.
UNPRIMED_BYTES, UNPRIMED_DEPTH = 256 << 10, 16

#: Bytes in flight of all disks of a mover, from the start of a read to the end of its write.
IN_FLIGHT_BYTES = 64 << 20

#: Seconds of an answer up to which a server counts as near: processes of a busy machine may take so long.
NEAR_SECONDS = 0.003

SMALL_BYTES, LARGE_BYTES = 64 << 10, 1 << 20
#: What is read to measure a line. The shortest time of each size counts: whatever else was going on only adds to it.
READS = (SMALL_BYTES,) * 4 + (LARGE_BYTES,) * 2

#: A line holds so many times what single requests let expect, which begin slowly. More is no harm: it only waits in the line.
HEADROOM = 2


class Line(NamedTuple):
    """What one connection takes for a small and for a large read, in seconds."""

    small_s: float
    large_s: float

    @property
    def latency_s(self) -> float:
        """Seconds that a request waits and others could travel; 0 for a server that is near."""
        return self.small_s if self.small_s > NEAR_SECONDS else 0.0

    @property
    def rate(self) -> float:
        """Bytes per second of a request once they flow; infinite where the difference cannot be measured."""
        seconds = self.large_s - self.small_s
        return (LARGE_BYTES - SMALL_BYTES) / seconds if seconds > 0 else math.inf


class Pace(NamedTuple):
    """``depth`` requests of at most ``request_bytes``, because the lines have this latency."""

    request_bytes: int
    depth: int
    latency_s: float = 0.0


def measure(connection: NbdConnection, plan: CopyPlan) -> List[Line]:
    """The line to a server, if it answers reads. What cannot go on is raised: SourceVanishedError, ExportFailedError, CopyStalledError."""
    if connection.size < LARGE_BYTES or connection.max_block < LARGE_BYTES:
        return []
    shortest: Dict[int, float] = {}
    for length, offset in zip(READS, spots(plan, len(READS))):
        begun = time.monotonic()
        if connection.read_discard(min(offset, connection.size - length), length):
            return []
        shortest[length] = min(time.monotonic() - begun, shortest.get(length, math.inf))
    return [Line(shortest[SMALL_BYTES], shortest[LARGE_BYTES])]


def spots(plan: CopyPlan, count: int) -> List[int]:
    """So many offsets, in bytes, evenly spread over what will be read: a cache at the server does not know them yet."""
    segments = [segment for segment in plan.segments if not segment.zero]
    blocks = sum(segment.blocks for segment in segments)
    found: List[int] = []
    passed = 0
    for segment in segments:
        while len(found) < count and (2 * len(found) + 1) * blocks // (2 * count) < passed + segment.blocks:
            found.append((segment.first + (2 * len(found) + 1) * blocks // (2 * count) - passed) * BLOCK_BYTES)
        passed += segment.blocks
    return found


def choose(lines: Sequence[Line], near: Pace, chunk_bytes: int, disks: int) -> Pace:
    """The pace of one of so many disks: ``near``, or deeper if the lines have latency.

    ``chunk_bytes``: the average request, smaller than the largest where changes are scattered.
    """
    latency = sum(line.latency_s for line in lines)
    if not latency:
        return near
    room = max(near.depth, min(MAX_DEPTH, IN_FLIGHT_BYTES // near.request_bytes // max(1, disks)))
    on_the_way = HEADROOM * min(line.rate for line in lines) * latency / max(1, chunk_bytes)
    depth = room if math.isinf(on_the_way) else min(room, near.depth + math.ceil(on_the_way))
    return near._replace(depth=depth, latency_s=latency)
