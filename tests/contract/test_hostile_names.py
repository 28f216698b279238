# Copyright: (c) 2026, Sendense contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Machines that a hypervisor without any rules names ``/../x`` and worse: discovered, backed up twice, verified, restored."""

from __future__ import annotations

import re
import tempfile
import uuid
from pathlib import Path
from typing import Any, Dict, Iterator, List

import pytest

from ansible_collections.sendense.platform.plugins.inventory.vms import groups_of
from ansible_collections.sendense.platform.plugins.module_utils.datapath.images import raw_node
from ansible_collections.sendense.platform.plugins.module_utils.datapath.mover import move
from ansible_collections.sendense.platform.plugins.module_utils.datapath.mover_plan import DiskJob, MoverOptions
from ansible_collections.sendense.platform.plugins.module_utils.model import inventory_name, machine_key
from ansible_collections.sendense.platform.plugins.module_utils.platforms._base import (
    PreviousDisk,
    Snapshot,
    SnapshotRequest,
    TargetRequest,
)
from ansible_collections.sendense.platform.plugins.module_utils.repositories._base import NewDisk, NewPoint, Point
from ansible_collections.sendense.platform.plugins.module_utils.repositories.local import LocalRepository
from ansible_collections.sendense.platform.plugins.module_utils.repositories.seal import Sealing, seal
from tests.contract.point_writer import read_disks
from tests.contract.reading import serving
from tests.doubles.memory_hypervisor import MemoryHypervisor, unkind_hypervisor
from tests.doubles.memory_platform import MemorySource, MemoryTarget

SAFE = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")
HOSTILE_ID = "../../etc/x"


@pytest.fixture
def hypervisor(tmp_path: Path) -> Iterator[MemoryHypervisor]:
    (tmp_path / "s").mkdir()
    made = unkind_hypervisor(tmp_path / "s")
    for machine in made.machines.values():
        for disk in machine.disks:
            disk.content[: 3 * 512] = b"first" * 307 + b"!"
    yield made
    made.close()


@pytest.fixture
def repository(tmp_path: Path) -> LocalRepository:
    found = LocalRepository(str(tmp_path / "repo"), "", reserve_bytes=1 << 20)
    found.initialise()
    return found


def back_up(hypervisor: MemoryHypervisor, repository: LocalRepository, machine_id: str, parent: "Point | None" = None) -> Point:
    """One backup by the contracts alone, with the product's own mover."""
    key, job_id, owner = machine_key("memory", machine_id), uuid.uuid4().hex, repository.identity()["owner"]
    known = {disk.id: disk for disk in parent.manifest.disks} if parent else {}
    previous = [PreviousDisk(disk.id, disk.size_bytes, disk.change_id) for disk in known.values()] if parent else None
    with MemorySource({"hypervisor": hypervisor}) as source, tempfile.TemporaryDirectory(prefix="sh-") as work:
        request = SnapshotRequest(machine_id, job_id, owner, previous, consistency="crash")
        snapshot = source.open_snapshot(request, source.plan(request))
        known_ids: List[str] = []
        try:
            committed = copy(repository, snapshot, key, parent, Path(work))
            known_ids = [disk.change_id for disk in committed.manifest.disks if disk.change_id]
        finally:
            source.close_snapshot(machine_id, job_id, owner, bool(known_ids), known_ids)
    return committed


def copy(repository: LocalRepository, snapshot: Snapshot, key: str, parent: "Point | None", work: Path) -> Point:
    """Create, write, seal, commit."""
    disks = [NewDisk(disk.key, disk.disk_id, disk.size_bytes, disk.level, disk.reason, disk.change_id) for disk in snapshot.disks]
    parent_id = parent.manifest.point_id if parent and any(disk.level != "full" for disk in disks) else ""
    generation = repository.raise_generation(key)
    point = repository.create(NewPoint(key, snapshot.job_id, generation, snapshot.created_at, disks, parent_id, 0))
    copied: Dict[str, Any] = {}
    for disk in snapshot.disks:
        with serving(point.images[disk.key], "x", str(work / f"{disk.key}.sock"), writable=True) as target:
            job = DiskJob(
                key=disk.key,
                source_uri=disk.uri,
                target_uri=target,
                level=disk.level,
                changed_context=disk.changed_context,
                changed_flag=disk.changed_flag,
                size_bytes=disk.size_bytes,
                hashes_path=str(work / f"{disk.key}.hashes"),
            )
            result = move([job], MoverOptions(hash_algorithm=repository.identity()["hash_algorithm"]))
            assert result.error is None, result.error
            copied[disk.key] = result.disks[disk.key]
    repository.reread_images(point)
    hashes = {disk.key: str(work / f"{disk.key}.hashes") for disk in snapshot.disks}
    return repository.commit(point, seal(repository, point, Sealing(snapshot.to_dict(), copied, hashes)))


def paths_below(root: Path) -> List[Path]:
    """Everything."""
    return sorted(root.rglob("*"))


def test_inventory_names_are_safe_and_unique(hypervisor):
    with MemorySource({"hypervisor": hypervisor}) as source:
        machines = source.discover()
    names = [machine.name for machine in machines]
    given = [inventory_name(machine.platform, machine.id, machine.name, names.count(machine.name) == 1) for machine in machines]
    assert [name for name in given if not re.fullmatch(r"memory-[0-9a-f]{12}", name)] == []
    assert len(set(given)) == len(machines) == 6
    assert "/../x" in names


def test_groups_are_plain_words(hypervisor):
    with MemorySource({"hypervisor": hypervisor}) as source:
        machine = source.machine(HOSTILE_ID)
    machine.tags += ["/../x", "{{ lookup('pipe','touch pwned') }}", "a" * 300, "\n", "ä"]
    machine.policy = "/../x"
    groups = groups_of(machine)
    assert [group for group in groups if not re.fullmatch(r"[A-Za-z0-9_]{1,80}", group)] == []
    assert "platform_memory" in groups and "policy_____x" in groups


def test_machines_are_backed_up_twice_and_verified_and_no_path_escapes(hypervisor, repository, tmp_path):
    around = set(paths_below(tmp_path.parent))
    chosen = (HOSTILE_ID, "m-1", "m-5")
    for machine_id in chosen:
        first = back_up(hypervisor, repository, machine_id)
        hypervisor.write(machine_id, 0, 5 * 65536, b"second")
        second = back_up(hypervisor, repository, machine_id, first)
        assert [disk.level for disk in second.manifest.disks] == ["incremental", "incremental", "full"]
        key = machine_key("memory", machine_id)
        for point in (first, second):
            assert repository.structure_check(key, point.manifest.point_id) == []
            assert repository.digest_check(key, point.manifest.point_id) == []
        machine = hypervisor.machines[machine_id]
        assert second.manifest.machine["name"] == machine.name
        assert read_disks(repository, second) == {disk.id: bytes(disk.content) for disk in machine.disks}
    new = [path for path in paths_below(tmp_path.parent) if path not in around]
    assert [path for path in new if tmp_path / "repo" not in path.parents] == []
    assert [path for path in new if not SAFE.fullmatch(path.name)] == []
    assert len(repository.machines()) == len(chosen)
    assert not [path for path in new if "pwned" in path.name]


def test_the_machine_is_restored_under_a_name_that_is_no_better(hypervisor, repository, tmp_path):
    saved = back_up(hypervisor, repository, HOSTILE_ID)
    key, point_id = machine_key("memory", HOSTILE_ID), saved.manifest.point_id
    storage = tmp_path / "storage"
    storage.mkdir()
    with MemorySource({"hypervisor": hypervisor}) as source:
        machine = source.plan(SnapshotRequest(HOSTILE_ID, uuid.uuid4().hex, "a" * 8, None, consistency="crash")).machine
    name = "../../{{ 7 * 7 }}/$(touch pwned)"
    request = TargetRequest(machine, uuid.uuid4().hex, name, str(storage), point_id)
    options = MoverOptions(hash_algorithm=repository.identity()["hash_algorithm"])
    with MemoryTarget({"hypervisor": hypervisor}) as target, tempfile.TemporaryDirectory(prefix="sh-") as work:
        prepared = target.prepare(request)
        images = repository.open_for_read(key, point_id)
        for disk in prepared.disks:
            sockets = [str(Path(work, f"{disk.key}-{side}.sock")) for side in "rw"]
            hashes = str(Path(work, f"{disk.key}.hashes"))
            with (
                serving(images[disk.key], "r", sockets[0]) as read,
                serving(raw_node(disk.path), "w", sockets[1], writable=True) as written,
            ):
                job = DiskJob(disk.key, read, written, "full", "", 1, disk.size_bytes, hashes)
                assert move([job], options).error is None
        restored = target.finish(request, prepared)
    assert restored.name == name
    original, copied = hypervisor.machines[HOSTILE_ID], hypervisor.machines[restored.id]
    assert [bytes(disk.content) for disk in copied.disks] == [bytes(disk.content) for disk in original.disks]
    assert sorted(path.parent for path in paths_below(storage)) == [storage] * 3
