# Copyright: (c) 2026, Sendense contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Every call of a repository, and every call of the file system below it, fails in turn: n = 1, 2, 3... until none is left.

After each failure the older points are what they were, nothing of the failed job is left once it is aborted, and the next
job succeeds.
"""

from __future__ import annotations

import errno
import os
import tempfile
from pathlib import Path
from typing import Callable, Dict, Iterator, List, Tuple

import pytest

from ansible_collections.sendense.platform.plugins.module_utils.errors import (
    PointNotFoundError,
    RepositoryFullError,
    RepositoryIoError,
    SendenseError,
)
from ansible_collections.sendense.platform.plugins.module_utils.repositories._base import Point, Repository
from ansible_collections.sendense.platform.plugins.module_utils.repositories.local import LocalRepository
from ansible_collections.sendense.platform.plugins.module_utils.repositories.seal import seal
from tests.contract.clock import Clock
from tests.contract.point_writer import Guest, Job, read_disks
from tests.contract.repository_contract import RepositoryContract
from tests.contract.repository_place import RepositoryPlace
from tests.contract.test_repository_local import release
from tests.doubles.faulty_repository import FaultyRepository, failing_storage
from tests.doubles.memory_repository import MemoryRepository, MemoryStore

SMALL = {"serial-a": 2 * 65536}


class TestFaultyRepository(RepositoryContract):
    """Without a planted fault the double is the repository that it wraps."""

    @pytest.fixture
    def place(self, tmp_path: Path) -> Iterator[RepositoryPlace]:
        clock = Clock()
        store = MemoryStore(tmp_path / "images", clock=clock)

        def opened(repository_id: str) -> Repository:
            return FaultyRepository(MemoryRepository(store, repository_id))

        yield RepositoryPlace(
            open=opened,
            lose=lambda: setattr(store, "marker", None),
            exhaust=lambda: setattr(store, "free_bytes", 4096),
            wait_until=clock.set,
        )


def tree(root: Path) -> Dict[str, Tuple[int, bytes]]:
    """Every file below a directory, with its identity and content; directories by name."""
    return {
        str(path.relative_to(root)): (path.lstat().st_ino, path.read_bytes() if path.is_file() else b"") for path in sorted(root.rglob("*"))
    }


def committed_files(root: Path) -> Dict[str, Tuple[int, bytes]]:
    """What lies in committed points."""
    return {name: found for name, found in tree(root).items() if "/points/" in name and ".partial" not in name and ".preparing" not in name}


@pytest.fixture
def guest() -> Guest:
    guest = Guest(sizes=SMALL)
    guest.scribble(1)
    return guest


@pytest.fixture(autouse=True)
def no_flushes(monkeypatch: pytest.MonkeyPatch) -> None:
    """Hundreds of flushes of a busy disk are slow; that they are made, in order, is tested in test_local_durability."""
    monkeypatch.setattr(os, "fsync", lambda descriptor: None)


@pytest.fixture
def local(tmp_path: Path) -> Iterator[Callable[[], LocalRepository]]:
    root = tmp_path / "repository"
    yield lambda: LocalRepository(str(root), reserve_bytes=0)
    release(root)


def sealed(repository: Repository, job: Job, parent_id: str) -> Point:
    """A whole job against any repository, the image itself written elsewhere than through it."""
    point = job.open(repository, parent_id)
    job.write(point)
    repository.reread_images(point)
    with tempfile.TemporaryDirectory() as work:
        return repository.commit(point, seal(repository, point, job.sealing(Path(work))))


@pytest.mark.parametrize("after", [False, True], ids=["refused", "answer lost"])
def test_every_call_of_a_job_fails_in_turn(local: Callable[[], LocalRepository], guest: Guest, after: bool) -> None:
    local().initialise()
    full = guest.backup(local())
    before = {full.manifest.point_id: read_disks(local(), full)}
    failed: List[str] = []
    while True:
        job = guest.next_job()
        faulty = FaultyRepository(local(), fail_at=len(failed) + 1, after=after)
        try:
            sealed(faulty, job, full.manifest.point_id)
        except RepositoryIoError:
            failed.append(faulty.failed)
            committed = after and faulty.failed == "commit"
            assert local().abort(guest.key, job.job_id) is (faulty.calls > 1 + (not after) and not committed)
            assert local().partials(guest.key) == []
            assert len(local().list()) == 1 + committed
            if committed:
                local().delete(guest.key, local().list()[-1].manifest.point_id)
            assert {point.manifest.point_id: read_disks(local(), point) for point in local().list()} == before
            continue
        break
    assert failed == ["raise_generation", "create", "reread_images", "get", "hash_files", "identity", "commit"]


def operations(guest: Guest, full_id: str, child_id: str) -> Dict[str, Callable[[LocalRepository], object]]:
    """What changes a repository, apart from a job."""
    return {
        "mark_damaged": lambda repository: repository.mark_damaged(guest.key, full_id, "planted"),
        "set_immutable": lambda repository: repository.set_immutable(guest.key, child_id, "2000-01-01T00:00:00Z"),
        "delete": lambda repository: repository.delete(guest.key, child_id),
        "distrust": lambda repository: repository.distrust(guest.key, child_id, "planted"),
    }


@pytest.mark.parametrize("name", ["mark_damaged", "set_immutable", "delete", "distrust"])
def test_every_file_system_call_of_a_change_fails_in_turn(
    local: Callable[[], LocalRepository], guest: Guest, tmp_path: Path, name: str
) -> None:
    local().initialise()
    full = guest.backup(local())
    contents = guest.contents[full.manifest.point_id]
    child = guest.backup(local(), full.manifest.point_id)
    fail_at = 0
    while True:
        fail_at += 1
        if child.manifest.point_id not in [point.manifest.point_id for point in local().list()]:
            child = guest.backup(local(), full.manifest.point_id)
        operation = operations(guest, full.manifest.point_id, child.manifest.point_id)[name]
        with failing_storage(tmp_path / "repository", fail_at) as fault:
            try:
                operation(local())
            except RepositoryIoError as error:
                assert error.details["errno"] == errno.EIO and error.retryable
        listed = [point.manifest.point_id for point in local().list()]
        assert listed in ([full.manifest.point_id], [full.manifest.point_id, child.manifest.point_id])
        operation(local())
        release(tmp_path / "repository")
        damaged = [point.status for point in local().list()]
        assert set(damaged) == ({"damaged"} if name == "mark_damaged" else {"ok"})
        for mark in (tmp_path / "repository").rglob("damage/*"):
            mark.unlink()
        assert read_disks(local(), local().get(guest.key, full.manifest.point_id)) == contents
        local().sweep(guest.key)
        assert [path for path in tree(tmp_path / "repository") if ".tmp" in path or ".deleting" in path] == []
        if not fault.failed:
            break
    assert fail_at > 10


@pytest.mark.parametrize("number", [errno.EIO, errno.ENOSPC])
def test_every_file_system_call_of_a_job_fails_in_turn(
    local: Callable[[], LocalRepository], guest: Guest, tmp_path: Path, number: int
) -> None:
    root = tmp_path / "repository"
    local().initialise()
    full = guest.backup(local())
    before = committed_files(root)
    expected = RepositoryFullError if number == errno.ENOSPC else RepositoryIoError
    names = set()
    fail_at = 0
    while True:
        fail_at += 1
        job = guest.next_job()
        raised: List[SendenseError] = []
        with failing_storage(root, fail_at, number) as fault:
            try:
                run_without_images(local(), job, full.manifest.point_id)
            except SendenseError as error:
                raised.append(error)
        names.add(fault.failed)
        if not fault.failed:
            assert raised == []
            break
        assert all(isinstance(error, expected) for error in raised), (fault.failed, raised)
        assert local().get(guest.key, full.manifest.point_id).status == "ok"
        if raised:
            local().abort(guest.key, job.job_id)
        assert local().partials(guest.key) == []
        for point in local().list()[1:]:
            local().delete(guest.key, point.manifest.point_id)
        local().sweep(guest.key)
        assert committed_files(root) == before
        assert [path for path in tree(root) if path.endswith((".tmp", ".preparing", ".deleting"))] == []
    assert names >= {"open", "write", "fsync", "rename", "mkdir", "unlink", "listdir", "lstat", "statvfs", ""}
    assert fail_at > 100


def run_without_images(repository: LocalRepository, job: Job, parent_id: str) -> None:
    """A whole job but for its data, which qemu writes in a process of its own."""
    point = job.open(repository, parent_id)
    repository.reread_images(point)
    with tempfile.TemporaryDirectory() as work:
        committed = repository.commit(point, seal(repository, point, job.sealing(Path(work))))
    assert repository.get(job.guest.key, committed.manifest.point_id).status == "ok"


@pytest.mark.parametrize("after", [False, True])
def test_a_fault_that_stays_is_typed_and_leaves_what_abort_removes(
    local: Callable[[], LocalRepository], guest: Guest, tmp_path: Path, after: bool
) -> None:
    local().initialise()
    job = guest.next_job()
    point = job.open(local())
    job.write(point)
    os.chmod(point.path, 0o700)
    faulty = FaultyRepository(local(), fail_at=1, error=RepositoryFullError("No space: planted."), after=after)
    with pytest.raises(RepositoryFullError):
        faulty.reread_images(point)
    assert local().abort(guest.key, job.job_id) is True
    with pytest.raises(PointNotFoundError):
        local().reread_images(point)
