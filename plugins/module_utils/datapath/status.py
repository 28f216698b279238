# Copyright: (c) 2026, Sendense contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The status file: how a mover or verifier tells the world how far it is. Schema in docs/design/backup-flow.md.

Replaced atomically, so that a reader sees a whole document or none. Figures are read by another thread while a worker
counts them; each is a single integer, so a reader may be one request behind but never sees nonsense.
"""

from __future__ import annotations

import json
import os
import time
from collections import deque
from dataclasses import dataclass, field
from typing import Any, Callable, Deque, Dict, Iterable, Optional, Tuple

from ..errors import InvalidInputError

SCHEMA = 1
PENDING, RUNNING, DONE, FAILED, CANCELLED = "pending", "running", "done", "failed", "cancelled"

#: Seconds over which a rate is averaged.
WINDOW_SECONDS = 10.0


class RateMeter:
    """Bytes per second over the last seconds, from a growing total."""

    def __init__(self, window_s: float = WINDOW_SECONDS, clock: Callable[[], float] = time.monotonic) -> None:
        self._window = window_s
        self._clock = clock
        self._samples: Deque[Tuple[float, int]] = deque([(clock(), 0)])

    def sample(self, total: int) -> None:
        """Take note of the total so far."""
        now = self._clock()
        self._samples.append((now, total))
        while len(self._samples) > 2 and self._samples[1][0] <= now - self._window:
            self._samples.popleft()

    def rate(self) -> int:
        """Bytes per second; 0 while unknown."""
        (begin, first), (end, last) = self._samples[0], self._samples[-1]
        return int((last - first) / (end - begin)) if end > begin else 0

    def eta(self, remaining: int) -> Optional[int]:
        """Seconds left at this rate; None while unknown."""
        rate = self.rate()
        if remaining <= 0:
            return 0
        return -(-remaining // rate) if rate else None


@dataclass
class DiskProgress:
    """Where one disk stands. All counts in bytes."""

    key: str
    state: str = PENDING
    bytes_total: int = 0
    """To be read plus known zeros to be written."""
    bytes_done: int = 0
    """Of ``bytes_total``: completely dealt with."""
    bytes_read: int = 0
    bytes_written: int = 0
    bytes_zeroed: int = 0
    """Written as zeros: known beforehand, or found zero in an incremental."""
    error: Optional[Dict[str, Any]] = None
    hashes: str = ""
    extra: Dict[str, Any] = field(default_factory=dict)
    """Further fields of the result, for example a verifier's findings."""
    meter: RateMeter = field(default_factory=RateMeter)
    started: Optional[float] = None
    ended: Optional[float] = None

    def start(self) -> None:
        """The disk is being worked on."""
        self.state, self.started = RUNNING, time.monotonic()

    def end(self, state: str, error: Optional[Dict[str, Any]] = None) -> None:
        """The disk is finished, one way or another."""
        self.state, self.error, self.ended = state, error, time.monotonic()

    def seconds(self) -> float:
        """Time spent so far."""
        if self.started is None:
            return 0.0
        return round((self.ended or time.monotonic()) - self.started, 3)

    def to_dict(self) -> Dict[str, Any]:
        """The entry of this disk in the status file; samples the rate."""
        if self.state == RUNNING:
            self.meter.sample(self.bytes_done)
        finished = self.state not in (PENDING, RUNNING)
        rate = self.meter.rate()
        if finished and self.seconds():
            rate = int(self.bytes_done / self.seconds())
        return {
            "state": self.state,
            "bytes_read": self.bytes_read,
            "bytes_written": self.bytes_written,
            "bytes_zeroed": self.bytes_zeroed,
            "bytes_done": self.bytes_done,
            "bytes_total": self.bytes_total,
            "rate": rate,
            "eta_s": 0 if finished else self.meter.eta(self.bytes_total - self.bytes_done),
            "seconds": self.seconds(),
            "error": self.error,
            "hashes": self.hashes,
            **self.extra,
        }


class StatusReport:
    """Builds the document for all disks of one job. What ``also`` does counts in its totals only."""

    def __init__(self, disks: Iterable[DiskProgress], also: Iterable[DiskProgress] = ()) -> None:
        self.disks = {disk.key: disk for disk in disks}
        self._counted = [*self.disks.values(), *also]
        self._meter = RateMeter()
        self.cap: Optional[Dict[str, Any]] = None
        """Bytes per second, what sets them (``by``), and whether they ``bind``; None while nothing caps."""
        self._started = time.monotonic()

    def build(self, state: str, error: Optional[Dict[str, Any]] = None) -> Dict[str, Any]:
        """The document as of now. ``rate`` and ``eta_s`` are over all disks; ``eta_s`` is null while unknown."""
        done = sum(disk.bytes_done for disk in self._counted)
        total = sum(disk.bytes_total for disk in self._counted)
        self._meter.sample(done)
        seconds = time.monotonic() - self._started
        running = state == RUNNING
        return {
            "schema": SCHEMA,
            "state": state,
            "bytes_done": done,
            "bytes_total": total,
            "rate": self._meter.rate() if running else int(done / seconds) if seconds else 0,
            "eta_s": self._meter.eta(total - done) if running else 0,
            "seconds": round(seconds, 3),
            "updated_at": time.time(),
            "error": error,
            "cap": self.cap if running else None,
            "disks": {key: disk.to_dict() for key, disk in self.disks.items()},
        }


def write_status(path: str, document: Dict[str, Any]) -> None:
    """Replace the status file as a whole. OSError if the directory is gone or full."""
    partial = path + ".new"
    with open(partial, "w", encoding="utf-8") as stream:
        os.chmod(partial, 0o600)
        json.dump(document, stream)
    os.replace(partial, path)


def read_status(path: str) -> Optional[Dict[str, Any]]:
    """The newest document; None while there is none. InvalidInputError if the file is not a status file."""
    try:
        with open(path, encoding="utf-8") as stream:
            document = json.load(stream)
    except FileNotFoundError:
        return None
    except (ValueError, UnicodeDecodeError) as exc:
        raise InvalidInputError(f"{path!r} is not a status file: {exc}.", details={"path": path}) from exc
    if not isinstance(document, dict) or document.get("schema") != SCHEMA:
        raise InvalidInputError(f"{path!r} is not a status file of schema {SCHEMA}.", details={"path": path})
    return document
