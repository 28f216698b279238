# Copyright: (c) 2026, Sendense contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The keeper: one single-threaded process per job and place that holds what must end when the job ends.

It gives the job up when it is cancelled, when ansible-playbook ends on the same machine, and when nobody has shown
interest for the heartbeat timeout: no new mtime of the heartbeat file, no request, nobody who waits for an answer. What a
keeper killed by force leaves is undone by ``agent.cleanup``.
"""

from __future__ import annotations

import argparse
import json
import os
import selectors
import signal
import socket
import sys
import time
import traceback
from dataclasses import dataclass
from typing import Any, Callable, Dict, Generator, List, Optional

from ..errors import InvalidInputError, JobAbandonedError, LeaseHeldError, SendenseError
from ..hubstate.cancelling import cancelled_error
from ..hubstate.jobs import ROLES, JobDir
from ..hubstate.locks import FileLease
from ..hubstate.ports import FIRST_PORT, LAST_PORT, PortPool
from ..hubstate.processes import start_time
from ..hubstate.statedir import StateDir
from ..steps import reached
from .keeper_ops import JobKeeper
from .keeper_watch import CANCELLED, CONTROLLER, LOOK_SECONDS, Wanted

HEARTBEAT_SECONDS = 30.0
#: Longest sleep of the loop: a dead child, a stopped heart, a cancel and a dead controller are noticed within this time.
TICK_SECONDS = LOOK_SECONDS
#: Why a job ends, for those who still ask for something.
_REASONS = {"heartbeat": "nobody beat its heart", "signal": "its keeper was told to end", CONTROLLER: "ansible-playbook has ended"}
MAX_REQUEST_BYTES = 1 << 20

#: Requests that are dropped when their caller is gone before the answer: they would only wait for nobody.
_FOR_THE_CALLER = ("lease_ports",)


class Heart:
    """Whether somebody still wants the job. Only changes of the mtime count, never its value: clocks jump."""

    def __init__(self, path: str, timeout_s: float, clock: Callable[[], float] = time.monotonic) -> None:
        self._path = path
        self._timeout_s = timeout_s
        self._clock = clock
        self._mtime: Optional[int] = None
        self._beaten = clock()

    def beat(self) -> None:
        """Somebody asked for something."""
        self._beaten = self._clock()

    def silence(self) -> float:
        """Seconds since the last beat."""
        try:
            mtime: Optional[int] = os.stat(self._path).st_mtime_ns
        except FileNotFoundError:
            mtime = None
        if mtime is not None and mtime != self._mtime:
            self._mtime = mtime
            self.beat()
        return self._clock() - self._beaten

    def stopped(self) -> bool:
        """Whether the job is abandoned."""
        return self.silence() > self._timeout_s


@dataclass
class Task:
    """One operation that waits; ``connection`` gets the answer, None for the keeper's own."""

    op: str
    steps: Generator[float, None, Dict[str, Any]]
    connection: Optional[socket.socket]
    wake: float = 0.0


class Keeper:
    """The loop: listens, steps what waits, reaps children, listens to the heart."""

    def __init__(self, listener: socket.socket, kept: JobKeeper, heart: Heart, wanted: Wanted) -> None:
        self._listener = listener
        self._kept = kept
        self._heart = heart
        self._wanted = wanted
        self._selector = selectors.DefaultSelector()
        self._inputs: Dict[socket.socket, bytearray] = {}
        self._tasks: List[Task] = []
        self._ending = ""
        self._done = False
        self._signalled = False

    def run(self) -> int:
        """Serve until the job ends."""
        self._listener.setblocking(False)
        self._selector.register(self._listener, selectors.EVENT_READ, self._accept)
        wake_up = self._watch_signals()
        self._selector.register(wake_up, selectors.EVENT_READ, _drain)
        while not self._done:
            for key, _events in self._selector.select(self._pause()):
                key.data(key.fileobj)
            self._kept.children.poll()
            self._step_all()
            self._look_after_itself()
        return 0

    def _watch_signals(self) -> socket.socket:
        reading, writing = socket.socketpair()
        for end in (reading, writing):
            end.setblocking(False)
        signal.set_wakeup_fd(writing.detach(), warn_on_full_buffer=False)
        # Handlers that do nothing, not SIG_IGN: children would inherit that.
        for signum in (signal.SIGCHLD, signal.SIGHUP):
            signal.signal(signum, lambda _signum, _frame: None)
        for signum in (signal.SIGTERM, signal.SIGINT):
            signal.signal(signum, self._on_signal)
        return reading

    def _on_signal(self, _signum: int, _frame: Any) -> None:
        self._signalled = True

    def _pause(self) -> float:
        if not self._tasks:
            return TICK_SECONDS
        nearest = min(task.wake for task in self._tasks) - time.monotonic()
        return max(0.002, min(nearest, TICK_SECONDS))

    def _look_after_itself(self) -> None:
        if any(task.connection is not None for task in self._tasks):
            self._heart.beat()
        if self._ending:
            return
        if self._signalled:
            self._end("signal", undo=True, connection=None)
            return
        refusal = self._wanted.refusal() or ("heartbeat" if self._heart.stopped() else "")
        if refusal:
            self._end(refusal, undo=True, connection=None)

    # --- connections ------------------------------------------------------------------------------------------------

    def _accept(self, _listener: Any) -> None:
        try:
            connection, _address = self._listener.accept()
        except OSError:
            return  # it went away again, or descriptors are short for a moment
        connection.setblocking(False)
        self._inputs[connection] = bytearray()
        self._selector.register(connection, selectors.EVENT_READ, self._read)

    def _read(self, connection: Any) -> None:
        try:
            part = connection.recv(65536)
        except BlockingIOError:
            return
        except OSError:
            part = b""
        if not part:
            self._drop(connection)
            return
        received = self._inputs[connection]
        received += part
        if len(received) > MAX_REQUEST_BYTES:
            self._drop(connection)
            return
        while b"\n" in received and connection in self._inputs:
            line, _newline, rest = bytes(received).partition(b"\n")
            received[:] = rest
            self._request(connection, line)

    def _drop(self, connection: socket.socket) -> None:
        """Forget a caller. What it began goes on, except what only it was waiting for."""
        if self._inputs.pop(connection, None) is None:
            return
        self._selector.unregister(connection)
        connection.close()
        for task in list(self._tasks):
            if task.connection is connection:
                task.connection = None
                if task.op in _FOR_THE_CALLER:
                    task.steps.close()
                    self._tasks.remove(task)

    def _answer(self, connection: Optional[socket.socket], answer: Dict[str, Any]) -> None:
        if connection is None:
            return
        try:
            connection.sendall(json.dumps(answer, sort_keys=True).encode("ascii") + b"\n")
        except OSError:
            # It does not read, or is gone: its answer is lost, the job goes on.
            self._drop(connection)

    # --- requests ---------------------------------------------------------------------------------------------------

    def _request(self, connection: socket.socket, line: bytes) -> None:
        self._heart.beat()
        try:
            request = json.loads(line)
            if not isinstance(request, dict):
                raise ValueError("not an object")
        except ValueError as error:
            refused = InvalidInputError(f"The request is refused: it must be one JSON object on one line ({error}).")
            self._answer(connection, {"ok": False, "error": refused.as_result()})
            return
        self._guarded(connection, lambda: self._begin(connection, request))

    def _begin(self, connection: socket.socket, request: Dict[str, Any]) -> None:
        op = str(request.get("op"))
        if self._ending and op not in ("ping", "child"):
            raise self._over()
        if op in ("finish", "abort"):
            self._end(op, undo=op == "abort", connection=connection)
            return
        outcome = self._kept.perform(request)
        if isinstance(outcome, dict):
            self._answer(connection, dict(outcome, ok=True))
        else:
            self._step(Task(op, outcome, connection))

    def _over(self) -> SendenseError:
        if self._ending == CANCELLED:
            return cancelled_error(self._kept.job.path)
        why = _REASONS.get(self._ending, "its end was asked for")
        return JobAbandonedError(f"Job {self._kept.job.job_id} is being ended at this {self._kept.job.role}: {why}. Begin a new job.")

    def _end(self, why: str, undo: bool, connection: Optional[socket.socket]) -> None:
        """Begin the end of the job; those who wait for something else are told so."""
        self._ending = why
        log(f"job {self._kept.job.job_id} ends: {why}")
        for task in self._tasks:
            task.steps.close()
            self._answer(task.connection, {"ok": False, "error": self._over().as_result()})
        self._tasks = []
        self._step(Task("end", self._kept.end(undo, note=why == CANCELLED), connection))

    # --- what waits ---------------------------------------------------------------------------------------------------

    def _step_all(self) -> None:
        for task in list(self._tasks):
            if task in self._tasks:
                self._tasks.remove(task)
                self._step(task)

    def _step(self, task: Task) -> None:
        self._guarded(task.connection, lambda: self._advance(task), ending=task.op == "end")

    def _advance(self, task: Task) -> None:
        try:
            task.wake = time.monotonic() + next(task.steps)
        except StopIteration as stopped:
            answer = dict(stopped.value, ok=True)
            if task.op == "end":
                log(f"job {self._kept.job.job_id} has ended: {json.dumps(stopped.value, sort_keys=True)}")
                self._done = True
            self._answer(task.connection, answer)
            return
        self._tasks.append(task)

    def _guarded(self, connection: Optional[socket.socket], action: Callable[[], None], ending: bool = False) -> None:
        """Turn a failure into an answer: one bad request must not take the job's exports with it."""
        try:
            action()
        except SendenseError as error:
            self._answer(connection, {"ok": False, "error": error.as_result()})
        except Exception as error:  # noqa: BLE001 - the worker loop
            log(traceback.format_exc())
            job = self._kept.job
            wrapped = SendenseError(f"The keeper of job {job.job_id} failed: {error!r}. See keeper.log in {job.path}.")
            self._answer(connection, {"ok": False, "error": wrapped.as_result()})
        else:
            return
        # A keeper that cannot end must die, so that the kernel frees what it holds and cleanup does the rest.
        self._done = self._done or ending


def _drain(wake_up: Any) -> None:
    try:
        while wake_up.recv(4096):
            pass
    except BlockingIOError:
        return


def log(text: str) -> None:
    """One line in keeper.log."""
    sys.stderr.write(f"{time.strftime('%Y-%m-%dT%H:%M:%SZ', time.gmtime())} {text}\n")
    sys.stderr.flush()


def main(argv: List[str]) -> int:
    """``agent keeper``: take over the job, listen, and go to the background. Exit code 0 once the socket listens."""
    options = _options(argv)
    os.umask(0o077)
    state = StateDir(options.state_dir)
    job = JobDir.open(state, options.job_id, options.role)
    pool = PortPool(state, options.first_port, options.last_port)
    if options.lock_fd is not None:
        os.fstat(options.lock_fd)  # OSError for a number that is no open file, before anything is done
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    listener.bind(job.socket_path)
    os.chmod(job.socket_path, 0o600)
    listener.listen(64)
    if not options.foreground and os.fork() > 0:
        os._exit(0)
    job.lock = _lock(job, options.lock_fd)
    job.update_meta(pid=os.getpid(), starttime=start_time(os.getpid()))
    reached("keeper:alive")
    heart, wanted = Heart(job.heartbeat_path, options.heartbeat_timeout), Wanted(job, job.meta().get("controller") or {})
    code = Keeper(listener, JobKeeper(job, pool), heart, wanted).run()
    # Before the callers' connections are closed by the exit: who was told of the end finds a dead job.
    job.lock.release()
    return code


def _lock(job: JobDir, descriptor: Optional[int]) -> FileLease:
    if descriptor is not None:
        return FileLease.adopt(job.lock_path, descriptor)
    if not job.claim() or job.lock is None:
        raise LeaseHeldError(f"Job {job.job_id} already has a keeper at this {job.role}.")
    return job.lock


def _options(argv: List[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="agent keeper", description="Hold what belongs to one job at this place.")
    parser.add_argument("--state-dir", required=True)
    parser.add_argument("--job-id", required=True, help="32 hex digits")
    parser.add_argument("--role", required=True, choices=ROLES)
    parser.add_argument("--lock-fd", type=int, help="inherited descriptor that holds keeper.lock")
    parser.add_argument("--heartbeat-timeout", type=float, default=HEARTBEAT_SECONDS, help="seconds")
    parser.add_argument("--first-port", type=int, default=FIRST_PORT)
    parser.add_argument("--last-port", type=int, default=LAST_PORT)
    parser.add_argument("--foreground", action="store_true", help="do not go to the background")
    return parser.parse_args(argv)
