# Copyright: (c) 2026, Sendense contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The epoll loops: every thread drives several disks, so that all disks of a job move at once.

Whatever ends one disk is recorded at that disk; a :class:`Stop` tells all others.
"""

from __future__ import annotations

import select
import threading
import time
import traceback
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, Callable, Dict, List, Optional, Sequence, TypeVar

from ..errors import JobCancelledError, SendenseError
from .nbd_handle import READING, WRITING, NbdConnection
from .pipeline import Pipeline
from .slots import SlotPool
from .status import CANCELLED, DONE, FAILED

#: Seconds after which a loop looks up even if nothing happens: for stop and stall.
TICK_SECONDS = 0.2

#: Slots of one thread beyond which its disks share: bounds the memory of a machine with many disks.
MAX_SLOTS = 16

Item = TypeVar("Item")


class Stop:
    """Why everything must end; the first reason counts. Shared by all threads."""

    def __init__(self) -> None:
        self._event = threading.Event()
        self._lock = threading.Lock()
        self.error: Optional[SendenseError] = None
        self.disk = ""
        """The disk that failed, if one did."""

    def request(self, error: SendenseError, disk: str = "") -> None:
        """End everything because of this."""
        with self._lock:
            if self.error is None:
                self.error, self.disk = error, disk
        self._event.set()

    def is_set(self) -> bool:
        """Whether to end."""
        return self._event.is_set()

    def error_for(self, disk: str) -> SendenseError:
        """The error of a disk that was ended by this."""
        if self.error is None or self.disk:
            return JobCancelledError(
                f"{disk} was stopped because {self.disk or 'another disk'} failed; nothing of this copy may be used.",
                details={"disk": disk, "because": self.disk},
            )
        return self.error


class DiskLoop:
    """Drives the pipelines of one thread until each is finished or failed."""

    def __init__(
        self,
        pipelines: Sequence[Pipeline],
        request_bytes: int,
        stop: Stop,
        finished: Callable[[Pipeline], None],
        failed: Callable[[Pipeline, SendenseError], None],
    ) -> None:
        depths = [pipeline.options.depth for pipeline in pipelines]
        self._slots = SlotPool(min(sum(depths), max(MAX_SLOTS, *depths)), request_bytes)
        self._active = list(pipelines)
        self._stop = stop
        self._finished = finished
        self._failed = failed
        self._epoll = select.epoll()
        self._lines: Dict[int, _Line] = {}
        self._check_at = 0.0

    def run(self) -> None:
        """Until no pipeline is left. Errors of a disk go to ``failed``, never out of here."""
        try:
            for pipeline in list(self._active):
                self._guard(pipeline, self._enter, pipeline)
            touched = list(self._active)
            while self._active:
                if self._stop.is_set():
                    for pipeline in list(self._active):
                        self._drop(pipeline, self._stop.error_for(pipeline.progress.key))
                    return
                for pipeline in touched:
                    self._guard(pipeline, self._advance, pipeline)
                touched = self._wait() if self._active else []
        finally:
            self._epoll.close()

    def _enter(self, pipeline: Pipeline) -> None:
        for connection in pipeline.connections():
            self._lines[connection.fileno()] = _Line(connection.fileno(), pipeline, connection)

    def _advance(self, pipeline: Pipeline) -> None:
        pipeline.step(self._slots)
        if pipeline.finished:
            self._unregister(pipeline)
            self._active.remove(pipeline)
            self._finished(pipeline)
            return
        for line in self._lines.values():
            if line.pipeline is pipeline:
                self._register(line, line.connection.direction())

    def _wait(self) -> List[Pipeline]:
        """Poll, and name the pipelines that have something to do.

        A large answer arrives in many parts; only the last one of them is something to do. This runs for each part.
        """
        touched = [pipeline for pipeline in self._active if pipeline.starved and self._slots.free()]
        events = self._epoll.poll(0.0 if touched else self._timeout())
        now = time.monotonic()
        for fd, event in events:
            line = self._lines.get(fd)
            if line is not None:  # else an earlier event of this round ended its disk
                self._guard(line.pipeline, self._event, line, event, now)
                if line.pipeline.due() and line.pipeline not in touched:
                    touched.append(line.pipeline)
        if now >= self._check_at:
            self._check_at = now + TICK_SECONDS
            for pipeline in list(self._active):
                self._guard(pipeline, pipeline.check, now)
        touched += [one for one in self._active if one.wake_at is not None and one.wake_at <= now and one not in touched]
        return touched

    def _event(self, line: "_Line", event: int, now: float) -> None:
        self._register(line, line.pipeline.notify(line.connection, event != select.EPOLLOUT, now))

    def _timeout(self) -> float:
        wakes = [pipeline.wake_at for pipeline in self._active if pipeline.wake_at is not None]
        if not wakes:
            return TICK_SECONDS
        return min(TICK_SECONDS, max(0.001, min(wakes) - time.monotonic()))

    def _guard(self, pipeline: Pipeline, action: Callable[..., None], *arguments: Any) -> None:
        if pipeline not in self._active:
            return  # it has ended meanwhile
        try:
            action(*arguments)
        except SendenseError as exc:
            self._drop(pipeline, exc)
        except Exception:  # noqa: BLE001 a defect must end as this disk's error, not as a silent thread
            self._drop(pipeline, defect(pipeline.progress.key))

    def _drop(self, pipeline: Pipeline, error: SendenseError) -> None:
        self._unregister(pipeline)
        pipeline.abandon(self._slots)
        if pipeline in self._active:
            self._active.remove(pipeline)
        self._failed(pipeline, error)

    def _register(self, line: "_Line", direction: int) -> None:
        if direction == line.direction:
            return
        events = (select.EPOLLIN if direction & READING else 0) | (select.EPOLLOUT if direction & WRITING else 0)
        if line.direction < 0:
            self._epoll.register(line.fd, events)
        else:
            self._epoll.modify(line.fd, events)
        line.direction = direction

    def _unregister(self, pipeline: Pipeline) -> None:
        for line in [line for line in self._lines.values() if line.pipeline is pipeline]:
            del self._lines[line.fd]
            if line.direction >= 0:
                # libnbd closes the socket of a connection that died; the kernel has then forgotten it already
                with suppress(OSError):
                    self._epoll.unregister(line.fd)


@dataclass
class _Line:
    """One connection in the loop; ``direction`` is what is polled for, -1 before it is registered."""

    fd: int
    pipeline: Pipeline
    connection: NbdConnection
    direction: int = -1


def defect(disk: str) -> SendenseError:
    """The current exception as the typed error of a disk."""
    return SendenseError(
        f"Internal error while working on {disk}. Report it with these details.",
        details={"disk": disk, "traceback": traceback.format_exc()},
    )


def end_state(error: Optional[SendenseError]) -> str:
    """The state that goes with an error: done, cancelled or failed."""
    if error is None:
        return DONE
    return CANCELLED if isinstance(error, JobCancelledError) else FAILED


def balance(items: Sequence[Item], weight: Callable[[Item], int], groups: int) -> List[List[Item]]:
    """Spread items over at most so many groups of about equal weight, heaviest first."""
    made: List[List[Item]] = [[] for _unused in range(max(1, min(groups, len(items))))]
    loads = [0] * len(made)
    for item in sorted(items, key=weight, reverse=True):
        lightest = loads.index(min(loads))
        made[lightest].append(item)
        loads[lightest] += weight(item) + 1
    return [group for group in made if group]


def run_parallel(groups: Sequence[Any], work: Callable[[Any], None], tick: Callable[[], None]) -> None:
    """Run ``work`` on every group in a thread of its own; call ``tick`` in this thread meanwhile. Waits for all."""
    threads = [threading.Thread(target=work, args=(group,), daemon=True) for group in groups]
    for thread in threads:
        thread.start()
    for thread in threads:
        while thread.is_alive():
            thread.join(TICK_SECONDS)
            tick()
