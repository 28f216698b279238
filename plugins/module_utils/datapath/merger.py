# Copyright: (c) 2026, Sendense contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Moves the data of a merge: layers of a chain down into its lowest image, or a whole chain into a new image.

``qemu-img`` does the work, one disk after another, on explicit chains: no format is probed, no name in a header followed.
Whatever ends it, even a kill, does no harm: all that it moves is still there in the layers above, and it can be repeated.
"""

from __future__ import annotations

import json
import os
from dataclasses import dataclass, field
from typing import Any, Callable, Dict, List, Optional, Tuple

from ..errors import InvalidInputError, RepositoryIoError, SendenseError
from .images import node_filename, node_paths, qcow2_node
from .loop import Stop, end_state
from .mover_plan import load_document, record
from .qemu_process import run_qemu_img
from .status import DONE, DiskProgress
from .supervisor import MoveResult, Supervisor
from .targets import is_disk_key

COMMIT, COPY = "commit", "copy"
#: What ``qemu-img check`` says of clusters that nothing uses: an interrupted merge leaves some, and nothing else.
_CORRUPT, _LEAKS = 2, 3
#: Measured 1.7 times as fast as direct I/O, its flush included; the caller flushes before anything is promised.
_CACHE = "writeback"


@dataclass
class MergeJob:
    """One disk. ``commit``: all that lies in ``top`` above ``base`` goes into ``base``. ``copy``: ``top`` goes into the empty ``base``."""

    key: str
    action: str
    top: Dict[str, Any]
    """Block node with its explicit chain."""
    base: str
    """Absolute path of an image: of a member of that chain, or of a new one."""
    size_bytes: int
    """Virtual size."""

    def check(self) -> None:
        """InvalidInputError for a value that cannot mean anything."""
        if not is_disk_key(self.key) or self.action not in (COMMIT, COPY) or not os.path.isabs(self.base):
            raise InvalidInputError(f"The plan is refused: {self.key!r} is no disk with an action and an absolute path.")
        try:
            below = node_paths(self.top)[1:]
        except (KeyError, TypeError) as error:
            raise InvalidInputError(f"The plan is refused: the chain of {self.key} is not a chain of block nodes.") from error
        if (self.action == COMMIT) != (self.base in below):
            raise InvalidInputError(f"The plan is refused: {self.base!r} is not where the data of {self.key} can go.")


@dataclass
class MergeOptions:
    """Times in seconds."""

    stall_seconds: float = 60.0
    """A child that reads and writes nothing for so long is given up."""
    flush_seconds: float = 300.0
    """The same when all data was moved, for then the storage may have much to write."""
    bandwidth_bytes_per_s: int = 0
    """Cap; 0: none."""

    def check(self) -> None:
        """InvalidInputError for a value out of range."""
        if self.stall_seconds <= 0 or self.flush_seconds <= 0 or self.bandwidth_bytes_per_s < 0:
            raise InvalidInputError("The plan is refused: times must be more than 0, and a bandwidth must not be negative.")


def merge(
    jobs: List[MergeJob], options: MergeOptions, status_path: str = "", cancel_path: str = "", stop: Optional[Stop] = None
) -> MoveResult:
    """Move the data of all disks; blocks until that is done or ended. Errors are in the result, not raised.

    Call it from the main thread, with which its children die. InvalidInputError (raised): nothing was touched.
    """
    check_merge_jobs(jobs)
    options.check()
    stop = stop or Stop()
    disks = [_Disk(job, DiskProgress(job.key, bytes_total=_bytes_above(job))) for job in jobs]
    supervisor = Supervisor([disk.progress for disk in disks], stop, status_path, cancel_path)
    supervisor.tick()
    for disk in disks:
        disk.run(options, stop, supervisor.tick)
    state = end_state(stop.error)
    document = supervisor.report.build(state, stop.error.as_result() if stop.error is not None else None)
    supervisor.publish(document)
    return MoveResult(state, document["error"], document["disks"], document)


def check_merge_jobs(jobs: List[MergeJob]) -> None:
    """InvalidInputError unless every disk is well-formed and no disk or image is named twice."""
    for job in jobs:
        job.check()
    for names in ([job.key for job in jobs], [job.base for job in jobs]):
        if not names or len(set(names)) != len(names):
            raise InvalidInputError("The plan is refused: it names no disks, or a disk or an image twice.")


def read_merge_plan(path: str) -> Tuple[List[MergeJob], MergeOptions]:
    """Jobs and options from a file: ``disks`` (key, action, top, base, size_bytes) and ``options``. InvalidInputError."""
    document = load_document(path, ("disks", "options"))
    jobs = [record(MergeJob, item, "disk") for item in document["disks"]]
    options = record(MergeOptions, document.get("options") or {}, "options")
    check_merge_jobs(jobs)
    options.check()
    return jobs, options


@dataclass
class _Disk:
    """One disk while it is worked on."""

    job: MergeJob
    progress: DiskProgress
    tick: Callable[[], None] = field(default=lambda: None)

    def run(self, options: MergeOptions, stop: Stop, tick: Callable[[], None]) -> None:
        """Move the data; every error ends all disks. No error is raised."""
        if stop.is_set():
            error = stop.error_for(self.job.key)
            self.progress.end(end_state(error), error.as_result())
            return
        self.tick = tick
        self.progress.start()
        try:
            if self.job.action == COMMIT:
                self._repair(options, stop)
            arguments, directory = _command(self.job, options)
            run_qemu_img(arguments, directory, self._report, options, stop)
        except SendenseError as error:
            stop.request(error, self.job.key)
            self.progress.end(end_state(error), error.as_result())
            return
        self._report(1.0)
        self.progress.end(DONE)

    def _report(self, share: float) -> None:
        self.progress.bytes_done = self.progress.bytes_read = self.progress.bytes_written = int(self.progress.bytes_total * share)
        self.tick()

    def _repair(self, options: MergeOptions, stop: Stop) -> None:
        """Give back what an interrupted merge left unused. Writing into an image whose metadata is wrong would destroy data.

        RepositoryIoError for any other fault.
        """
        node = node_filename(qcow2_node(self.job.base))
        done = run_qemu_img(["check", "-q", node], "/", lambda share: self.tick(), options, stop, accepted=(0, _CORRUPT, _LEAKS))
        if done == _LEAKS:
            done = run_qemu_img(["check", "-q", "-r", "leaks", node], "/", lambda share: self.tick(), options, stop, accepted=(0, _CORRUPT))
        if done:
            raise RepositoryIoError(
                f"Cannot merge into {self.job.base!r}: qemu-img check says its metadata is corrupt. Verify the backups of this machine.",
                details={"path": self.job.base, "disk": self.job.key},
                retryable=False,
            )


def _command(job: MergeJob, options: MergeOptions) -> Tuple[List[str], str]:
    """The arguments of qemu-img, and its working directory."""
    rate = ["-r", str(options.bandwidth_bytes_per_s)] if options.bandwidth_bytes_per_s else []
    if job.action == COPY:
        copied = ["convert", "-p", "-n", "--target-is-zero", "-W", "-t", _CACHE, "-O", "qcow2", *rate]
        return [*copied, node_filename(job.top), job.base], "/"
    # qemu-img finds the base by its name only if all names are as the headers have them: relative to the image's directory.
    directory = os.path.dirname(node_paths(job.top)[0])
    top, base = node_filename(_relative(job.top, directory)), os.path.relpath(job.base, directory)
    return ["commit", "-p", "-d", "-t", _CACHE, *rate, "-b", base, top], directory


def _relative(node: Dict[str, Any], directory: str) -> Dict[str, Any]:
    changed = json.loads(json.dumps(node))
    part = changed
    while part:
        name = os.path.relpath(part["file"]["filename"], directory)
        part["file"]["filename"] = name if name.startswith("../") else f"./{name}"
        part = part.get("backing")
    return dict(changed)


def _bytes_above(job: MergeJob) -> int:
    """About what there is to move: the size of the files above the base, or of all of them."""
    paths = node_paths(job.top)
    if job.action == COMMIT:
        paths = paths[: paths.index(job.base)]
    return sum(os.path.getsize(path) for path in paths if os.path.exists(path))
