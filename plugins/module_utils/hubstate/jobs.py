# Copyright: (c) 2026, Sendense contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The directory of one job at one place. A job lives exactly as long as its keeper holds ``keeper.lock``.

A directory gets its final name only when its lock is held already, and the lock is handed from the creator to the keeper
as an open descriptor. So a job directory without a held lock is a dead job at any time, with no grace period.
"""

from __future__ import annotations

import os
import re
import shutil
import time
from contextlib import ExitStack
from typing import Any, Dict, List, Optional

from ..errors import InvalidInputError, JobNotFoundError, JobRunningError, LeaseHeldError
from .files import read_json, sync_directory, write_json
from .locks import FileLease, holder
from .statedir import StateDir

ROLES = ("hub", "node")
#: Seconds after which an unfinished creation or removal counts as abandoned.
LEFTOVER_SECONDS = 60.0

_JOB_ID = re.compile(r"[0-9a-f]{32}")
_FOLDER = re.compile(r"(?P<job_id>[0-9a-f]{32})-(?P<role>hub|node)")


def check_job_id(job_id: str, role: str) -> None:
    """InvalidInputError unless these may become part of a path."""
    if not isinstance(job_id, str) or not _JOB_ID.fullmatch(job_id):
        raise InvalidInputError(f"Job id {job_id!r} is refused: it must be 32 lower case hex digits.")
    if role not in ROLES:
        raise InvalidInputError(f"Role {role!r} is refused: a place is a {' or a '.join(ROLES)}.")


class JobDir:
    """One job directory; ``lock`` is set only in the process that holds the job."""

    def __init__(self, state: StateDir, job_id: str, role: str, lock: Optional[FileLease] = None) -> None:
        check_job_id(job_id, role)
        self.state = state
        self.job_id = job_id
        self.role = role
        self.path = os.path.join(state.jobs, f"{job_id}-{role}")
        self.socket_path = os.path.join(self.path, "keeper.sock")
        self.heartbeat_path = os.path.join(self.path, "heartbeat")
        self.lock_path = os.path.join(self.path, "keeper.lock")
        self.log_path = os.path.join(self.path, "keeper.log")
        self.lock = lock

    @classmethod
    def create(cls, state: StateDir, job_id: str, role: str, meta: Dict[str, Any]) -> "JobDir":
        """Make the directory with its lock held by this process (``lock``). JobRunningError if the job exists here."""
        job = cls(state, job_id, role)
        partial = os.path.join(state.jobs, f".new-{job_id}-{role}-{os.getpid()}")
        os.mkdir(partial, 0o700)
        with ExitStack() as on_error:
            on_error.callback(shutil.rmtree, partial, ignore_errors=True)
            lock = FileLease.acquire(os.path.join(partial, "keeper.lock"), {"job": job_id, "role": role})
            on_error.callback(lock.release)
            known = dict(meta, job_id=job_id, role=role, created_at=time.time(), pid=None)
            known.setdefault("machine_key", "")
            write_json(os.path.join(partial, "job.json"), known, durable=True)
            os.close(os.open(os.path.join(partial, "heartbeat"), os.O_CREAT | os.O_CLOEXEC, 0o600))
            job._publish(partial)
            on_error.pop_all()
        sync_directory(state.jobs)
        lock.path = job.lock_path
        job.lock = lock
        return job

    def _publish(self, partial: str) -> None:
        """Give a complete directory its name. JobRunningError if the job exists here."""
        try:
            os.rename(partial, self.path)
        except OSError as error:
            if os.path.isdir(self.path):
                raise self._exists() from error
            raise

    def _exists(self) -> JobRunningError:
        what = "is running" if self.alive() else "was left by a dead keeper; run the cleanup playbook"
        return JobRunningError(f"Job {self.job_id} already exists at this {self.role}: it {what}.", details={"job_id": self.job_id})

    @classmethod
    def open(cls, state: StateDir, job_id: str, role: str) -> "JobDir":
        """Find the directory of a job, alive or dead. JobNotFoundError if there is none."""
        job = cls(state, job_id, role)
        if not os.path.isdir(job.path):
            raise JobNotFoundError(
                f"There is no job {job_id} at this {role}: it ended, was given up or never began. Begin a new one.",
                details={"job_id": job_id, "role": role},
            )
        return job

    def alive(self) -> bool:
        """Whether its keeper holds ``keeper.lock``."""
        return holder(self.lock_path) is not None

    def claim(self) -> bool:
        """Take the lock of a dead job, so that only one process undoes it; False if it is not dead."""
        try:
            self.lock = FileLease.acquire(self.lock_path, {"job": self.job_id, "role": self.role, "what": "clean-up"})
        except (LeaseHeldError, FileNotFoundError):
            return False
        return True

    def beat(self) -> None:
        """Tell the keeper that somebody still wants this job. JobNotFoundError if it is gone."""
        try:
            os.utime(self.heartbeat_path)
        except FileNotFoundError as error:
            raise JobNotFoundError(f"Job {self.job_id} is gone at this {self.role}; it cannot be kept alive.") from error

    def cancel(self) -> None:
        """Ask movers and verifiers to stop. JobNotFoundError if the job is gone."""
        try:
            descriptor = os.open(os.path.join(self.path, "cancel"), os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o600)
        except FileNotFoundError as error:
            raise JobNotFoundError(f"Job {self.job_id} is gone at this {self.role}; there is nothing to cancel.") from error
        os.close(descriptor)

    def cancelled(self) -> bool:
        """Whether somebody asked for the end."""
        return os.path.exists(os.path.join(self.path, "cancel"))

    def undos(self) -> List[Dict[str, Any]]:
        """The commands that undo what is open, in the order in which they were added: ``{"name", "argv"}``."""
        return list(read_json(os.path.join(self.path, "undo.json"), []))

    def save_undos(self, undos: List[Dict[str, Any]]) -> None:
        """Keep them so that they survive a power cut."""
        write_json(os.path.join(self.path, "undo.json"), undos, durable=True)

    def children(self) -> List[Dict[str, Any]]:
        """The children that the keeper recorded last: ``{"name", "kind", "pid", "starttime"}``."""
        return list(read_json(os.path.join(self.path, "children.json"), []))

    def save_children(self, children: List[Dict[str, Any]]) -> None:
        """Record the children, for a clean-up after a crash."""
        write_json(os.path.join(self.path, "children.json"), children)

    def meta(self) -> Dict[str, Any]:
        """``job.json``: job_id, role, machine_key, created_at, pid. JobNotFoundError if it is gone."""
        meta = read_json(os.path.join(self.path, "job.json"))
        if not isinstance(meta, dict):
            raise JobNotFoundError(f"Job {self.job_id} has no readable job.json at this {self.role}.", details={"job_id": self.job_id})
        return meta

    def update_meta(self, **fields: Any) -> None:
        """Change fields of ``job.json``."""
        write_json(os.path.join(self.path, "job.json"), dict(self.meta(), **fields))

    def remove(self) -> None:
        """Remove the directory with all that is in it. It disappears at once; repetition changes nothing."""
        doomed = os.path.join(self.state.jobs, f".gone-{self.job_id}-{self.role}-{os.getpid()}")
        try:
            os.rename(self.path, doomed)
        except FileNotFoundError:
            return
        # The name is gone; what cannot be removed now is swept later.
        shutil.rmtree(doomed, ignore_errors=True)


def list_jobs(state: StateDir) -> List[JobDir]:
    """All jobs of this place, alive or dead."""
    try:
        names = sorted(os.listdir(state.jobs))
    except FileNotFoundError:
        return []
    found = [_FOLDER.fullmatch(name) for name in names]
    return [JobDir(state, match.group("job_id"), match.group("role")) for match in found if match]


def job_alive(state: StateDir, job_id: str) -> bool:
    """Whether the job has a living keeper here, in any role."""
    return any(JobDir(state, job_id, role).alive() for role in ROLES)


def half_made(state: StateDir) -> List[str]:
    """Paths of what a crash left of half-made and half-removed job directories."""
    found = []
    for name in sorted(os.listdir(state.jobs)) if os.path.isdir(state.jobs) else []:
        path = os.path.join(state.jobs, name)
        if not name.startswith((".new-", ".gone-")) or holder(os.path.join(path, "keeper.lock")) is not None:
            continue
        try:
            age = time.time() - os.lstat(path).st_mtime
        except FileNotFoundError:
            continue
        # A clock that was set back must not keep them for ever.
        if age < 0 or age > LEFTOVER_SECONDS:
            found.append(path)
    return found


def sweep_jobs(state: StateDir) -> List[str]:
    """Remove what :func:`half_made` finds; the names."""
    found = half_made(state)
    for path in found:
        shutil.rmtree(path, ignore_errors=True)
    return [os.path.basename(path) for path in found]
