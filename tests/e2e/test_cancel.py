# Copyright: (c) 2026, Sendense contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""playbooks/cancel.yml: for the named machine only, whatever its job is; nothing without a name, nothing in check mode."""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import Any, Dict, Iterator, List

import pytest
import yaml

from ansible_collections.sendense.platform.plugins.module_utils.hubstate.statedir import StateDir
from ansible_collections.sendense.platform.plugins.module_utils.jobs.cancel import living

from .estate import Estate, estate, only
from .points import leftovers
from .site import Started

#: Slow enough for a cancel in the middle.
SLOW: Dict[str, Any] = {"backup_vm_max_bytes_per_second": 48 * 1024, "restore_vm_max_bytes_per_second": 48 * 1024}
#: Seconds that ansible-playbook may need to begin, on a busy machine.
BEGIN_SECONDS = 90.0


@pytest.fixture(scope="module")
def backed_up(lab_base: Path) -> Iterator[Estate]:
    """Two machines with one backup each."""
    with estate(lab_base, "cancel") as found:
        guests = [found.guest("one"), found.guest("two")]
        found.site.backup("one,two")
        yield found
        for guest in guests:
            guest.remove()


def roles(found: Estate, name: str) -> List[str]:
    """Where a job of the machine lives."""
    key = f"libvirt-{found.hosts[0].connection.lookupByName(name).UUIDString()}"
    return [job.role for state in (found.site.hub_state, found.site.node_state) for job in living(StateDir(state), key, [])]


def copying(found: Estate, started: Started, *names: str) -> None:
    """Wait until the jobs of these machines copy."""
    deadline = time.monotonic() + BEGIN_SECONDS
    while started.log.read_text().count("SENDENSE-PROGRESS") < 2 * len(names) or not all(roles(found, name) for name in names):
        assert started.process.poll() is None and time.monotonic() < deadline, started.log.read_text()
        time.sleep(0.1)


def test_nothing_is_cancelled_without_a_name_and_nothing_where_nothing_runs(backed_up: Estate) -> None:
    refused = backed_up.site.play("cancel", ok=False)
    assert refused.returncode != 0 and "Without a name nothing is cancelled" in refused.output
    idle = backed_up.site.play("cancel", "one")
    assert idle.changed("one") == 0 and "nothing, no job of this machine is running" in idle.output


def test_a_backup_is_cancelled_and_the_one_beside_it_is_not(backed_up: Estate) -> None:
    started = backed_up.site.start("backup", "one,two", dict(SLOW, backup_vm_full=True))
    copying(backed_up, started, "one", "two")
    would = backed_up.site.play("cancel", "one", options=["--check"])
    assert would.changed("one") > 0 and "one: would cancel backup " in would.output
    assert sorted(roles(backed_up, "one")) == ["hub", "node"]
    done = backed_up.site.play("cancel", "one")
    assert "one: cancelled backup " in done.output
    assert done.changed("one") > 0 and roles(backed_up, "one") == []
    again = backed_up.site.play("cancel", "one")
    assert again.changed("one") == 0
    run = started.wait()
    assert only(run, "one")["error_code"] == "JOB_CANCELLED"
    assert run.report("two")["point"]["level"] == "full" and not run.error("two")
    assert leftovers(backed_up.site, backed_up.hosts[0]) == []
    after = backed_up.site.backup("one")
    assert [disk["reason"] for disk in after.report("one")["disks"]] == ["change_tracking", "tracking_unsupported"]


@pytest.mark.parametrize("what", ["machine", "files"])
def test_a_restore_is_cancelled_and_takes_everything_back(backed_up: Estate, what: str) -> None:
    folder = backed_up.site.directory / f"restored-{what}"
    folder.mkdir()
    where = {"restore_vm_name": "one-restored", "restore_vm_storage": str(folder)}
    started = backed_up.site.start("restore", "one", dict(SLOW, **(where if what == "machine" else {"restore_vm_directory": str(folder)})))
    copying(backed_up, started, "one")
    assert os.listdir(folder)
    assert "one: cancelled restore " in backed_up.site.play("cancel", "one").output
    assert roles(backed_up, "one") == []
    assert only(started.wait(), "one")["error_code"] == "JOB_CANCELLED"
    assert os.listdir(folder) == []
    assert sorted(domain.name() for domain in backed_up.hosts[0].connection.listAllDomains()) == ["one", "two"]


def test_a_node_that_cannot_be_reached_does_not_keep_the_hub_from_ending_its_jobs(backed_up: Estate) -> None:
    started = backed_up.site.start("backup", "one", dict(SLOW, backup_vm_full=True))
    copying(backed_up, started, "one")
    inventory = backed_up.site.directory / "inventory" / "hosts.yml"
    reachable = inventory.read_text()
    hosts = yaml.safe_load(reachable)
    # Nothing listens there.
    away = {"ansible_connection": "ssh", "ansible_host": "127.0.0.1", "ansible_port": 9}
    hosts["sendense_nodes"]["hosts"]["node01"] = dict(hosts["sendense_nodes"]["hosts"]["node01"], **away)
    try:
        inventory.write_text(yaml.safe_dump(hosts))
        cancelled = backed_up.site.play("cancel", "one", ok=False)
    finally:
        inventory.write_text(reachable)
    assert cancelled.error("one")["error_code"] == "PLACE_UNREACHABLE" and cancelled.returncode != 0
    assert len(cancelled.result("one", "End the jobs at the hub")["jobs"]) == 1
    assert only(started.wait(), "one")["error_code"] == "JOB_CANCELLED"
    assert roles(backed_up, "one") == [] and leftovers(backed_up.site, backed_up.hosts[0]) == []
