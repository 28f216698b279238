# Copyright: (c) 2026, Sendense contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Copies all disks of a machine at once, hashing every block as it is read from the source.

Two phases: every disk is connected, checked and planned; only if all can be copied does the first byte move. If one disk
fails the others stop early, and every disk has a result of its own.
"""

from __future__ import annotations

import os
import threading
from dataclasses import dataclass, field
from typing import Any, Callable, Dict, List, Optional

from ..errors import ExportFailedError, JobAbandonedError, JobCancelledError, SendenseError
from .bandwidth import TokenBucket
from .loop import DiskLoop, Stop, balance, defect, end_state, run_parallel
from .mover_plan import DiskJob, MoverOptions, check_jobs
from .pipeline import Pipeline
from .status import DONE, RUNNING, DiskProgress, StatusReport, write_status
from .transfer import Transfer


@dataclass
class MoveResult:
    """How a copy ended: one entry per disk in ``disks``, in the shape of the status file."""

    state: str
    """``done``, ``failed`` or ``cancelled``."""
    error: Optional[Dict[str, Any]]
    """The first error, as ``SendenseError.as_result``."""
    disks: Dict[str, Dict[str, Any]] = field(default_factory=dict)
    document: Dict[str, Any] = field(default_factory=dict)
    """The last status document."""


class Supervisor:
    """What the main thread of a mover or verifier does meanwhile: status file, cancel file, the end."""

    def __init__(self, progress: List[DiskProgress], stop: Stop, status_path: str = "", cancel_path: str = "") -> None:
        self.report = StatusReport(progress)
        self.stop = stop
        self._status_path = status_path
        self._cancel_path = cancel_path

    def tick(self) -> None:
        """Called several times a second."""
        if self._cancel_path and not self.stop.is_set() and os.path.exists(self._cancel_path):
            self.stop.request(JobCancelledError("The job was cancelled: its cancel file appeared."))
        self.publish(self.report.build(RUNNING))

    def publish(self, document: Dict[str, Any]) -> None:
        """Replace the status file; a missing job directory means that the job was given up."""
        if not self._status_path:
            return
        try:
            write_status(self._status_path, document)
        except FileNotFoundError:
            self.stop.request(JobAbandonedError(f"The directory of {self._status_path!r} is gone: the job was given up."))
        except OSError:
            pass  # a full file system delays the news, not the copy; the next tick tries again


def move(
    jobs: List[DiskJob],
    options: MoverOptions,
    status_path: str = "",
    cancel_path: str = "",
    stop: Optional[Stop] = None,
) -> MoveResult:
    """Copy the disks; blocks until all are done or ended. Errors are in the result, not raised.

    InvalidInputError (raised) for jobs or options that cannot mean anything: nothing was touched.
    ``stop.request(JobCancelledError(...))`` from a signal handler or thread cancels, as does the cancel file.
    """
    check_jobs(jobs)
    options.check()
    stop = stop or Stop()
    transfers = [Transfer(job, options, stop.is_set) for job in jobs]
    supervisor = Supervisor([transfer.progress for transfer in transfers], stop, status_path, cancel_path)
    supervisor.tick()
    try:
        _prepare(transfers, options, stop, supervisor.tick)
        if not stop.is_set():
            _copy(transfers, options, stop, supervisor.tick)
    finally:
        for transfer in transfers:
            transfer.close()
    state = end_state(stop.error)
    error = stop.error.as_result() if stop.error is not None else None
    document = supervisor.report.build(state, error)
    supervisor.publish(document)
    return MoveResult(state, error, document["disks"], document)


def _prepare(transfers: List[Transfer], options: MoverOptions, stop: Stop, tick: Callable[[], None]) -> None:
    """Connect, check and plan every disk; all findings are collected before the decision."""
    failures: Dict[str, SendenseError] = {}

    def work(group: List[Transfer]) -> None:
        for transfer in group:
            try:
                transfer.prepare()
            except SendenseError as exc:
                failures[transfer.job.key] = exc
            except Exception:  # noqa: BLE001 a defect must end as this disk's error, not as a silent thread
                failures[transfer.job.key] = defect(transfer.job.key)

    run_parallel(balance(transfers, lambda one: 1, options.threads), work, tick)
    for transfer in transfers:
        error = failures.get(transfer.job.key)
        if error is not None:
            if not isinstance(error, JobCancelledError):
                stop.request(error, transfer.job.key)
            transfer.fail(error)
    if stop.is_set():
        for transfer in transfers:
            if transfer.job.key not in failures:
                transfer.fail(stop.error_for(transfer.job.key))


def _copy(transfers: List[Transfer], options: MoverOptions, stop: Stop, tick: Callable[[], None]) -> None:
    bucket = TokenBucket(options.bandwidth_bytes_per_s) if options.bandwidth_bytes_per_s else None
    priming = threading.Lock()  # one after another: eight large reads at once would be eight large buffers

    def fail(transfer: Transfer, error: SendenseError) -> None:
        if isinstance(error, JobCancelledError) and stop.is_set():
            error = stop.error_for(transfer.job.key)  # says why, where a wait only knew that
        else:
            stop.request(error, transfer.job.key)
        transfer.fail(error)

    def work(group: List[Transfer]) -> None:
        by_pipeline: Dict[Pipeline, Transfer] = {}
        for transfer in group:
            try:
                with priming:
                    transfer.prime()
                by_pipeline[transfer.start(bucket)] = transfer
            except SendenseError as exc:
                fail(transfer, exc)
            except Exception:  # noqa: BLE001 a defect must end as this disk's error, not as a silent thread
                fail(transfer, defect(transfer.job.key))

        def finished(pipeline: Pipeline) -> None:
            try:
                by_pipeline[pipeline].finish()
            except SendenseError as exc:  # the hash file could not be sealed
                fail(by_pipeline[pipeline], exc)

        def failed(pipeline: Pipeline, error: SendenseError) -> None:
            fail(by_pipeline[pipeline], error)

        if by_pipeline:
            DiskLoop(list(by_pipeline), options.request_bytes, stop, finished, failed).run()

    run_parallel(balance(transfers, lambda one: one.progress.bytes_total, options.threads), work, tick)
    for transfer in transfers:
        if transfer.progress.state != DONE and not stop.is_set():
            stop.request(ExportFailedError(f"{transfer.job.key} did not finish. This is a defect."), transfer.job.key)
