# Copyright: (c) 2026, Sendense contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""One small file per export server, so that everybody at a place can see what is served for whom."""

from __future__ import annotations

import os
import re
from typing import Any, Dict, List

from ..hubstate.files import read_json, unlink_if_there, write_json
from ..hubstate.jobs import JobDir, list_jobs
from ..hubstate.statedir import StateDir

STARTING, RUNNING, DEAD = "starting", "running", "dead"

_SUFFIX = ".export.json"
_PORT_RECORD = re.compile(r"[0-9]{1,5}\.json")


def record_path(job: JobDir, name: str, record: Dict[str, Any]) -> str:
    """``exports/<port>.json``; the record of a server on a unix socket lies in its job directory."""
    if record.get("port") is not None:
        return os.path.join(job.state.exports, f"{int(record['port'])}.json")
    return os.path.join(job.path, f"{name}{_SUFFIX}")


def write_record(job: JobDir, record: Dict[str, Any]) -> None:
    """Store a record under the child's name, which is ``record["name"]``."""
    write_json(record_path(job, record["name"], record), record)


def remove_record(job: JobDir, record: Dict[str, Any]) -> None:
    """Forget a server that was stopped. Repetition changes nothing."""
    unlink_if_there(record_path(job, record["name"], record))


def read_records(state: StateDir) -> List[Dict[str, Any]]:
    """The records of all servers of this place, as their keepers wrote them last, those with ports first."""
    paths = [os.path.join(state.exports, name) for name in _names(state.exports) if _PORT_RECORD.fullmatch(name)]
    paths.sort(key=lambda path: int(os.path.basename(path)[:-5]))
    for job in list_jobs(state):
        paths += [os.path.join(job.path, name) for name in _names(job.path) if name.endswith(_SUFFIX)]
    return [record for record in map(read_json, paths) if isinstance(record, dict)]


def remove_records_of(job: JobDir) -> List[Dict[str, Any]]:
    """Forget all servers of a job on ports; returns their records. For the clean-up of a dead job."""
    mine = []
    for record in read_records(job.state):
        if record.get("job") == job.job_id and record.get("role") == job.role:
            remove_record(job, record)
            mine.append(record)
    return mine


def _names(folder: str) -> List[str]:
    try:
        return sorted(os.listdir(folder))
    except (FileNotFoundError, NotADirectoryError):
        return []
