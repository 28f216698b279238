# Copyright: (c) 2026, Sendense contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Start a keeper that outlives its starter: a module's own process ends with its task."""

from __future__ import annotations

import json
import os
import subprocess
from typing import Any, Dict, List, Optional, Sequence

from ..datapath.keeper_client import KeeperClient
from ..errors import KeeperFailedError, SendenseError, from_result
from ..hubstate.files import read_tail
from ..hubstate.jobs import JobDir
from ..hubstate.processes import kill_group
from ..hubstate.statedir import StateDir

#: Seconds for a Python start and a bind, on a machine that may be very busy.
START_SECONDS = 30.0


def start_keeper(
    state: StateDir,
    job_id: str,
    role: str,
    agent_path: str,
    python: str,
    meta: Optional[Dict[str, Any]] = None,
    options: Sequence[str] = (),
) -> KeeperClient:
    """Make the job's directory and start its keeper, detached; returns when it answers.

    ``meta`` goes to ``job.json`` (machine_key...), ``options`` to ``agent keeper``. JobRunningError if the job exists here;
    KeeperFailedError with the keeper's last words if it does not come up; then nothing is left.
    """
    job = JobDir.create(state, job_id, role, meta or {})
    lock = job.lock
    if lock is None:
        raise KeeperFailedError(f"Job {job_id} was created without its lock at this {role}.")
    argv = [python, agent_path, "keeper", "--state-dir", state.path, "--job-id", job_id, "--role", role]
    argv += ["--lock-fd", str(lock.fileno()), *options]
    try:
        _launch(argv, job, lock.fileno())
        lock.detach()  # from here on only the keeper keeps the job alive
        client = KeeperClient(job.socket_path)
        client.ping()
    except (SendenseError, OSError) as error:
        failure = _failure(job, error)
        lock.release()
        if not job.alive():
            job.remove()
        raise failure from error
    return client


def _launch(argv: List[str], job: JobDir, lock_fd: int) -> None:
    """Run the keeper's first process until it has put the keeper into the background."""
    log = os.open(job.log_path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
    try:
        process = subprocess.Popen(
            argv,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            cwd="/",
            close_fds=True,
            pass_fds=(lock_fd,),
            start_new_session=True,
        )
    finally:
        os.close(log)
    try:
        code = process.wait(START_SECONDS)
    except subprocess.TimeoutExpired:
        kill_group(process.pid)
        process.wait()
        raise KeeperFailedError(f"it did not listen within {START_SECONDS:g} s") from None
    if code != 0:
        raise KeeperFailedError(f"it ended with exit code {code}")


def _failure(job: JobDir, error: Exception) -> SendenseError:
    tail = read_tail(job.log_path)
    said = _typed(tail)
    why = said.msg if said else f"{error}. Its last words: {tail or 'none'}"
    return KeeperFailedError(
        f"The keeper of job {job.job_id} did not start at this {job.role}: {why}",
        details={"job_id": job.job_id, "role": job.role, "stderr": tail, "error_code": said.error_code if said else ""},
    )


def _typed(tail: str) -> Optional[SendenseError]:
    """The error that the agent wrote as its last line, if it did."""
    try:
        decoded = json.loads(tail.rsplit("\n", 1)[-1])
    except ValueError:
        return None
    return from_result(decoded) if isinstance(decoded, dict) and "error_code" in decoded else None
