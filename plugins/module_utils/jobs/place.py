# Copyright: (c) 2026, Sendense contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A job at one place: its directory, its keeper, and the undo commands that outlive both."""

from __future__ import annotations

import json
import os
import sys
import threading
import uuid
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Dict, Iterator, List, Optional

from ..agent.cleanup import cleanup_dead_jobs
from ..agent.launch import start_keeper
from ..agent.store import compiled
from ..datapath.children import TUNNEL
from ..datapath.keeper_client import KeeperClient
from ..errors import (
    InvalidInputError,
    JobAbandonedError,
    JobCancelledError,
    JobNotFoundError,
    JobRunningError,
    LeaseHeldError,
    SendenseError,
    VerificationFailedError,
)
from ..hubstate.cancelling import attend, cancelled_error, forget_note, wait_for_end, was_cancelled
from ..hubstate.jobs import JobDir
from ..hubstate.machine import network
from ..hubstate.statedir import StateDir
from ..steps import about, reached

HUB, NODE = "hub", "node"
#: Seconds between two heartbeats of a module at work on storage.
BEAT_SECONDS = 2.0
#: Names of the children that serve a disk for writing begin with this.
WRITER = "target-"


def new_job_id() -> str:
    """32 hex digits."""
    return uuid.uuid4().hex


def unbegun(job_id: str) -> Dict[str, str]:
    """As :meth:`JobPlace.describe` of a job that check mode does not begin here."""
    return {"id": job_id, "path": "", "heartbeat": "", "network": network()}


@dataclass
class JobPlace:
    """One job at this place. ``client`` talks to its keeper."""

    state: StateDir
    job: JobDir
    client: KeeperClient
    agent_path: str

    def finish(self) -> None:
        """End the job here, its work being done or undone. One that its keeper is ending meanwhile is waited for."""
        try:
            self.client.finish()
        except (JobCancelledError, JobAbandonedError):
            await_end(self.job, self.client)
        forget_note(self.job.path)

    @property
    def job_id(self) -> str:
        """32 hex digits, the same at hub and node."""
        return str(self.job.meta()["job_id"])

    def describe(self) -> Dict[str, str]:
        """What later tasks need to find the job again, to beat its heart, and to see whether its loopback is theirs."""
        return dict(unbegun(self.job_id), path=self.job.path, heartbeat=self.job.heartbeat_path)

    def hold(self, name: str, what: str, shared: bool = False) -> None:
        """Take a lease through the keeper; a lease held by another living job is JobRunningError."""
        try:
            self.client.hold(name, {"job_id": self.job_id, "what": what}, shared=shared)
        except LeaseHeldError as error:
            raise JobRunningError(
                f"Another job is working on {what}. Wait for it to end (its job id is in the details), then run this again.",
                details=error.details,
            ) from error

    def undo_by_release(self, name: str, order: Dict[str, Any]) -> None:
        """Register ``agent release`` of this order before the thing it undoes is made."""
        path = os.path.join(self.job.path, f"undo-{name}.json")
        handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        with os.fdopen(handle, "w", encoding="utf-8") as stream:
            json.dump(order, stream)
            stream.flush()
            os.fsync(stream.fileno())
        self.client.undo_add(name, [sys.executable, self.agent_path, "release", "--file", path])

    def stop_children(self) -> Dict[str, Any]:
        """Stop every child of the job, a tunnel last; return codes by name."""
        children = self.client.ping()["children"]
        tunnels = [name for name in children if children[name].get("kind") == TUNNEL]
        codes = self.client.stop_all(sorted(set(children) - set(tunnels)))
        return dict(codes, **self.client.stop_all(tunnels))

    def beat(self) -> None:
        """Keep the job alive here, if it is still there."""
        try:
            self.job.beat()
        except JobNotFoundError:
            return

    @contextmanager
    def beating(self) -> Iterator[None]:
        """Keep the job alive here while the block waits for storage: making a large backup durable takes minutes."""
        ended = threading.Event()

        def beat() -> None:
            while not ended.wait(BEAT_SECONDS):
                try:
                    self.job.beat()
                except JobNotFoundError:
                    return

        thread = threading.Thread(target=beat, daemon=True)
        thread.start()
        try:
            yield
        finally:
            ended.set()
            thread.join()

    def save(self, name: str, data: Dict[str, Any]) -> None:
        """Keep plain data of the job for a later task of it."""
        with open(os.path.join(self.job.path, f"{name}.json"), "w", encoding="utf-8") as stream:
            json.dump(data, stream)

    def load(self, name: str) -> Dict[str, Any]:
        """What :meth:`save` kept; JobNotFoundError if an earlier task of the job did not run."""
        path = os.path.join(self.job.path, f"{name}.json")
        try:
            with open(path, encoding="utf-8") as stream:
                return json.load(stream)
        except FileNotFoundError as error:
            raise JobNotFoundError(f"Job {self.job_id} has no {name} at this place; run its earlier tasks first.") from error


def begin(params: Dict[str, Any], role: str, job_id: str, meta: Dict[str, Any]) -> JobPlace:
    """Clean up after dead jobs of this place, then start the keeper of a new one."""
    if not params.get("agent_path"):
        raise InvalidInputError("agent_path is empty: run this module through its action plugin, which stores the agent at the place.")
    about(str(meta.get("machine_key", "")))
    state = StateDir(params["state_dir"]).create()
    cleanup_dead_jobs(state)
    options = ["--heartbeat-timeout", str(params["heartbeat_timeout"])] if params.get("heartbeat_timeout") else []
    known = dict(meta, controller=params.get("controller") or {})
    attend(JobDir(state, job_id, role).path, begins=True)
    agent = compiled(params["agent_path"])
    client = start_keeper(state, job_id, role, agent, sys.executable, known, options)
    reached(f"{role}:keeper-started")
    return JobPlace(state, JobDir.open(state, job_id, role), client, agent)


def attach(params: Dict[str, Any], role: str, job_id: str) -> JobPlace:
    """Find a running job of this place. JobCancelledError; JobNotFoundError if it is not there or its keeper is dead."""
    state = StateDir(params["state_dir"])
    path = JobDir(state, job_id, role).path
    attend(path)
    if was_cancelled(path):
        raise cancelled_error(path)
    job = JobDir.open(state, job_id, role)
    if not job.alive():
        raise JobNotFoundError(
            f"Job {job_id} has no living keeper at this {role}: it was given up or killed. Run the cleanup playbook and start anew.",
            details={"job_id": job_id},
        )
    about(str(job.meta().get("machine_key", "")))
    return JobPlace(state, job, KeeperClient(job.socket_path), compiled(params["agent_path"]) if params.get("agent_path") else "")


def attach_again(params: Dict[str, Any], role: str) -> JobPlace:
    """As :func:`attach`, for the module that began the job and has it followed: if it was cancelled, no later task comes for the note."""
    try:
        return attach(params, role, params["job_id"])
    except JobCancelledError as error:
        attach_to_end(params, role, params["job_id"])
        raise error


def attach_to_end(params: Dict[str, Any], role: str, job_id: str, stop: bool = True, forget: bool = True) -> Optional[JobPlace]:
    """Find a job of this place that is to be ended, and ``stop`` its children; None if it has ended.

    One that its keeper is ending meanwhile, because it was cancelled or abandoned, is waited for. ``forget``: remove the
    note that it was cancelled. KeeperFailedError if its keeper hangs: then only that can end the job.
    """
    job = JobDir(StateDir(params["state_dir"]), job_id, role)
    try:
        place = attach(params, role, job_id)
        if stop:
            place.stop_children()
        else:
            place.client.ping()
        return place
    except (JobNotFoundError, JobCancelledError, JobAbandonedError):
        await_end(job, KeeperClient(job.socket_path))
    if forget:
        forget_note(job.path)
    return None


def await_end(job: JobDir, client: KeeperClient) -> None:
    """Wait for a keeper that is ending its job; one that hangs instead is KeeperFailedError, for it answers while it ends."""
    try:
        client.ping()
    except (JobNotFoundError, JobCancelledError, JobAbandonedError):
        pass  # it has ended, or is about to go
    wait_for_end(job.path)


def discard(place: JobPlace) -> None:
    """Undo and end a job after a failure; the failure stays the one that is reported."""
    try:
        place.client.abort()
    except (SendenseError, OSError):
        # The keeper is dead or dying: its undo file remains, and cleanup runs it.
        return


def stop_writers(place: JobPlace) -> None:
    """End the servers that were written to; one that did not end cleanly may not have stored what it acknowledged."""
    names = [name for name in sorted(place.client.ping()["children"]) if name.startswith(WRITER)]
    failed = {name: code for name, code in place.client.stop_all(names).items() if code != 0}
    if failed:
        raise VerificationFailedError(
            f"Servers of written disks ended with an error, so their data may not be stored: {failed}. What they wrote is taken back; "
            "run the job again.",
            details={"returncodes": failed},
        )


def unique_keys(disks: List[Dict[str, Any]]) -> None:
    """InvalidInputError if two disks of one call carry the same key."""
    keys = [disk["key"] for disk in disks]
    if len(set(keys)) != len(keys):
        raise InvalidInputError(f"Disk keys must be unique, got {', '.join(keys)}.")
