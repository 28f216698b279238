# Copyright: (c) 2026, Sendense contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What caps a mover: its job, the time of day, and what the other movers of its node use. The lowest of these counts."""

from __future__ import annotations

import math
import time
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import datetime, timezone
from typing import Any, Callable, Dict, List, Optional

from ..errors import InvalidInputError
from .bandwidth import MIN_RATE, UNLIMITED, TokenBucket
from .node_share import NodeShare, fair_share
from .windows import Window, lowest, parse_rate, parse_windows

JOB, NODE, WINDOW = "job", "node", "window"

#: Seconds between two looks at the clock on the wall and at the other movers.
LOOK_SECONDS = 1.0
#: A mover that does not use all it may have could use so many times more a moment later.
GROWTH = 1.5


@dataclass
class NodeBandwidth:
    """What a node may use: always, and in windows. ``directory`` is where its movers meet."""

    bytes_per_second: int = 0
    """0: no cap outside of the windows."""
    windows: List[Window] = field(default_factory=list)
    directory: str = ""

    def rate_at(self, moment: datetime) -> "tuple[float, str]":
        """The cap at this moment, and what sets it (node or window)."""
        always = float(self.bytes_per_second or UNLIMITED)
        now = lowest(self.windows, moment)
        return (float(now), WINDOW) if now is not None and now < always else (always, NODE)


def parse_node_bandwidth(document: Any) -> Optional[NodeBandwidth]:
    """``{bytes_per_second, windows, directory}`` as configured; None if it caps nothing. InvalidInputError."""
    if not isinstance(document, dict) or set(document) - {"bytes_per_second", "windows", "directory"}:
        raise InvalidInputError("The bandwidth of a node is refused: it has members other than bytes_per_second and windows.")
    always = document.get("bytes_per_second") or 0
    windows = parse_windows(document.get("windows") or [])
    if not always and not windows:
        return None
    directory = document.get("directory")
    if not isinstance(directory, str) or not directory:
        raise InvalidInputError("The bandwidth of a node is refused: the directory is missing in which its movers meet.")
    return NodeBandwidth(parse_rate(always, "the node") if always else 0, windows, directory)


class Cap:
    """The bucket of one mover and what sets its rate. A context manager; :meth:`refresh` is called several times a second."""

    def __init__(
        self,
        job_rate: int = 0,
        node: Optional[NodeBandwidth] = None,
        clock: Callable[[], float] = time.monotonic,
        wall: Callable[[], float] = time.time,
    ) -> None:
        self._job = float(job_rate or UNLIMITED)
        self._node = node
        self._clock = clock
        self._wall = wall
        self._by = JOB
        self._binds = False
        self._share: Optional[NodeShare] = None
        self._said = float(MIN_RATE)
        self._looked_at = clock()
        self.bucket: Optional[TokenBucket] = TokenBucket(self._job, clock) if job_rate or node else None
        """None where nothing ever caps."""

    def __enter__(self) -> "Cap":
        if self._node is not None:
            with suppress(OSError):
                self._share = NodeShare.open(self._node.directory)
            self._look(0.0)
        return self

    def __exit__(self, *exc: Any) -> None:
        if self._share is not None:
            self._share.close()

    def refresh(self) -> Optional[Dict[str, Any]]:
        """Set the rate anew once a second. What the status file says of it: None while nothing caps."""
        bucket = self.bucket
        if bucket is None:
            return None
        elapsed = self._clock() - self._looked_at
        if elapsed >= LOOK_SECONDS:
            self._look(elapsed)
        if math.isinf(bucket.rate):
            return None
        return {"bytes_per_second": int(bucket.rate), "by": self._by, "binds": self._binds}

    def _look(self, elapsed: float) -> None:
        bucket = self.bucket
        if bucket is None:
            return
        self._looked_at = self._clock()
        used, self._binds = bucket.take_usage()
        if self._node is None:
            return
        total, by = self._node.rate_at(datetime.fromtimestamp(self._wall(), timezone.utc))
        try:
            rate = self._part(total, used / elapsed if elapsed else 0.0)
        except OSError:
            # A file system that refuses is no reason to end a copy, nor to exceed the cap: the part stays as it was.
            rate = min(total, bucket.rate)
        bucket.set_rate(min(rate, self._job))
        self._by = by if rate < self._job else JOB

    def _part(self, total: float, used: float) -> float:
        """This mover's part of the node's cap.

        It never takes more than it has said a second ago that it could use, because only by now do the others leave it that.
        """
        if self._share is None:
            return total
        demand = min(self._job, UNLIMITED if self._binds else max(float(MIN_RATE), used * GROWTH))
        self._share.publish(demand)
        others = self._share.others()
        before, self._said = self._said, demand
        if math.isinf(total):
            return total
        return min(fair_share(total, others), before) if others else total
