# Copyright: (c) 2026, Sendense contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""All reading that proves a point, in one process: digests of whole files, then every block against its hash.

The keeper runs it as ``agent checker --plan P --status S --cancel C``, because both take hours on large disks and
somebody wants to see how far they are. Exit codes as of the verifier.
"""

from __future__ import annotations

import threading
from dataclasses import dataclass
from typing import Any, Dict, List, Sequence

from ..datapath import cli
from ..datapath.loop import Stop
from ..datapath.mover_plan import MoverOptions, load_document, record
from ..datapath.status import FAILED, RUNNING, DiskProgress, StatusReport, write_status
from ..datapath.verifier import VerifyJob, check_verify_jobs, verify
from ..errors import SendenseError
from .digests import file_digest
from .local_files import file_size

#: Seconds between two reports while digests are computed.
REPORT_SECONDS = 0.5


@dataclass
class DigestJob:
    """One file to digest; ``key`` is the disk's."""

    key: str
    path: str
    algorithm: str


def main(argv: Sequence[str]) -> int:
    """Run one plan; returns the exit code."""
    return cli.run(_check, argv)


def _check(argv: Sequence[str]) -> Dict[str, Any]:
    parser = cli.StrictParser("checker", "Digest the files of a backup and compare its blocks with their hashes.")
    parser.add_argument("--plan", required=True, help="JSON file: digests (key, path, algorithm), disks and options as for verifier")
    parser.add_argument("--status", required=True, help="file to report progress in")
    parser.add_argument("--cancel", default="", help="file whose appearance cancels")
    arguments = parser.parse_args(list(argv))
    document = load_document(arguments.plan, ("disks", "options", "digests"))
    jobs = [record(VerifyJob, item, "disk") for item in document["disks"]]
    options = record(MoverOptions, document.get("options") or {}, "options")
    digests = [record(DigestJob, item, "digest") for item in document.get("digests") or []]
    check_verify_jobs(jobs)
    stop = Stop()
    cli.cancel_on_signals(stop)
    found, failure = _digests(digests, arguments.status)
    result = verify(jobs, options, arguments.status, arguments.cancel, stop).document
    for key, disk in result["disks"].items():
        disk["digest"] = found.get(key, "")
    if failure is not None and not result["error"]:
        result.update(state=FAILED, error=failure)
    write_status(arguments.status, result)
    return result


def _digests(jobs: List[DigestJob], status_path: str) -> Any:
    """Digests by key, and the first error. Reports its progress from a thread of its own: hashing gives up the GIL rarely."""
    progress = [DiskProgress(job.key, bytes_total=file_size(job.path) or 0) for job in jobs]
    report = StatusReport(progress)
    ended = threading.Event()

    def tell() -> None:
        while not ended.is_set():
            write_status(status_path, report.build(RUNNING))
            ended.wait(REPORT_SECONDS)

    teller = threading.Thread(target=tell, name="report", daemon=True)
    teller.start()
    found: Dict[str, str] = {}
    try:
        for job, disk in zip(jobs, progress):
            disk.start()
            found[job.key] = file_digest(job.path, job.algorithm, _counter(disk))
            disk.bytes_done = disk.bytes_total
    except SendenseError as error:
        return found, error.as_result()
    finally:
        ended.set()
        teller.join()
    return found, None


def _counter(disk: DiskProgress) -> Any:
    def count(bytes_read: int) -> None:
        disk.bytes_read += bytes_read
        disk.bytes_done += bytes_read

    return count
