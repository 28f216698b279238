# Copyright: (c) 2026, Sendense contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A merge that is killed at any step, or by any call of the file system that fails, loses no promised point and can be gone on with."""

from __future__ import annotations

import errno
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path
from typing import Dict, Iterator, List, Optional, Set, Tuple

import pytest

from ansible_collections.sendense.platform.plugins.module_utils.catalog.decision import choose_previous
from ansible_collections.sendense.platform.plugins.module_utils.errors import (
    CapabilityMissingError,
    PointDamagedError,
    PointInUseError,
    RepositoryFullError,
    RepositoryIoError,
    SendenseError,
)
from ansible_collections.sendense.platform.plugins.module_utils.repositories import local_files
from ansible_collections.sendense.platform.plugins.module_utils.repositories.local import LocalRepository
from tests.contract.merge_steps import MERGE_JOB, VERIFIED, merged, move, reread
from tests.contract.point_writer import Guest, read_disks
from tests.contract.repository_place import JOB, flipped
from tests.contract.test_repository_local import release
from tests.doubles.faulty_repository import failing_storage
from tests.integration.repositories.interrupted_merge import go_on, listed_states, written_chain

ROOT = Path(__file__).resolve().parents[3]
STEPS = (
    "merge:journal-written",
    "merge:data-committed",
    "merge:hashes-composed",
    "merge:manifest-written",
    "merge:prepared",
    "merge:exchanged",
    "delete:released",
    "delete:renamed",
    "delete:removed",
    "merge:consumed-removed",
    "merge:journal-removed",
)

Chain = Tuple[Path, Guest, List[str]]


@pytest.fixture(scope="module")
def template(tmp_path_factory: pytest.TempPathFactory) -> Chain:
    """A chain of five points, made once."""
    root = tmp_path_factory.mktemp("template") / "repository"
    guest, ids = written_chain(root)
    return root, guest, ids


@pytest.fixture
def chain(template: Chain, tmp_path: Path) -> Iterator[Chain]:
    """A copy of it."""
    root, guest, ids = template
    copy = tmp_path / "repository"
    shutil.copytree(root, copy)
    yield copy, guest, ids
    release(copy)


def repository_at(root: Path) -> LocalRepository:
    return LocalRepository(str(root), reserve_bytes=0)


def by_hand(root: Path, guest: Guest, point_id: str) -> Dict[str, bytes]:
    """The disks of a point as the runbook reads them: by the names in the headers, with nothing but qemu-img."""
    found = {}
    for at, disk in enumerate(guest.disks):
        image, raw = root / "machines" / guest.key / "points" / point_id / f"disk{at}.qcow2", root / "raw"
        subprocess.run(["qemu-img", "convert", "-f", "qcow2", "-O", "raw", str(image), str(raw)], check=True, timeout=60)
        found[disk.id] = raw.read_bytes()
        raw.unlink()
    return found


def assert_promised(root: Path, guest: Guest, ids: List[str]) -> None:
    """What is listed as ok is right, by the product and by hand; the points that stay are; those that go are never both."""
    repository = repository_at(root)
    states = listed_states(repository)
    assert {point_id for point_id, state in states.items() if state == "ok"} >= {ids[0], ids[3], ids[4]}
    assert "damaged" not in states.values()
    for point_id in [point_id for point_id, state in states.items() if state == "ok"]:
        assert repository.structure_check(guest.key, point_id) == []
        assert by_hand(root, guest, point_id) == guest.contents[point_id]
        assert read_disks(repository, repository.get(guest.key, point_id)) == guest.contents[point_id]


def assert_merged(root: Path, guest: Guest, ids: List[str]) -> None:
    """The merge is complete, and nothing of it is left."""
    stays = [ids[0], ids[3], ids[4]]
    assert listed_states(repository_at(root)) == dict.fromkeys(stays, "ok")
    assert sorted(os.listdir(root / "machines" / guest.key / "points")) == stays
    assert sorted(os.listdir(root / "machines" / guest.key)) == ["generation", "lock", "points"]
    for point_id in stays:
        assert repository_at(root).digest_check(guest.key, point_id) == []
    assert_promised(root, guest, ids)


def run_until(chain: Chain, step: str, *how: str) -> List[str]:
    """Merge in a process of its own that is killed at the step; the steps that it reached."""
    root = chain[0]
    hook = root.parent / "hook"
    hook.write_text("")
    (root.parent / "hook.kill").write_text(f"{step}\n")
    argv = [sys.executable, "-m", "tests.integration.repositories.interrupted_merge", str(root), str(hook), *how]
    environment = {**os.environ, "PYTHONPATH": f"{ROOT / 'collections'}:{ROOT}"}
    done = subprocess.run(argv, env=environment, cwd=ROOT, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == (-signal.SIGKILL if step else 0), done.stderr
    return [line.split()[0] for line in hook.read_text().splitlines()]


def test_the_steps_of_a_merge_are_the_documented_ones_in_their_order(chain: Chain) -> None:
    consumed = ["delete:released", "delete:renamed", "delete:removed", "merge:consumed-removed"]
    assert run_until(chain, "") == [*STEPS[:6], *consumed, *consumed, "merge:journal-removed"]
    assert_merged(*chain)


@pytest.mark.parametrize("step", STEPS)
def test_a_merge_killed_at_any_step_is_gone_on_with(chain: Chain, step: str) -> None:
    root, guest, ids = chain
    assert run_until(chain, step)[-1] == step
    assert_promised(*chain)
    go_on(repository_at(root), guest.key, ids)
    assert_merged(*chain)


@pytest.mark.parametrize("step", STEPS[4:])
def test_the_next_backup_ends_what_was_complete(chain: Chain, step: str) -> None:
    root, guest, ids = chain
    run_until(chain, step)
    repository_at(root).raise_generation(guest.key)
    assert_merged(*chain)
    assert repository_at(root).recover(guest.key) == []


@pytest.mark.parametrize("step", ["", "merge:prepared", "merge:moved-aside", "merge:exchanged", "merge:consumed-removed"])
def test_where_two_names_cannot_be_exchanged_the_survivor_is_put_back(chain: Chain, step: str) -> None:
    root, guest, ids = chain
    reached = run_until(chain, step, "plain")
    assert "merge:moved-aside" in reached or step == "merge:prepared"
    path = root / "machines" / guest.key / "points" / ids[3]
    assert path.exists() is (step != "merge:moved-aside")
    assert repository_at(root).get(guest.key, ids[3]).status == "ok" and path.exists()
    assert_promised(*chain)
    go_on(repository_at(root), guest.key, ids)
    assert_merged(*chain)


def test_every_file_system_call_of_a_merge_fails_in_turn(chain: Chain, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "fsync", lambda descriptor: None)
    root, guest, ids = chain
    opened = repository_at(root).begin_merge(guest.key, ids[3], ids[1:3], MERGE_JOB)
    move(opened)
    images, hashes = repository_at(root).merged_images(opened), repository_at(root).merged_hashes(opened)
    digests = {key: reread(images[key], hashes[key]) for key in images}
    failed: Set[str] = set()
    fail_at = 0
    while "" not in failed:
        fail_at += 1
        copy = tmp_path / "copy"
        shutil.copytree(root, copy)
        with failing_storage(copy, fail_at, errno.ENOSPC if fail_at % 2 else errno.EIO) as fault:
            try:
                publish(repository_at(copy), guest, ids, digests)
            except SendenseError as error:
                assert isinstance(error, RepositoryFullError if fail_at % 2 else RepositoryIoError), error
                assert error.retryable
        failed.add(fault.failed)
        if not repository_at(copy).recover(guest.key) and ids[1] in listed_states(repository_at(copy)):
            publish(repository_at(copy), guest, ids, digests)
        repository_at(copy).sweep(guest.key)
        assert listed_states(repository_at(copy)) == dict.fromkeys([ids[0], ids[3], ids[4]], "ok")
        assert repository_at(copy).structure_check(guest.key, ids[4]) == []
        assert sorted(os.listdir(copy / "machines" / guest.key / "points")) == [ids[0], ids[3], ids[4]]
        shutil.rmtree(copy)
    assert failed >= {"open", "write", "fsync", "rename", "mkdir", "unlink", "rmdir", "listdir", "lstat", "link", ""}
    assert fail_at > 100


def publish(repository: LocalRepository, guest: Guest, ids: List[str], digests: Dict[str, str]) -> None:
    """All of a merge but the moving of its data, which qemu-img did, and what the re-read said of that."""
    opened = repository.begin_merge(guest.key, ids[3], ids[1:3], MERGE_JOB)
    repository.merged_images(opened)
    repository.merged_hashes(opened)
    repository.finish_merge(opened, digests, VERIFIED)


def test_without_hard_links_nothing_begins(chain: Chain, monkeypatch: pytest.MonkeyPatch) -> None:
    root, guest, ids = chain

    def refuse(*arguments: object, **options: object) -> None:
        raise OSError(errno.EPERM, "Operation not permitted")

    monkeypatch.setattr(os, "link", refuse)
    before = sorted(path.name for path in root.rglob("*"))
    with pytest.raises(CapabilityMissingError):
        repository_at(root).begin_merge(guest.key, ids[3], ids[1:3], MERGE_JOB)
    assert sorted(path.name for path in root.rglob("*")) == before
    assert set(listed_states(repository_at(root)).values()) == {"ok"}


def test_without_space_nothing_begins(chain: Chain, monkeypatch: pytest.MonkeyPatch) -> None:
    root, guest, ids = chain
    real = os.statvfs(root)
    full = os.statvfs_result((*real[:4], 1, *real[5:]))
    monkeypatch.setattr(os, "statvfs", lambda path: full)
    with pytest.raises(RepositoryFullError) as error:
        repository_at(root).begin_merge(guest.key, ids[3], ids[1:3], MERGE_JOB)
    assert error.value.details["needed_bytes"] > error.value.details["free_bytes"]
    assert set(listed_states(repository_at(root)).values()) == {"ok"}


def test_a_journal_that_was_changed_condemns_every_point_until_a_person_has_looked(chain: Chain) -> None:
    root, guest, ids = chain
    repository_at(root).begin_merge(guest.key, ids[3], ids[1:3], MERGE_JOB)
    journal = root / "machines" / guest.key / "merge.json"
    good = journal.read_bytes()
    for offset in range(0, len(good), 7):
        journal.write_bytes(flipped(good, offset))
        states = listed_states(repository_at(root))
        assert set(states.values()) == {"damaged"}, offset
        assert choose_previous(repository_at(root).list()).reason == "previous_damaged"
    for content in (b"", good[:-1], good + b"\n"):
        journal.write_bytes(content)
        assert set(listed_states(repository_at(root)).values()) == {"damaged"}
    with pytest.raises(PointDamagedError):
        repository_at(root).begin_merge(guest.key, ids[3], ids[1:3], MERGE_JOB)
    assert repository_at(root).recover(guest.key) == []
    assert repository_at(root).raise_generation(guest.key) > 0
    journal.write_bytes(good)
    assert_promised(*chain)
    journal.write_bytes(b"")
    assert repository_at(root).abandon_merge(guest.key, "the journal was lost", JOB) == ids
    assert not journal.exists() and set(listed_states(repository_at(root)).values()) == {"damaged"}


def test_leftovers_without_a_journal_are_swept_unless_they_are_all_there_is(chain: Chain) -> None:
    root, guest, ids = chain
    points = root / "machines" / guest.key / "points"
    for suffix in (".merged", ".merged.preparing", ".replaced"):
        shutil.copytree(points / ids[3], points / f"{ids[3]}{suffix}")
    (points / ids[4]).rename(points / f"{ids[4]}.replaced")
    removed = repository_at(root).sweep(guest.key)
    assert sorted(removed) == [f"{ids[3]}.merged", f"{ids[3]}.merged.preparing", f"{ids[3]}.replaced"]
    assert (points / f"{ids[4]}.replaced").exists()


def test_points_whose_immutability_is_over_are_merged_although_the_file_system_still_keeps_them(chain: Chain) -> None:
    root, guest, ids = chain
    stated = repository_at(root).set_immutable(guest.key, ids[3], "2000-01-01T00:00:00Z")
    image = root / "machines" / guest.key / "points" / ids[1] / "disk0.qcow2"
    if stated == "filesystem":
        with pytest.raises(PermissionError):
            open(image, "ab")
    merged(repository_at(root), guest.key, ids[3], ids[1:3])
    immutable = root / "machines" / guest.key / "immutable"
    assert sorted(os.listdir(immutable)) == [f"{ids[0]}.json", f"{ids[3]}.json"]
    shutil.rmtree(immutable)
    release(root)
    assert_merged(*chain)


def test_the_lock_is_not_needed_to_read_where_it_cannot_be_had(chain: Chain, monkeypatch: pytest.MonkeyPatch) -> None:
    root, guest, ids = chain
    repository_at(root).begin_merge(guest.key, ids[3], ids[1:3], MERGE_JOB)

    def refuse(path: str, wait_s: float = 0) -> None:
        raise RepositoryIoError("planted", details={"errno": errno.EROFS})

    monkeypatch.setattr(local_files, "locked", refuse)
    assert listed_states(repository_at(root))[ids[1]] == "merging"
    assert read_disks(repository_at(root), repository_at(root).get(guest.key, ids[4])) == guest.contents[ids[4]]
    with pytest.raises((RepositoryIoError, PointInUseError)):
        repository_at(root).delete(guest.key, ids[4])


def test_a_journal_that_is_written_while_somebody_looks_condemns_nothing(chain: Chain, monkeypatch: pytest.MonkeyPatch) -> None:
    root, guest, ids = chain
    repository = repository_at(root)
    read = local_files.read_file

    def late(path: str, limit: int) -> Optional[bytes]:
        found = read(path, limit)
        if found is None and path.endswith("merge.json"):
            monkeypatch.setattr(local_files, "read_file", read)
            repository.begin_merge(guest.key, ids[3], ids[1:3], MERGE_JOB)
        return found

    monkeypatch.setattr(local_files, "read_file", late)
    states = listed_states(repository_at(root))
    assert "damaged" not in states.values(), states
