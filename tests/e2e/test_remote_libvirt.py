# Copyright: (c) 2026, Sendense contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A libvirt host that the node reaches by qemu+ssh alone: backed up, verified, restored, and cut off in the middle."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest
import yaml

from tests.contract.libvirt_remote import remote_host
from tests.lab.disks import MIB, ODD_BYTES, DiskSpec, ImageFile, identical
from tests.lab.guest import Guest
from tests.lab.host import LibvirtHost
from tests.lab.processes import wait_gone

from .estate import only
from .points import leftovers, references, stored_point
from .site import ROOT, Site

#: Where qemu makes its socket and scratch files at a host that is another machine.
SCRATCH = Path("/var/tmp")


def scratch_files():
    return {path for pattern in ("sb-*.sock", "sendense-scratch-*") for path in SCRATCH.glob(pattern)}


@pytest.fixture(scope="module")
def far(lab_base):
    """The libvirt host with its sshd, and the installation that knows no other way to it."""
    before = scratch_files()
    directory = Path(tempfile.mkdtemp(prefix="se-"))
    with LibvirtHost("far", lab_base) as host, remote_host(host) as remote:
        site = Site(directory, [remote.uri])
        site.initialise()
        yield remote, site
        assert leftovers(site, host) == [] and scratch_files() == before
    shutil.rmtree(directory)


@pytest.fixture
def guest(far):
    remote, _site = far
    disks = [DiskSpec("vda", 16 * MIB + ODD_BYTES), DiskSpec("vdb", 2 * MIB, "raw")]
    guest = Guest.create(remote.host, "far01", disks).start(paused=True)
    guest.write("vda", 0x5A, 0, 8 * MIB)
    guest.flush()
    yield guest
    guest.remove()


def newest(site, guest, run):
    return stored_point(site.repository, guest, run.report(guest.name)["point"]["id"])


def test_the_whole_way_over_ssh(far, guest, tmp_path):
    remote, site = far
    first = newest(site, guest, site.backup(guest.name))
    assert first.differing(references(guest, tmp_path / "first")) == []
    guest.write("vda", 0x33, 3 * MIB, 64 << 10)
    guest.write("vdb", 0x44, MIB, 512)
    second = newest(site, guest, site.backup(guest.name))
    held = references(guest, tmp_path / "second")
    assert [second.disk(target)["level"] for target in ("vda", "vdb")] == ["incremental", "full"]
    assert second.differing(held) == []
    assert second.manifest["versions"]["source_host"] == Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    verified = site.play("verify", guest.name)
    assert verified.report(guest.name)["ok"] is True
    restored = tmp_path / "restored"
    site.play("restore", guest.name, {"restore_vm_directory": str(restored)})
    for number, target in enumerate(guest.disks):
        assert identical(ImageFile(str(restored / f"disk{number}.qcow2"), "qcow2"), ImageFile(str(held[target]), "raw"))
    assert remote.sshd.processes() and leftovers(site, remote.host) == []


def test_a_restore_to_the_other_machine_is_refused_before_anything_is_made(far, guest):
    _remote, site = far
    site.backup(guest.name)
    run = site.play("restore", guest.name, {"restore_vm_name": "again", "restore_vm_storage": str(site.directory)}, ok=False)
    assert only(run, guest.name)["error_code"] == "CAPABILITY_MISSING" and "is remote" in only(run, guest.name)["msg"]


def test_a_link_that_is_cut_in_the_middle_leaves_nothing_once_it_is_back(far, guest):
    remote, site = far
    before = scratch_files()
    started = site.start("backup", guest.name, {"backup_vm_max_bytes_per_second": MIB})
    statuses = Path(site.node_state, "jobs")
    assert wait_gone(lambda: any(json.loads(path.read_text())["bytes_done"] for path in statuses.glob("*/*.status.json")), 120.0)
    remote.sshd.stop()
    run = started.wait()
    error = only(run, guest.name)
    assert (run.returncode != 0, error["error_code"], error["retryable"]) == (True, "TUNNEL_FAILED", True), error
    assert "was lost while it carried data" in error["msg"]
    assert not list(Path(site.repository, "machines").glob("*/points/*.partial"))
    assert guest.domain.listAllCheckpoints() and scratch_files() != before  # it cannot have been ended over no link
    remote.sshd.start()
    assert wait_gone(lambda: not list(statuses.glob("*/keeper.sock")), 120.0)
    site.play("cleanup", guest.name)
    assert (guest.domain.listAllCheckpoints(), scratch_files()) == ([], before) and leftovers(site, remote.host) == []
    site.backup(guest.name)


def test_the_controller_may_discover_on_another_way_than_the_node_reads(far, guest, tmp_path):
    remote, _site = far
    sources = [{"connection": {"uri": "qemu:///system"}, "discovery_connection": {"uri": remote.uri}, "node": "node01"}]
    path = tmp_path / "machines.sendense.yml"
    path.write_text(yaml.safe_dump({"plugin": "sendense.platform.vms", "sources": sources}))
    argv = [os.path.join(os.path.dirname(sys.executable), "ansible-inventory"), "-i", str(path), "--host", guest.name]
    environ = {**os.environ, "ANSIBLE_CONFIG": str(ROOT / "ansible.cfg"), "ANSIBLE_LOCAL_TEMP": str(tmp_path)}
    done = subprocess.run(argv, cwd=ROOT, env=environ, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["sendense_source"]["connection"] == {"uri": "qemu:///system"} and remote.uri not in done.stdout
