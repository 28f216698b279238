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
from functools import partial
from typing import Any, Callable, Dict, List, Optional, Sequence, TypeVar

from ..errors import JobCancelledError, SendenseError
from .nbd_handle import NbdConnection
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
        self._registered: Dict[int, int] = {}
        self._of_fd: Dict[int, "tuple[Pipeline, NbdConnection]"] = {}

    def run(self) -> None:
        """Until no pipeline is left. Errors of a disk go to ``failed``, never out of here."""
        try:
            for pipeline in self._active:
                for connection in pipeline.connections():
                    self._of_fd[connection.fileno()] = (pipeline, connection)
            touched = list(self._active)
            while self._active:
                if self._stop.is_set():
                    for pipeline in list(self._active):
                        self._drop(pipeline, self._stop.error_for(pipeline.progress.key))
                    return
                self._step(touched)
                touched = self._wait() if self._active else []
        finally:
            self._epoll.close()

    def _step(self, touched: List[Pipeline]) -> None:
        for pipeline in touched:
            self._guard(pipeline, partial(self._advance, pipeline))

    def _advance(self, pipeline: Pipeline) -> None:
        pipeline.step(self._slots)
        if pipeline.finished:
            self._unregister(pipeline)
            self._active.remove(pipeline)
            self._finished(pipeline)
            return
        for connection in pipeline.connections():
            self._register(connection)

    def _wait(self) -> List[Pipeline]:
        """Poll, and name the pipelines that have something to do."""
        touched = {id(pipeline): pipeline for pipeline in self._active if pipeline.starved and self._slots.free()}
        timeout = 0.0 if touched else self._timeout()
        for fd, events in self._epoll.poll(timeout):
            if fd not in self._of_fd:
                continue  # an earlier event of this round ended its disk
            pipeline, connection = self._of_fd[fd]
            self._guard(pipeline, partial(pipeline.notify, connection, bool(events & ~select.EPOLLOUT)))
            touched[id(pipeline)] = pipeline
        now = time.monotonic()
        for pipeline in list(self._active):
            self._guard(pipeline, partial(pipeline.check, now))
            if pipeline.wake_at is not None and pipeline.wake_at <= now:
                touched[id(pipeline)] = pipeline
        return list(touched.values())

    def _timeout(self) -> float:
        wakes = [pipeline.wake_at for pipeline in self._active if pipeline.wake_at is not None]
        if not wakes:
            return TICK_SECONDS
        return min(TICK_SECONDS, max(0.001, min(wakes) - time.monotonic()))

    def _guard(self, pipeline: Pipeline, action: Callable[[], None]) -> None:
        if pipeline not in self._active:
            return  # it has ended meanwhile
        try:
            action()
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

    def _register(self, connection: NbdConnection) -> None:
        reading, writing = connection.wants()
        events = (select.EPOLLIN if reading else 0) | (select.EPOLLOUT if writing else 0)
        fd = connection.fileno()
        if self._registered.get(fd) == events:
            return
        if fd in self._registered:
            self._epoll.modify(fd, events)
        else:
            self._epoll.register(fd, events)
        self._registered[fd] = events

    def _unregister(self, pipeline: Pipeline) -> None:
        for fd, (owner, _connection) in list(self._of_fd.items()):
            if owner is pipeline:
                del self._of_fd[fd]
                if self._registered.pop(fd, None) is not None:
                    # libnbd closes the socket of a connection that died; the kernel has then forgotten it already
                    with suppress(OSError):
                        self._epoll.unregister(fd)


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
