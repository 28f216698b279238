# Copyright: (c) 2026, Sendense contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""``nbd_copy`` refuses what cannot mean anything before it looks for the job, in check mode, too."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Dict

import pytest

from ansible_collections.sendense.platform.plugins.module_utils.datapath.keeper_client import KeeperClient
from ansible_collections.sendense.platform.plugins.module_utils.errors import (
    InvalidInputError,
    JobNotFoundError,
    SendenseError,
    SourceVanishedError,
    TooManyConnectionsError,
    TrackingLiedError,
)
from ansible_collections.sendense.platform.plugins.module_utils.hubstate.jobs import JobDir
from ansible_collections.sendense.platform.plugins.module_utils.hubstate.statedir import StateDir
from ansible_collections.sendense.platform.plugins.module_utils.jobs.copying import copy_disks, explained
from ansible_collections.sendense.platform.plugins.module_utils.jobs.place import JobPlace

WINDOW = {"days": None, "from": "08:00", "to": 1080, "timezone": "Europe/Berlin", "bytes_per_second": 20000}


def params(disks: int = 1, **changes: Any) -> Dict[str, Any]:
    """The arguments of the module, as Ansible fills them in; all sources are of one server."""
    sources = [
        {"key": f"disk{number}", "uri": f"nbd+unix:///vd{number}?socket=/run/pull.sock", "size_bytes": 512, "level": "full"}
        for number in range(disks)
    ]
    given: Dict[str, Any] = {
        "sources": sources,
        "nbd_targets": ",".join(f"disk{number}:nbd://127.0.0.1:{10100 + number}/x" for number in range(disks)),
        "hash_algorithm": "xxh3_128",
        "stall_seconds": 60,
        "max_bytes_per_second": None,
        "node_bandwidth": None,
        "audit": {},
        "expected_roots": {},
        "role": "node",
        "job_id": "f" * 32,
        "state_dir": "/nonexistent/state",
        "phase": "run",
    }
    return {**given, **changes}


GOOD: Dict[str, Dict[str, Any]] = {
    "no cap": {},
    "an empty one": {"node_bandwidth": {"bytes_per_second": 0, "windows": []}},
    "a job's": {"max_bytes_per_second": 16384},
    "a node's": {"node_bandwidth": {"bytes_per_second": 16384, "windows": [WINDOW]}},
    "100 disks": {"disks": 100},
}

BAD: Dict[str, Dict[str, Any]] = {
    "a job's unit": {"max_bytes_per_second": 100},
    "less than nothing": {"max_bytes_per_second": -1},
    "a node's unit": {"node_bandwidth": {"bytes_per_second": 100, "windows": []}},
    "a pause": {"node_bandwidth": {"bytes_per_second": 0, "windows": [dict(WINDOW, bytes_per_second=0)]}},
    "a zone": {"node_bandwidth": {"bytes_per_second": 0, "windows": [dict(WINDOW, timezone="Atlantis")]}},
    "a time": {"node_bandwidth": {"bytes_per_second": 0, "windows": [dict(WINDOW, to="25:00")]}},
    "a watchdog": {"stall_seconds": 0},
}


@pytest.mark.parametrize("changes", list(GOOD.values()), ids=list(GOOD))
def test_what_can_be_meant_is_looked_for(changes: Dict[str, Any]) -> None:
    assert copy_disks(params(**changes), True)["changed"] is True
    with pytest.raises(JobNotFoundError):
        copy_disks(params(**changes), False)


@pytest.mark.parametrize("check_mode", [True, False])
@pytest.mark.parametrize("changes", list(BAD.values()), ids=list(BAD))
def test_what_cannot_be_meant_is_refused(changes: Dict[str, Any], check_mode: bool) -> None:
    with pytest.raises(InvalidInputError):
        copy_disks(params(**changes), check_mode)


@pytest.mark.parametrize("check_mode", [True, False])
def test_more_disks_than_their_server_serves_are_refused(check_mode: bool) -> None:
    with pytest.raises(TooManyConnectionsError, match="101 connections"):
        copy_disks(params(disks=101), check_mode)


@pytest.mark.parametrize("failure", [TrackingLiedError("blocks differ", details={"lie": 1}), SourceVanishedError("gone")])
def test_a_failure_outlives_the_keeper_that_could_explain_it(tmp_path: Path, failure: SendenseError) -> None:
    """What a mover found, a lie of the change tracking above all, is not lost because the job ends before it is told."""
    state = StateDir(str(tmp_path))
    job = JobDir(state, "f" * 32, "node")
    assert explained(JobPlace(state, job, KeeperClient(job.socket_path), ""), failure) is failure
