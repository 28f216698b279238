# Copyright: (c) 2026, Sendense contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Exports and ports while slow copies run, as an operator sees and stops them; what becomes of the disturbed machines.

Four machines are copied slowly in one play: ``steady`` is left alone, ``portly`` loses one export by its port, ``jobly``
all of its exports by its job, and the qemu of ``vanisher`` dies.
"""

from __future__ import annotations

import json
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Dict, List

import pytest

from ansible_collections.sendense.platform.plugins.module_utils.hubstate.ports import FIRST_PORT, LAST_PORT, PortOwner, PortPool
from ansible_collections.sendense.platform.plugins.module_utils.hubstate.statedir import StateDir
from tests.lab.disks import MIB

from .estate import Estate, estate, only, play
from .site import Run

#: Fixed: people, AWX and the runner look for it.
PREFIX = "SENDENSE-PROGRESS "
NAMES = ("steady", "portly", "jobly", "vanisher")
DATA = 6 * MIB
STEADY = 150000
SLOW = f"{{{{ {STEADY} if inventory_hostname == 'steady' else 50000 }}}}"
#: What all may use together: at first a quarter of it each.
NODE = 200000


@dataclass
class Disturbed:
    """What happened: the slow run, the run that looked, a second backup of ``steady``, and the next run of all."""

    estate: Estate
    guests: Dict[str, Any]
    before: Dict[str, Dict[str, str]]
    slow: Run
    looked: Run
    second: Run
    after: Dict[str, Dict[str, str]]
    again: Run


@pytest.fixture(scope="module")
def disturbed(lab_base):
    with estate(lab_base, "exports") as found:
        yield disturb(found)


def disturb(found: Estate) -> Disturbed:
    """First an undisturbed point of each machine, then all that goes wrong, then a normal run."""
    site = found.site
    guests = {name: found.guest(name, DATA) for name in NAMES}
    site.backup(",".join(NAMES))
    before = {name: found.points(guest) for name, guest in guests.items()}
    extra = {"backup_vm_full": True, "backup_vm_max_bytes_per_second": SLOW, "sendense_bandwidth": {"bytes_per_second": NODE}}
    slow = site.start("backup", ",".join(NAMES), extra)
    jobs = wait_for_copies(Path(site.node_state))
    second = site.start("backup", "steady")
    looked = look_and_stop(found, jobs)
    guests["vanisher"].destroy()
    refused, ended = second.wait(), slow.wait()
    after = {name: found.points(guest) for name, guest in guests.items()}
    guests["vanisher"].start(paused=True)
    again = site.backup(",".join(NAMES))
    return Disturbed(found, guests, before, ended, looked, refused, after, again)


def wait_for_copies(node_state: Path) -> Dict[str, str]:
    """Job id by machine key, as soon as every mover has moved something."""
    deadline = time.monotonic() + 120
    while True:
        moving: Dict[str, str] = {}
        for status in node_state.glob("jobs/*-node/copy.status.json"):
            meta = json.loads((status.parent / "job.json").read_text())
            if json.loads(status.read_text())["bytes_done"]:
                moving[meta["machine_key"]] = meta["job_id"]
        if len(moving) == len(NAMES):
            return moving
        assert time.monotonic() < deadline, f"only {len(moving)} copies began"
        time.sleep(0.05)


def look_and_stop(found: Estate, jobs: Dict[str, str]) -> Run:
    """Status, list, count, metrics and both ways to stop, by the modules."""
    keys = {machine["name"]: machine["key"] for machine in named(found)}
    defaults: Dict[str, Any] = {"state_dir": found.site.hub_state}
    first_port = "{{ (listed.exports | selectattr('job', 'eq', portly_job) | map(attribute='port') | sort)[0] }}"
    info, export = "sendense.platform.nbd_export_info", "sendense.platform.nbd_export"
    tasks: List[Dict[str, Any]] = [
        {"name": "list", info: defaults, "register": "listed"},
        {"name": "by job", info: dict(defaults, job_id="{{ jobly_job }}")},
        {"name": "by port", info: dict(defaults, port=first_port), "register": "by_port"},
        {"name": "stop port", export: dict(defaults, state="stopped", port="{{ by_port.exports[0].port }}")},
        {"name": "port stopped", info: dict(defaults, port="{{ by_port.exports[0].port }}")},
        {"name": "stop port again", export: dict(defaults, state="stopped", port="{{ by_port.exports[0].port }}")},
        {"name": "stop job", export: dict(defaults, state="stopped", job_id="{{ jobly_job }}")},
        {"name": "job stopped", info: dict(defaults, job_id="{{ jobly_job }}")},
        {"name": "stop job again", export: dict(defaults, state="stopped", job_id="{{ jobly_job }}")},
    ]
    variables = {f"{name}_job": jobs[keys[name]] for name in NAMES}
    return found.generated("look", [play(tasks, variables=variables)])


def named(found: Estate) -> List[Dict[str, str]]:
    """Name and key of the machines."""
    domains = found.hosts[0].connection.listAllDomains()
    return [{"name": domain.name(), "key": f"libvirt-{domain.UUIDString()}"} for domain in domains]


def test_every_disk_has_an_export_with_port_job_machine_name_and_pid(disturbed):
    listed = disturbed.looked.result("hub01", "list")
    assert listed["count"] == len(listed["exports"]) == 2 * len(NAMES) and listed["active"] is True
    assert len({export["port"] for export in listed["exports"]}) == listed["count"]
    assert len({export["pid"] for export in listed["exports"]}) == listed["count"]
    for export in listed["exports"]:
        assert FIRST_PORT <= export["port"] <= LAST_PORT
        assert export["state"] == "running" and export["role"] == "hub" and export["export"]
    machines = sorted(export["machine"] for export in listed["exports"])
    assert machines == sorted(2 * [machine["key"] for machine in named(disturbed.estate)])
    assert {name: listed["metrics"][name] for name in ("total", "running", "dead", "jobs")} == {
        "total": 2 * len(NAMES),
        "running": 2 * len(NAMES),
        "dead": 0,
        "jobs": len(NAMES),
    }


def test_every_port_is_recorded_with_job_machine_node_export_and_time(disturbed):
    listed = disturbed.looked.result("hub01", "list")
    exports = {export["port"]: export for export in listed["exports"]}
    leases = {lease["port"]: lease for lease in listed["ports"]["leases"]}
    assert sorted(leases) == sorted(exports)
    for port, lease in leases.items():
        assert lease["node"] == "node01"
        assert {name: lease[name] for name in ("job", "machine", "export")} == {
            name: exports[port][name] for name in ("job", "machine", "export")
        }
        assert abs(time.time() - lease["allocated_at"]) < 600
    metrics = listed["ports"]["metrics"]
    total = LAST_PORT - FIRST_PORT + 1
    assert metrics == {
        "total": total,
        "allocated": 2 * len(NAMES),
        "available": total - 2 * len(NAMES),
        "utilisation": round(2 * len(NAMES) / total, 4),
    }


def test_an_export_is_found_and_stopped_by_its_port(disturbed):
    found = disturbed.looked.result("hub01", "by port")
    assert found["count"] == 1 and found["active"] is True and len(found["ports"]["leases"]) == 1
    assert disturbed.looked.result("hub01", "stop port")["changed"] is True
    gone = disturbed.looked.result("hub01", "port stopped")
    assert gone["count"] == 0 and gone["active"] is False and gone["ports"]["leases"] == []
    assert disturbed.looked.result("hub01", "stop port again")["changed"] is False


def test_all_exports_of_a_job_are_found_and_stopped_by_the_job(disturbed):
    assert disturbed.looked.result("hub01", "by job")["count"] == 2
    assert disturbed.looked.result("hub01", "stop job")["changed"] is True
    gone = disturbed.looked.result("hub01", "job stopped")
    assert gone["count"] == 0 and gone["ports"]["leases"] == []
    assert disturbed.looked.result("hub01", "stop job again")["changed"] is False


def test_a_second_backup_of_a_machine_is_refused_and_the_first_is_unharmed(disturbed):
    error = only(disturbed.second, "steady")
    assert error["error_code"] == "JOB_RUNNING" and error["retryable"] is True
    report = disturbed.slow.report("steady")
    assert report["point"]["level"] == "full"
    assert report["disks"][0]["bytes_read"] >= DATA
    assert set(disturbed.after["steady"]) > set(disturbed.before["steady"])


def test_a_long_copy_shows_its_progress_as_json_after_a_fixed_prefix(disturbed):
    lines = [line.partition(PREFIX)[2] for line in disturbed.slow.output.splitlines() if line.startswith(PREFIX)]
    steady = [json.loads(line) for line in lines if json.loads(line)["machine"] == "steady"]
    done = [line["bytes_done"] for line in steady if line["step"] == "copy"]
    assert len(done) >= 2 and done == sorted(done) and done[-1] > done[0]
    assert all(line["bytes_total"] >= DATA and set(line) >= {"rate", "eta_s", "text", "disks"} for line in steady if line["step"] == "copy")


def test_a_line_of_progress_says_what_caps(disturbed):
    """All share what the node may use; whoever is left has what its own cap allows."""
    lines = [line.partition(PREFIX)[2] for line in disturbed.slow.output.splitlines() if line.startswith(PREFIX)]
    steady = [json.loads(line) for line in lines if json.loads(line)["machine"] == "steady" and json.loads(line)["step"] == "copy"]
    caps = [line["cap"] for line in steady if line["cap"]]
    assert {"bytes_per_second": NODE // len(NAMES), "by": "node", "binds": True} in caps
    assert caps[-1]["by"] == "job" and caps[-1]["bytes_per_second"] == STEADY
    assert all(("capped at" in line["text"]) == line["cap"]["binds"] for line in steady if line["cap"])


@pytest.mark.parametrize("name", ["portly", "jobly"])
def test_a_copy_whose_exports_are_stopped_fails_with_one_result_per_disk(disturbed, name):
    error = only(disturbed.slow, name)
    assert error["error_code"] == "EXPORT_FAILED" and error["retryable"] is True
    assert [disk["key"] for disk in error["details"]["disks"]] == ["disk0", "disk1"]


def test_a_source_that_vanishes_while_it_is_copied_is_a_typed_error(disturbed):
    error = only(disturbed.slow, "vanisher")
    assert error["error_code"] == "SOURCE_VANISHED" and error["retryable"] is True
    assert [disk["key"] for disk in error["details"]["disks"]] == ["disk0", "disk1"]


@pytest.mark.parametrize("name", NAMES)
def test_older_points_stay_as_they_are_and_nothing_of_a_failure_is_left(disturbed, name):
    before, after = disturbed.before[name], disturbed.after[name]
    # The directory of all points is the first path; a partial point that comes and goes changes its time only.
    paths = list(before)[1:]
    assert {path: after.get(path) for path in paths} == {path: before[path] for path in paths}
    if name != "steady":
        assert sorted(after) == sorted(before)


@pytest.mark.parametrize("name", NAMES)
def test_the_next_run_succeeds_unaided(disturbed, name):
    report = disturbed.again.report(name)
    assert report["point"]["id"]
    levels = {disk["key"]: (disk["level"], disk["reason"]) for disk in report["disks"]}
    if name == "vanisher":
        assert levels["disk0"][0] in ("incremental", "full")
    else:
        assert levels["disk0"] == ("incremental", "change_tracking")


def test_an_exhausted_port_pool_fails_typed_after_the_stated_wait_and_heals(disturbed):
    site = disturbed.estate.site
    pool = PortPool(StateDir(site.hub_state))
    before = disturbed.estate.points(disturbed.guests["steady"])
    held = []
    try:
        while (leases := pool.try_allocate([PortOwner("f" * 32, "all", "node01", f"held-{len(held)}")])) is not None:
            held += leases
        assert held
        run = site.backup("steady", ok=False, backup_vm_port_wait=2)
    finally:
        for lease in held:
            lease.release()
    error = only(run, "steady")
    assert error["error_code"] == "PORTS_EXHAUSTED" and error["retryable"] is True
    assert error["details"]["wait_s"] == 2 and error["details"]["wanted"] == 2
    assert disturbed.estate.points(disturbed.guests["steady"]) == before
    assert site.backup("steady").report("steady")["point"]["level"] == "incremental"
