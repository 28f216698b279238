# Copyright: (c) 2026, Sendense contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A server of qemu serves 100 connections and leaves the next one waiting: the mover refuses beforehand to open more."""

from __future__ import annotations

from contextlib import ExitStack

import pytest

from ansible_collections.sendense.platform.plugins.module_utils.datapath.images import create_raw
from ansible_collections.sendense.platform.plugins.module_utils.datapath.mover import move
from ansible_collections.sendense.platform.plugins.module_utils.datapath.mover_plan import (
    DiskJob,
    MoverOptions,
    check_jobs,
    spare_connections,
)
from ansible_collections.sendense.platform.plugins.module_utils.datapath.nbd_handle import NbdConnection
from ansible_collections.sendense.platform.plugins.module_utils.datapath.targets import MAX_CONNECTIONS, parse_uri
from ansible_collections.sendense.platform.plugins.module_utils.datapath.verifier import VerifyJob, check_verify_jobs
from ansible_collections.sendense.platform.plugins.module_utils.errors import ExportFailedError, TooManyConnectionsError
from tests.integration.datapath.servers import BLOCK, compare, raw_file


def test_the_server_leaves_the_connection_after_the_hundredth_waiting(tmp_path, servers):
    """The fact on which the limit stands."""
    raw_file(tmp_path / "source", BLOCK, seed=1, share=1.0)
    uri = parse_uri(servers.pull("pull", tmp_path / "source", 1)[0])
    with ExitStack() as stack:
        for _one in range(MAX_CONNECTIONS):
            stack.callback(NbdConnection.open(uri, timeout_s=10).close)
        with pytest.raises(ExportFailedError, match="no answer"):
            NbdConnection.open(uri, timeout_s=0.5)


def jobs_of(sources, **more):
    return [
        DiskJob(f"disk{number}", uri, f"nbd+unix:///t?socket=/run/t{number}.sock", **{"level": "full", **more})
        for number, uri in enumerate(sources)
    ]


def test_a_hundred_disks_of_one_server_are_copied_and_one_more_is_refused(tmp_path, servers):
    raw_file(tmp_path / "source", BLOCK, seed=1, share=1.0)
    sources = servers.pull("pull", tmp_path / "source", MAX_CONNECTIONS)
    create_raw(str(tmp_path / "target"), BLOCK)
    # All disks hold the same, so one file may receive them all, under a name for each.
    target = servers.kit("target", "file", str(tmp_path / "target"))
    jobs = [DiskJob(f"disk{number}", uri, target.replace("///target", f"///{number}")) for number, uri in enumerate(sources)]
    result = move(jobs, MoverOptions(stall_seconds=10))
    assert result.state == "done", result.error
    assert compare(tmp_path / "source", tmp_path / "target")
    one_more = jobs_of([*sources, sources[0]])
    with pytest.raises(TooManyConnectionsError) as caught:
        move(one_more, MoverOptions())
    assert caught.value.details == {"server": str(tmp_path / "pull.sock"), "connections": 101, "limit": 100}


@pytest.mark.parametrize("address", ["nbd://h:10100/{}", "nbd+unix:///{}?socket=/x"])
def test_what_counts_is_the_address(address):
    """Whether it is read, written or audited; names of exports do not matter, and other servers do not."""
    fits = [address.format(number) for number in range(MAX_CONNECTIONS)]
    check_jobs(jobs_of(fits))
    with pytest.raises(TooManyConnectionsError):
        check_jobs(jobs_of([*fits, address.format(100)]))
    audited = {"level": "incremental", "changed_context": "c", "audit_path": "/a"}
    check_jobs(jobs_of(fits[:-1], **audited))
    with pytest.raises(TooManyConnectionsError):
        check_jobs(jobs_of(fits, **audited))
    assert spare_connections(jobs_of(fits[:-1], **audited)) == 1
    assert spare_connections(jobs_of(fits[:60], **audited)) == 40
    written = [DiskJob(f"disk{number}", f"nbd://s{number}/x", address.format(number)) for number in range(101)]
    check_jobs(written[:100])
    with pytest.raises(TooManyConnectionsError):
        check_jobs(written)
    both = [DiskJob(f"disk{number}", address.format(f"s{number}"), address.format(f"t{number}")) for number in range(51)]
    check_jobs(both[:50])
    with pytest.raises(TooManyConnectionsError):
        check_jobs(both)
    verified = [VerifyJob(f"disk{number}", address.format(number), ["/h"]) for number in range(101)]
    check_verify_jobs(verified[:100])
    with pytest.raises(TooManyConnectionsError):
        check_verify_jobs(verified)
