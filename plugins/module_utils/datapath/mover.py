# Copyright: (c) 2026, Sendense contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Copies all disks of a machine at once, hashing every block as it is read from the source.

Every disk is connected, checked and planned; only if all can be copied, and no audit finds a lie of change tracking, does the
first byte move. If one disk fails the others stop early, and every disk has a result of its own.
"""

from __future__ import annotations

import threading
from contextlib import ExitStack
from typing import Callable, Dict, List, Mapping, Optional

from ..errors import ExportFailedError, JobCancelledError, SendenseError
from .audit import Audit, audit_disks
from .bandwidth import TokenBucket
from .cap import Cap, parse_node_bandwidth
from .loop import DiskLoop, Stop, balance, defect, end_state, run_parallel
from .mover_plan import DiskJob, MoverOptions, check_jobs
from .pipeline import Pipeline
from .status import DONE
from .supervisor import MoveResult, Supervisor
from .transfer import Transfer


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
    audits = [Audit(transfer, options, stop.is_set) for transfer in transfers if transfer.job.audit_path]
    also = [audit.progress for audit in audits]
    with Cap(options.bandwidth_bytes_per_s, parse_node_bandwidth(options.node_bandwidth)) as cap, ExitStack() as stack:
        for transfer in transfers:
            stack.callback(transfer.close)
        supervisor = Supervisor([transfer.progress for transfer in transfers], stop, status_path, cancel_path, also, cap)
        supervisor.tick()
        _prepare(transfers, options, stop, supervisor.tick)
        if audits and not stop.is_set():
            audit_disks(audits, jobs, options, stop, cap.bucket, supervisor.tick)
            _end_early(transfers, {audit.job.key: audit.verdict for audit in audits if audit.verdict is not None}, stop)
        if not stop.is_set():
            _copy(transfers, options, stop, cap.bucket, supervisor.tick)
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
        if error is not None and not isinstance(error, JobCancelledError):
            stop.request(error, transfer.job.key)
    _end_early(transfers, failures, stop)


def _end_early(transfers: List[Transfer], failures: Mapping[str, SendenseError], stop: Stop) -> None:
    """If nothing will be copied, say of every disk why: its own failure, or that of another."""
    for transfer in transfers if stop.is_set() else []:
        transfer.fail(failures.get(transfer.job.key) or stop.error_for(transfer.job.key))


def _copy(transfers: List[Transfer], options: MoverOptions, stop: Stop, bucket: Optional[TokenBucket], tick: Callable[[], None]) -> None:
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
                transfer.measure(bucket)
                with priming:
                    transfer.prime(bucket)
                by_pipeline[transfer.start(bucket, len(transfers))] = transfer
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
