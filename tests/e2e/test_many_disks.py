# Copyright: (c) 2026, Sendense contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""101 disks of three machines at once: every port of the hub is in use, and one more disk has to wait or is refused.

All are held together at two steps: when everything is copied and the servers are as large as they become, and when the new
points are re-read.
"""

from __future__ import annotations

import tempfile
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Dict, List

import pytest

from ansible_collections.sendense.platform.plugins.module_utils.hubstate.ports import FIRST_PORT, LAST_PORT
from tests.lab.disks import MIB, DiskSpec
from tests.lab.host import LibvirtHost

from .crowd import DISKS, Crowd, Held, Memory, crowd, differing, leased, memory_of, servers
from .points import leftovers
from .site import Run

PORTS = LAST_PORT - FIRST_PORT + 1
DATA = 8 * MIB
#: Proportional set size of one server with bounded malloc settings; measured after heavy use: 14.5 writing, 25.6 reading.
SERVER_MIB = 32.0
MOVER_MIB = 150
COPIED, REREADING = "copy:started", "commit:reread-started"


@dataclass
class Crowded:
    """What was there at both steps, and how the runs ended."""

    crowd: Crowd
    writers: List[Dict[str, Any]]
    writers_memory: Memory
    readers: List[Dict[str, Any]]
    readers_memory: Memory
    leased: List[int]
    port_leases: List[str]
    mover_mib: List[float]
    run: Run
    refused: Run
    waited: Run


@pytest.fixture(scope="module")
def crowded(lab_base):
    with ExitStack() as stack:
        directory = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="se-")))
        host = stack.enter_context(LibvirtHost("crowd", lab_base))
        found = stack.enter_context(crowd(directory, host, DATA))
        yield hold(found)
        assert leftovers(found.site, host) == []


def hold(found: Crowd) -> Crowded:
    """Hold 101 disks, let two more machines of one disk come meanwhile, and let all go on."""
    with Held(found, COPIED) as held:
        stopped = held.await_all(COPIED)
        held.await_done(found.site.node_state, "copy")
        for name in ("late", "refused"):
            found.add(name, [DiskSpec("vda", 8 * MIB)])
        writers = servers(found.site)
        writers_memory, leases = memory_of(writers), [leased(found.site)]
        late = found.site.start("backup", "late")
        refused = found.site.backup("refused", ok=False, backup_vm_port_wait=1)
        assert late.process.poll() is None, late.log.read_text()
        held.let_on(stopped, until=REREADING)
        stopped = held.await_all(REREADING)
        held.await_done(found.site.hub_state, "verify")
        readers = servers(found.site)
        readers_memory = memory_of(readers)
        leases.append(leased(found.site))
        held.let_on(stopped)
        run = held.started.wait()
        movers = [size / MIB for size in held.movers.values()]
        leased_once = held.lines("keeper:ports-leased")
    return Crowded(found, writers, writers_memory, readers, readers_memory, leases, leased_once, movers, run, refused, late.wait())


def test_every_port_of_the_hub_is_in_use_at_the_same_time(crowded):
    assert sum(DISKS.values()) == PORTS == 101
    assert crowded.leased[0] == PORTS
    assert sorted(server["port"] for server in crowded.writers) == list(range(FIRST_PORT, LAST_PORT + 1))
    assert len({server["pid"] for server in crowded.writers}) == PORTS
    by_machine = {f"libvirt-{crowded.crowd.guests[name].uuid}": count for name, count in DISKS.items()}
    assert {machine: sum(server["machine"] == machine for server in crowded.writers) for machine in by_machine} == by_machine


def test_every_disk_of_every_point_is_what_its_machine_has(crowded):
    assert crowded.run.returncode == 0, crowded.run.output
    points = crowded.crowd.points(crowded.run)
    assert {name: len(point.manifest["disks"]) for name, point in points.items()} == DISKS
    assert {name: differing(crowded.crowd.guests[name], point) for name, point in points.items()} == {name: [] for name in DISKS}


def test_re_reads_take_no_port(crowded):
    assert [server["port"] for server in crowded.readers] == [None] * PORTS
    assert all(Path(server["socket"]).name.startswith("reread-") for server in crowded.readers)
    assert len(crowded.port_leases) == len(DISKS), "a machine leases its ports once, for what it writes"


def test_the_memory_of_all_servers_is_bounded(crowded):
    for memory in (crowded.writers_memory, crowded.readers_memory):
        assert len(memory.each) == PORTS and min(memory.each) > 0
        assert memory.largest_mib <= SERVER_MIB and memory.total_mib <= PORTS * SERVER_MIB
    assert len(crowded.mover_mib) == len(DISKS) and 0 < max(crowded.mover_mib) <= MOVER_MIB


def test_one_more_disk_is_refused_when_it_may_not_wait(crowded):
    error = crowded.refused.error("refused")
    assert error["error_code"] == "PORTS_EXHAUSTED" and error["retryable"] is True
    assert f"{PORTS} of {PORTS} ports" in error["msg"]
    assert crowded.refused.returncode != 0


def test_one_more_disk_waits_for_a_port(crowded):
    guest = crowded.crowd.guests["late"]
    assert crowded.waited.returncode == 0, crowded.waited.output
    assert differing(guest, crowded.crowd.points(crowded.waited)["late"]) == []


def test_all_ports_come_free(crowded):
    assert leased(crowded.crowd.site) == 0
    assert servers(crowded.crowd.site) == []
