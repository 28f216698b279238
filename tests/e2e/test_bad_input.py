# Copyright: (c) 2026, Sendense contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Machines, repositories and platforms that a backup must refuse, each with its typed error, together in few plays."""

from __future__ import annotations

import shutil
import sys
import uuid
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Dict

import libvirt
import pytest
import yaml

from tests.lab.disks import MIB
from tests.lab.guest import Guest
from tests.lab.host import LibvirtHost

from .estate import Estate, estate, only, platform_state, play, tree
from .site import Run

#: Machine -> code of its error and whether the same call may succeed later unchanged.
REFUSED = {
    "nodisks": ("MACHINE_HAS_NO_DISKS", False),
    "shared": ("DISK_EXCLUDED", False),
    "nowhere": ("REPOSITORY_MISSING", False),
    "blank": ("REPOSITORY_MISSING", False),
    "unmounted": ("REPOSITORY_MISSING", False),
    "mistaken": ("REPOSITORY_MISMATCH", False),
    "crowded": ("REPOSITORY_FULL", True),
    "gone": ("MACHINE_NOT_FOUND", False),
    "lost": ("PLATFORM_UNREACHABLE", True),
    "locked": ("PLATFORM_AUTHENTICATION", False),
}
#: What a message must name: on which object.
NAMED = {"nowhere": "/nowhere", "blank": "/blank", "unmounted": "/unmounted", "shared": "vdb", "crowded": "bytes"}
NAMED.update(dict.fromkeys(("gone", "lost", "locked"), " qemu:///system"))

NBD_TARGETS = {
    "unknown scheme": "disk0:http://127.0.0.1:10100/vm-disk0",
    "port too large": "disk0:nbd://127.0.0.1:65536/vm-disk0",
    "no export": "disk0:nbd://127.0.0.1:10100",
    "same disk twice": "disk0:nbd://127.0.0.1:10100/a,disk0:nbd://127.0.0.1:10101/b",
    "one too many": "disk0:nbd://127.0.0.1:10100/a,disk1:nbd://127.0.0.1:10101/b",
}


class LockedHost(LibvirtHost):
    """A libvirt host that lets in only users with a password, and has no users."""

    def _prepare(self) -> None:
        super()._prepare()
        path = self.dir / "etc" / "libvirtd.conf"
        path.write_text(path.read_text().replace('auth_unix_rw = "none"', 'auth_unix_rw = "sasl"'))

    def connect(self) -> libvirt.virConnect:
        """Only looking is free."""
        return libvirt.openReadOnly(f"{self.uri}-ro")


@dataclass
class Trouble:
    """A play in which nearly every machine is refused, and what there was before and after it."""

    estate: Estate
    guests: Dict[str, Guest]
    before: Dict[str, Any]
    run: Run
    after: Dict[str, Any]


@pytest.fixture(scope="module")
def locked_host(lab_base):
    with LockedHost("locked", lab_base) as host:
        yield host


@pytest.fixture(scope="module")
def trouble(lab_base, locked_host):
    with estate(lab_base, "bad") as found:
        guests = prepare(found)
        missing = {"uri": f"qemu:///system?socket={found.site.directory}/no-such-socket"}
        hosts = {
            "gone": static_machine(guests["gone"].uuid, {"uri": found.hosts[0].uri}),
            "lost": static_machine(str(uuid.uuid4()), missing),
            "locked": static_machine(str(uuid.uuid4()), {"uri": locked_host.uri}),
        }
        inventory = found.site.directory / "inventory" / "more.yml"
        inventory.write_text(yaml.safe_dump({"sendense_machines": {"hosts": hosts}}))
        guests.pop("gone").remove()
        found.site.backup("good")
        before = watched(found)
        names = [*REFUSED, "skipping"]
        run = found.site.play("backup", ",".join(names), settings(found), ok=False)
        yield Trouble(found, guests, before, run, watched(found))


def prepare(found: Estate) -> Dict[str, Guest]:
    """All machines and the repositories that are not what they should be."""
    guests = {name: found.guest(name) for name in ("good", "nowhere", "blank", "unmounted", "mistaken", "crowded", "gone")}
    guests["nodisks"] = Guest.create(found.hosts[0], "nodisks", [])
    for name in ("shared", "skipping"):
        guests[name] = found.guest(name)
        share(guests[name])
    directory = found.site.directory
    (directory / "blank").mkdir()
    # The file system of this one is not mounted: what lies below is an empty directory, the marker is not there.
    shutil.copytree(found.site.repository, directory / "unmounted")
    (directory / "unmounted" / "sendense-repository.json").unlink()
    return guests


def share(guest: Guest) -> None:
    """Make the raw disk one that other machines write to as well."""
    guest.destroy()
    text = guest.domain.XMLDesc(libvirt.VIR_DOMAIN_XML_INACTIVE)
    head, target, tail = text.partition("<target dev='vdb'")
    guest.host.connection.defineXML(f"{head}<shareable/>{target}{tail}")
    guest.start(paused=True)


def static_machine(machine_id: str, connection: Dict[str, str]) -> Dict[str, Any]:
    """An inventory host as a cached inventory has it, whatever became of the machine."""
    source = {"platform": "libvirt", "machine_id": machine_id, "connection": connection, "node": "node01"}
    interpreter = {"ansible_connection": "local", "ansible_python_interpreter": sys.executable}
    return dict(interpreter, sendense_source=source, sendense_machine_key=f"libvirt-{machine_id}")


def settings(found: Estate) -> Dict[str, Any]:
    """Per machine: its repository, and whether excluded disks are left out."""
    good = {"path": found.site.repository, "reserve_bytes": MIB}
    directory = found.site.directory
    special = {
        **{name: {"path": str(directory / name)} for name in ("nowhere", "blank", "unmounted")},
        "mistaken": dict(good, id=str(uuid.UUID(int=1))),
        "crowded": dict(good, reserve_bytes=shutil.disk_usage(directory).total),
    }
    return {
        "e2e_repositories": special,
        "e2e_repository": good,
        "sendense_repository": "{{ e2e_repositories[inventory_hostname] | default(e2e_repository) }}",
        "backup_vm_skip_excluded_disks": "{{ inventory_hostname == 'skipping' }}",
    }


def watched(found: Estate) -> Dict[str, Any]:
    """Whatever a refused machine must not change: its disks and checkpoints, all points, jobs, ports, leases."""
    names = {domain.UUIDString(): domain.name() for domain in found.hosts[0].connection.listAllDomains()}
    state = {name: value for name, value in platform_state(found.hosts[0]).items() if names[name.split()[0]] != "skipping"}
    for path in ("blank", "unmounted", "repo/sendense-repository.json"):
        state.update(tree(found.site.directory / path))
    skipping = next(key for key, name in names.items() if name == "skipping")
    points = tree(Path(found.site.repository, "machines"))
    # Times of directories are left out: generations are raised before the platform is asked.
    state.update({path: about for path, about in points.items() if "/points/" in path and skipping not in path})
    return state


@pytest.mark.parametrize("name", REFUSED)
def test_each_is_refused_with_its_typed_error(trouble, name):
    error = only(trouble.run, name)
    assert (error["error_code"], error["retryable"]) == REFUSED[name], error
    assert NAMED.get(name, "") in error["msg"]


def test_nothing_of_the_refused_machines_was_touched(trouble):
    assert {name: state for name, state in trouble.after.items() if trouble.before.get(name) != state} == {}
    assert sorted(trouble.after) == sorted(trouble.before)
    assert not (trouble.estate.site.directory / "nowhere").exists()


def test_a_disk_that_is_left_out_by_policy_is_recorded(trouble):
    point = trouble.run.report("skipping")["point"]
    points = Path(trouble.estate.site.repository, "machines", f"libvirt-{trouble.guests['skipping'].uuid}", "points")
    manifest = yaml.safe_load((points / point["id"] / "manifest.json").read_text())
    assert [disk["key"] for disk in manifest["disks"]] == ["disk0"]
    (skipped,) = manifest["skipped_disks"]
    assert skipped["device"] == "vdb" and "shareable" in skipped["reason"]
    assert any("vdb" in warning and "shareable" in warning for warning in trouble.run.report("skipping")["warnings"])


def test_the_next_run_succeeds_unaided(trouble):
    names = ["good", "nowhere", "blank", "unmounted", "mistaken", "crowded"]
    before = trouble.estate.points(trouble.guests["good"])
    run = trouble.estate.site.backup(",".join(names))
    for name in names:
        assert run.report(name)["point"]["level"] == ("incremental" if name == "good" else "full")
    after = trouble.estate.points(trouble.guests["good"])
    assert {path: after[path] for path in list(before)[1:]} == {path: before[path] for path in list(before)[1:]}


def test_an_unknown_machine_is_no_silent_success(trouble):
    run = trouble.estate.site.backup("no-such-machine", ok=False)
    assert run.returncode != 0
    assert "no-such-machine" in run.output and "no hosts to target" in run.output


def test_nbd_copy_refuses_targets_that_it_cannot_mean(trouble):
    source = {"key": "disk0", "uri": "nbd://127.0.0.1:1/x", "size_bytes": 512}
    module = {"job_id": "0" * 32, "sources": [source], "state_dir": trouble.estate.site.node_state}
    tasks = [
        {"name": f"try {name}", "sendense.platform.nbd_copy": dict(module, nbd_targets=text), "ignore_errors": True}
        for name, text in NBD_TARGETS.items()
    ]
    run = trouble.estate.generated("targets", [play(tasks, hosts="node01")])
    codes = {name: run.result("node01", f"try {name}").get("error_code") for name in NBD_TARGETS}
    assert codes == dict.fromkeys(NBD_TARGETS, "INVALID_INPUT")
    for name in NBD_TARGETS:
        result = run.result("node01", f"try {name}")
        assert result["retryable"] is False and isinstance(result["details"], dict) and result["msg"]


def test_a_job_that_does_not_exist_is_a_typed_error_in_every_module_that_takes_one(trouble):
    site = trouble.estate.site
    job, hub, node = "f" * 32, {"state_dir": site.hub_state}, {"state_dir": site.node_state}
    source = {"key": "disk0", "uri": "nbd://127.0.0.1:1/x", "size_bytes": 512}
    target, disk = "disk0:nbd://127.0.0.1:10100/a", {"key": "disk0", "id": "a", "size_bytes": 512}
    calls = {
        "vm_export": dict(node, job_id=job),
        "nbd_export": dict(hub, job_id=job, disks=[disk], created_at="2026-11-20T12:00:00Z"),
        "nbd_copy": dict(node, job_id=job, sources=[source], nbd_targets=target),
    }
    tasks = [{"name": f"try {name}", f"sendense.platform.{name}": args, "ignore_errors": True} for name, args in calls.items()]
    run = trouble.estate.generated("jobless", [play(tasks)])
    assert {name: run.result("hub01", f"try {name}").get("error_code") for name in calls} == dict.fromkeys(calls, "JOB_NOT_FOUND")
