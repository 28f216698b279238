# Copyright: (c) 2026, Sendense contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The oracle itself: every kind of planted damage turns it red, and nothing but that."""

from __future__ import annotations

import json
import os
import subprocess
import time
from contextlib import contextmanager
from pathlib import Path
from typing import Iterator, List

from ansible_collections.sendense.platform.plugins.module_utils.catalog.manifest import Manifest
from ansible_collections.sendense.platform.plugins.module_utils.hubstate.jobs import JobDir
from ansible_collections.sendense.platform.plugins.module_utils.hubstate.ports import PortOwner, PortPool
from ansible_collections.sendense.platform.plugins.module_utils.hubstate.statedir import StateDir
from ansible_collections.sendense.platform.plugins.module_utils.platforms.libvirt.naming import CheckpointName
from ansible_collections.sendense.platform.plugins.module_utils.repositories.digests import file_digest
from tests.e2e.site import Run

from .fleet import Fleet

_JOB = "0123456789abcdef" * 2


def test_planted_damage_turns_the_oracle_red(fleet: Fleet) -> None:
    fleet.add("m00").backup()
    fleet.remember()
    assert fleet.oracle.check(fleet.before) == []
    folder = next(Path(fleet.site.repository, "machines").glob("*/points/*"))

    with _flipped(folder / "disk0.qcow2", 70000):
        _expect(fleet, ["O1", "O4"], "digest disk0")
    with _flipped(folder / "disk0.hashes", 90):
        _expect(fleet, ["O1", "O4"], "disk0.hashes does not match")
    with _flipped(folder / "manifest.json", 30):
        # The newest point has no readable change ids any more, so its checkpoint is needed by nobody.
        _expect(fleet, ["O3", "O4"], "manifest.json changed")
    with _wrong_but_listed_ok(folder):
        _expect(fleet, ["O1", "O4"], "does not match its hash")
    with _other_reference(fleet, folder.name):
        _expect(fleet, ["O1"], "not what the source held")
    with _gone(folder / "machine.native"):
        _expect(fleet, ["O1", "O4"], "is gone")
    with _checkpoint(fleet):
        _expect(fleet, ["O3"], "that no newest point needs")
    with _process(fleet):
        _expect(fleet, ["O3"], "process")
    with _directory(folder.with_name(f"20200101T000000Z-{_JOB[:8]}.partial")):
        _expect(fleet, ["O3"], "unfinished point")
    with _backup_job(fleet):
        _expect(fleet, ["O3"], "a backup job runs")
    with _running(fleet):
        _expect(fleet, ["O3"], "power state")
    with _file(fleet.guests["m00"].dir / "sendense-scratch-01234567-disk0.qcow2"):
        _expect(fleet, ["O3"], "file sendense-scratch")
    with _file(Path(fleet.site.hub_state, "exports", "10100.json")):
        _expect(fleet, ["O3"], "exports/10100.json")
    with _port(fleet):
        _expect(fleet, ["O3"], "leased port")
    with _job_directory(fleet):
        _expect(fleet, ["O2"], "job directory")
    with _file(Path(fleet.site.directory, "planted.log"), fleet.oracle.secret):
        _expect(fleet, ["O6"], "planted.log")
    with _file(fleet.oracle.logs[0] / "planted.log", fleet.oracle.secret):
        _expect(fleet, ["O6"], "planted.log")
    with _changed_by_a_merge(folder):
        assert fleet.oracle.unchanged(fleet.before) == []
    assert fleet.oracle.check(fleet.before) == []


def test_a_secret_of_a_process_is_seen(fleet: Fleet) -> None:
    fleet.oracle.watch_secret()
    assert fleet.oracle.secrets() == []
    process = subprocess.Popen(["sleep", "60"], env={"PASSWORD": fleet.oracle.secret})
    try:
        fleet.oracle.watch_secret()
    finally:
        process.kill()
        process.wait()
    assert [finding[:2] for finding in fleet.oracle.secrets()] == ["O6"]


def test_a_machine_that_was_not_backed_up_is_a_finding(fleet: Fleet) -> None:
    fleet.add("m00")
    assert fleet.oracle.next_backup(Run(0, "", {}, []), ["m00"], set()) != []
    run = fleet.backup()
    assert fleet.oracle.next_backup(run, ["m00"], {"no_previous_backup"}) == []
    assert len(fleet.oracle.next_backup(run, ["m00"], set())) == 2


def _expect(fleet: Fleet, kinds: List[str], text: str) -> None:
    found = fleet.oracle.check(fleet.before)
    assert sorted({one[:2] for one in found}) == kinds, found
    assert any(text in one for one in found), found


@contextmanager
def _flipped(path: Path, offset: int) -> Iterator[None]:
    flip(path, offset)
    yield
    flip(path, offset)


def flip(path: Path, offset: int) -> None:
    """Invert one bit of a byte; twice is nothing."""
    with open(path, "r+b") as stream:
        stream.seek(offset)
        value = stream.read(1)[0]
        stream.seek(offset)
        stream.write(bytes([value ^ 0x10]))


@contextmanager
def _wrong_but_listed_ok(folder: Path) -> Iterator[None]:
    """Other content in an image whose manifest was made to fit: only the block hashes know."""
    image, manifest_path = folder / "disk0.qcow2", folder / "manifest.json"
    kept = image.read_bytes(), manifest_path.read_bytes()
    subprocess.run(["qemu-io", "-f", "qcow2", "-c", "write -P 99 131072 512", str(image)], check=True, capture_output=True)
    manifest = Manifest.from_bytes(manifest_path.read_bytes(), "the planted point")
    manifest.disks[0].file_size = image.stat().st_size
    manifest.disks[0].file_digest = file_digest(str(image), manifest.disks[0].hash_algorithm)
    manifest_path.write_text(manifest.to_text())
    yield
    image.write_bytes(kept[0])
    manifest_path.write_bytes(kept[1])


@contextmanager
def _other_reference(fleet: Fleet, point_id: str) -> Iterator[None]:
    known = fleet.oracle.references[point_id]
    fleet.oracle.references[point_id] = dict(known, disk0="0" * 64)
    yield
    fleet.oracle.references[point_id] = known


@contextmanager
def _gone(path: Path) -> Iterator[None]:
    content = path.read_bytes()
    path.unlink()
    yield
    path.write_bytes(content)


@contextmanager
def _checkpoint(fleet: Fleet) -> Iterator[None]:
    domain = fleet.guests["m00"].domain
    owner = str(fleet.oracle.repository.identity()["owner"])
    name = str(CheckpointName.make("m00", int(time.time()), owner, _JOB))
    xml = f"<domaincheckpoint><name>{name}</name><disks><disk name='vda' checkpoint='bitmap'/></disks></domaincheckpoint>"
    checkpoint = domain.checkpointCreateXML(xml, 0)
    yield
    checkpoint.delete(0)


@contextmanager
def _process(fleet: Fleet) -> Iterator[None]:
    path = fleet.directory / "inventory" / "hosts.yml"
    process = subprocess.Popen(["tail", "-f", str(path)], stdout=subprocess.DEVNULL)
    try:
        yield
    finally:
        process.kill()
        process.wait()


@contextmanager
def _backup_job(fleet: Fleet) -> Iterator[None]:
    guest = fleet.guests["m00"]
    scratch = fleet.directory / "scratch"
    socket = f"<server transport='unix' socket='{fleet.directory}/sock'/>"
    disks = f"<disk name='vda' backup='yes' type='file'><scratch file='{scratch}'/></disk><disk name='vdb' backup='no'/>"
    guest.domain.backupBegin(f"<domainbackup mode='pull'>{socket}<disks>{disks}</disks></domainbackup>", None, 0)
    yield
    guest.domain.abortJob()
    deadline = time.monotonic() + 10
    while guest.domain.jobStats().get("type", 0) and time.monotonic() < deadline:
        time.sleep(0.02)


@contextmanager
def _running(fleet: Fleet) -> Iterator[None]:
    fleet.guests["m00"].resume()
    yield
    fleet.guests["m00"].suspend()


@contextmanager
def _directory(path: Path) -> Iterator[None]:
    path.mkdir()
    yield
    path.rmdir()


@contextmanager
def _changed_by_a_merge(folder: Path) -> Iterator[None]:
    """A file of a point changes that an open merge journal names; without the journal that is a finding."""
    journal = folder.parents[1] / "merge.json"
    with _flipped(folder / "disk0.qcow2", 70000), _file(journal, json.dumps({"consumed": [folder.name], "survivor": "x"})):
        yield


@contextmanager
def _file(path: Path, content: str = "{}") -> Iterator[None]:
    path.write_text(content)
    yield
    path.unlink()


@contextmanager
def _port(fleet: Fleet) -> Iterator[None]:
    owner = PortOwner(_JOB, "m00", "node01", "x")
    leases = PortPool(StateDir(fleet.site.hub_state)).allocate([owner], 1.0)
    yield
    for lease in leases:
        lease.release()


@contextmanager
def _job_directory(fleet: Fleet) -> Iterator[None]:
    job = JobDir.create(StateDir(fleet.site.node_state), _JOB, "node", {})
    assert job.lock is not None
    os.close(os.dup(job.lock.fileno()))
    yield
    job.remove()
    job.lock.release()
