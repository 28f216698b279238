# Copyright: (c) 2026, Sendense contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""How the tasks of a cancelled job learn that it was cancelled, though its keeper and its directory are gone by then.

A keeper that ends a cancelled job leaves a note, ``cancelled/<job_id>-<role>``, with the names of its undo commands. The
task that ends the job for its play removes it; one that nobody came for is swept after an hour. It only words errors.
"""

from __future__ import annotations

import os
import time
from typing import Dict, List, Optional

from ..errors import JobCancelledError
from .files import read_json, unlink_if_there, write_json
from .locks import holder
from .statedir import StateDir

#: Seconds after which a note is swept that no play came for.
NOTE_SECONDS = 3600.0

#: Seconds in which a keeper that is ending its job must be done: it stops servers and runs undo commands.
END_SECONDS = 180.0

_attended: Dict[str, bool] = {}


def note_path(job_path: str) -> str:
    """Where the note of the job with this directory lies."""
    jobs, name = os.path.split(job_path)
    return os.path.join(os.path.dirname(jobs), "cancelled", name)


def leave_note(job_path: str, undone: List[str]) -> None:
    """Say that this job was cancelled, before its directory goes; ``undone``: the names of its undo commands."""
    path = note_path(job_path)
    os.makedirs(os.path.dirname(path), mode=0o700, exist_ok=True)
    write_json(path, {"undone": undone})


def read_note(job_path: str) -> Optional[List[str]]:
    """The undo commands of a cancelled job whose keeper has begun to end it; None if there is no note."""
    note = read_json(note_path(job_path))
    return list(note["undone"]) if isinstance(note, dict) else None


def forget_note(job_path: str) -> None:
    """The play has been told; repetition changes nothing."""
    unlink_if_there(note_path(job_path))


def was_cancelled(job_path: str) -> bool:
    """Whether somebody cancelled the job, while it is being ended and afterwards."""
    return os.path.exists(os.path.join(job_path, "cancel")) or os.path.exists(note_path(job_path))


def cancelled_test(job_path: str) -> List[str]:
    """The command that answers :func:`was_cancelled` at another place, by its exit code."""
    return ["test", "-e", os.path.join(job_path, "cancel"), "-o", "-e", note_path(job_path)]


def cancelled_error(job_path: str) -> JobCancelledError:
    """What every task of a cancelled job fails with."""
    job_id, _dash, role = os.path.basename(job_path).partition("-")
    return JobCancelledError(
        f"Job {job_id} was cancelled at this {role}, and what it had begun is undone. Run the playbook again when it is wanted.",
        details={"job_id": job_id, "role": role},
    )


def attend(job_path: str, begins: bool = False) -> None:
    """This process works for the job from now on; ``begins``: it also begins it."""
    _attended[job_path] = begins or _attended.get(job_path, False)


def attended_cancellation() -> Optional[JobCancelledError]:
    """Why whatever just failed in this process had to fail, if a job that it works for was cancelled meanwhile.

    A task that fails to begin a job is also the last one of it: it waits for the job's end and removes the note.
    """
    for path, begins in _attended.items():
        if was_cancelled(path):
            if begins:
                wait_for_end(path)
                forget_note(path)
            return cancelled_error(path)
    return None


def wait_for_end(job_path: str, limit_s: float = END_SECONDS) -> None:
    """Until the job's keeper is gone, at most ``limit_s`` seconds. What it could not undo, it leaves to the clean-up."""
    lock = os.path.join(job_path, "keeper.lock")
    deadline = time.monotonic() + limit_s
    while holder(lock) is not None and time.monotonic() < deadline:
        time.sleep(0.05)


def sweep_notes(state: StateDir) -> List[str]:
    """Remove old notes; returns their names."""
    folder = os.path.join(state.path, "cancelled")
    removed = []
    for name in sorted(os.listdir(folder)) if os.path.isdir(folder) else []:
        path = os.path.join(folder, name)
        try:
            age = time.time() - os.lstat(path).st_mtime
        except FileNotFoundError:
            continue
        # A clock that was set back must not keep them for ever.
        if (age < 0 or age > NOTE_SECONDS) and unlink_if_there(path):
            removed.append(name)
    return removed
