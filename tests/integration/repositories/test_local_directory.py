# Copyright: (c) 2026, Sendense contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The directory of a local repository: what lies where, what plain qemu makes of it, and what tampering does to it."""

from __future__ import annotations

import fcntl
import json
import os
import random
import re
import shutil
import subprocess
from pathlib import Path
from typing import Dict, Iterator, List

import pytest

from ansible_collections.sendense.platform.plugins.module_utils.catalog.decision import choose_previous
from ansible_collections.sendense.platform.plugins.module_utils.errors import (
    InvalidInputError,
    LeaseHeldError,
    PointDamagedError,
    PointImmutableError,
    PointInUseError,
    RepositoryMismatchError,
    RepositoryMissingError,
    SchemaUnknownError,
)
from ansible_collections.sendense.platform.plugins.module_utils.repositories import local_files, registry
from ansible_collections.sendense.platform.plugins.module_utils.repositories.local import LocalRepository
from tests.contract.point_writer import Guest, read_disks
from tests.contract.repository_place import chain_of, flipped
from tests.contract.test_repository_local import release

DOCS = Path(__file__).resolve().parents[3] / "docs"
SMALL = {"serial-a": 2 * 65536}
UNTIL = "2999-01-01T00:00:00Z"


@pytest.fixture
def root(tmp_path: Path) -> Iterator[Path]:
    yield tmp_path / "repository"
    release(tmp_path / "repository")


@pytest.fixture
def repository(root: Path) -> LocalRepository:
    repository = LocalRepository(str(root), reserve_bytes=0, hub_id="hub-1")
    repository.initialise()
    return repository


@pytest.fixture
def guest() -> Guest:
    guest = Guest(sizes=SMALL)
    guest.scribble(1)
    return guest


def points_of(root: Path, guest: Guest) -> Path:
    return root / "machines" / guest.key / "points"


def run_blocks(page: str, environment: Dict[str, str]) -> str:
    """Run the shell blocks of a page as a person would paste them, with what they name set; their output."""
    blocks = re.findall(r"^```sh\n(.*?)^```$", (DOCS / page).read_text(encoding="utf-8"), re.M | re.S)
    script = "set -eu\n" + "\n".join(blocks).replace("less ", "cat ")
    done = subprocess.run(["sh"], input=script, env={**os.environ, **environment}, capture_output=True, text=True, timeout=120, check=False)
    assert blocks and done.returncode == 0, done.stderr
    return done.stdout


# --- layout -----------------------------------------------------------------------------------------------------------


def test_the_layout_is_the_documented_one(repository: LocalRepository, root: Path, guest: Guest) -> None:
    first, second = [point.manifest.point_id for point in chain_of(repository, guest, 2)]
    files = ["disk0.hashes", "disk0.qcow2", "machine.native", "manifest.json", "nvram.fd"]
    assert sorted(os.listdir(root)) == ["machines", "sendense-repository.json"]
    assert sorted(os.listdir(root / "machines" / guest.key)) == ["generation", "lock", "points"]
    assert [sorted(os.listdir(points_of(root, guest) / point_id)) for point_id in (first, second)] == [files, files]
    assert first == "20261120T120100Z-00000001"
    assert (root / "machines" / guest.key / "generation").read_text() == "2\n"
    for path in root.rglob("*"):
        assert path.stat().st_mode & 0o077 == 0, path
    assert json.loads((points_of(root, guest) / second / "manifest.json").read_text())["parent_id"] == first


def test_a_partial_point_says_whose_it_is(repository: LocalRepository, root: Path, guest: Guest) -> None:
    job = guest.next_job()
    point = job.open(repository)
    said = json.loads((Path(point.path) / "job.json").read_text())
    wanted = {"job_id": job.job_id, "hub_id": "hub-1", "generation": 1, "parent_id": "", "point_id": point.point_id}
    assert {name: said[name] for name in wanted} == wanted
    assert point.path == str(points_of(root, guest) / f"{point.point_id}.partial")
    assert [partial.hub_id for partial in repository.partials(guest.key)] == ["hub-1"]


def test_a_repository_that_was_moved_is_whole(repository: LocalRepository, root: Path, guest: Guest, tmp_path: Path) -> None:
    points = chain_of(repository, guest, 3)
    root.rename(tmp_path / "elsewhere")
    moved = LocalRepository(str(tmp_path / "elsewhere"))
    assert moved.list() == points
    assert read_disks(moved, points[-1]) == guest.contents[points[-1].manifest.point_id]
    assert moved.structure_check(guest.key, points[-1].manifest.point_id) == []


# --- runbooks ---------------------------------------------------------------------------------------------------------


def test_restore_by_hand_works_as_it_is_written(repository: LocalRepository, root: Path, tmp_path: Path) -> None:
    guest = Guest(name="web01")
    point = chain_of(repository, guest, 3)[-1].manifest
    target = tmp_path / "target"
    for disk in point.disks:
        target.mkdir()
        directory = points_of(root, guest) / point.point_id
        said = run_blocks(
            "runbooks/restore-by-hand.md",
            {"REPOSITORY": str(root), "POINT": str(directory), "DISK": disk.file, "TARGET": str(target)},
        )
        assert '"name": "web01"' in said and f"../{point.parent_id}/{disk.file}" in said and "Images are identical." in said
        assert (target / "restored.raw").read_bytes() == guest.contents[point.point_id][disk.id]
        shutil.rmtree(target)


def test_a_lost_marker_is_written_again_as_the_runbook_says(repository: LocalRepository, root: Path, guest: Guest) -> None:
    point = guest.backup(repository)
    identity = repository.identity()
    (root / "sendense-repository.json").unlink()
    with pytest.raises(RepositoryMissingError):
        repository.list()
    with pytest.raises(RepositoryMismatchError):
        LocalRepository(str(root)).initialise()
    variables = {"REPOSITORY_ID": identity["repository_id"], "HASH_ALGORITHM": "xxh3_128", "REPOSITORY": str(root)}
    said = run_blocks("runbooks/lost-repository-marker.md", variables)
    assert f'1  "repository_id": "{identity["repository_id"]}"' in said
    again = LocalRepository(str(root), identity["repository_id"])
    assert {**again.identity(), "created_at": ""} == {**identity, "created_at": ""}
    assert again.list() == [point]


def test_a_false_alarm_is_taken_back_as_the_runbook_says(repository: LocalRepository, root: Path, guest: Guest) -> None:
    point = guest.backup(repository)
    repository.mark_damaged(guest.key, point.manifest.point_id, "planted")
    run_blocks("runbooks/damaged-point.md", {"REPOSITORY": str(root), "MACHINE": guest.key, "POINT_ID": point.manifest.point_id})
    assert repository.list() == [point]


# --- the marker -------------------------------------------------------------------------------------------------------


def test_a_directory_with_something_else_is_not_taken(tmp_path: Path) -> None:
    (tmp_path / "taken").mkdir()
    (tmp_path / "taken" / "holiday.jpg").write_bytes(b"x")
    with pytest.raises(RepositoryMismatchError):
        LocalRepository(str(tmp_path / "taken")).initialise()
    assert os.listdir(tmp_path / "taken") == ["holiday.jpg"]
    (tmp_path / "fresh").mkdir()
    (tmp_path / "fresh" / "lost+found").mkdir()
    assert LocalRepository(str(tmp_path / "fresh")).initialise() is True


@pytest.mark.parametrize("content", ["", "{}", "[1]", "not json", '{"schema_version": 1}', "[" * 100000, "\udcff"])
def test_a_marker_that_cannot_be_read_is_no_marker(repository: LocalRepository, root: Path, content: str) -> None:
    (root / "sendense-repository.json").write_bytes(content.encode("utf-8", "surrogateescape"))
    with pytest.raises(RepositoryMissingError):
        repository.machines()


def test_a_newer_marker_and_a_marker_that_is_a_link_are_refused(repository: LocalRepository, root: Path, tmp_path: Path) -> None:
    marker = root / "sendense-repository.json"
    content = marker.read_text()
    marker.write_text(content.replace('"schema_version": 1', '"schema_version": 2'))
    with pytest.raises(SchemaUnknownError):
        repository.identity()
    (tmp_path / "outside").write_text(content)
    marker.unlink()
    marker.symlink_to(tmp_path / "outside")
    with pytest.raises(RepositoryMissingError):
        repository.identity()


def test_paths_and_types_that_cannot_be() -> None:
    for path in ("relative", "", "/a\0b"):
        with pytest.raises(InvalidInputError):
            LocalRepository(path)
    with pytest.raises(InvalidInputError):
        registry.open_repository({"type": "tape", "path": "/x"})
    assert registry.open_repository({"path": "/x", "id": None}, hub_id="h").NAME == "local"


# --- tampering --------------------------------------------------------------------------------------------------------


def test_every_flip_in_a_manifest_is_noticed_and_the_point_stays_listed(repository: LocalRepository, root: Path, guest: Guest) -> None:
    first, second = [point.manifest.point_id for point in chain_of(repository, guest, 2)]
    path = points_of(root, guest) / first / "manifest.json"
    good = path.read_bytes()
    chosen = random.Random(7)
    for _ in range(150):
        offset, bit = chosen.randrange(len(good)), 1 << chosen.randrange(8)
        path.write_bytes(good[:offset] + bytes([good[offset] ^ bit]) + good[offset + 1 :])
        listed = repository.list()
        assert [(point.manifest.point_id, point.status) for point in listed] == [(first, "damaged"), (second, "damaged")], offset
        assert first in listed[1].damage
    path.write_bytes(good)
    assert [point.status for point in repository.list()] == ["ok", "ok"]


@pytest.mark.parametrize("how", ["gone", "empty", "link", "directory", "newer", "huge"])
def test_a_point_without_a_readable_manifest_is_listed_as_damaged(
    repository: LocalRepository, root: Path, guest: Guest, tmp_path: Path, how: str
) -> None:
    point_id = guest.backup(repository).manifest.point_id
    path = points_of(root, guest) / point_id / "manifest.json"
    content = path.read_text()
    path.unlink()
    if how == "link":
        (tmp_path / "outside").write_text(content)
        path.symlink_to(tmp_path / "outside")
    elif how == "directory":
        path.mkdir()
    elif how != "gone":
        newer = content.replace('"schema_version": 1', '"schema_version": 2')
        path.write_text({"empty": "", "newer": newer, "huge": content + " " * (17 << 20)}[how])
    (point,) = repository.list()
    assert (point.manifest.point_id, point.status, point.manifest.created_at) == (point_id, "damaged", "2026-11-20T12:01:00Z")
    assert ("newer" in point.damage) is (how == "newer")
    assert [finding.kind for finding in repository.structure_check(guest.key, point_id)] == ["manifest"]
    assert [finding.kind for finding in repository.digest_check(guest.key, point_id)] == ["manifest"]
    assert choose_previous(repository.list()).reason == "previous_damaged"
    with pytest.raises(PointDamagedError):
        repository.open_for_read(guest.key, point_id)
    full = guest.backup(repository)
    assert choose_previous(repository.list()).point_id == full.manifest.point_id


def test_swapped_points_are_noticed(repository: LocalRepository, root: Path, guest: Guest) -> None:
    first, second = [point.manifest.point_id for point in chain_of(repository, guest, 2)]
    points = points_of(root, guest)
    (points / first).rename(points / "aside")
    (points / second).rename(points / first)
    (points / "aside").rename(points / second)
    assert [point.status for point in repository.list()] == ["damaged", "damaged"]


def test_a_same_size_image_of_another_point_is_noticed_by_its_digest(repository: LocalRepository, root: Path, guest: Guest) -> None:
    point = guest.backup(repository)
    other = Guest("other", SMALL)
    other.disks[0].blocks = [77, 78]
    foreign = other.backup(repository)
    path = points_of(root, guest) / point.manifest.point_id / "disk0.qcow2"
    shutil.copy(points_of(root, other) / foreign.manifest.point_id / "disk0.qcow2", path)
    assert path.stat().st_size == point.manifest.disks[0].file_size
    assert repository.structure_check(guest.key, point.manifest.point_id) == []
    assert [finding.kind for finding in repository.digest_check(guest.key, point.manifest.point_id)] == ["digest"]


def test_swapped_hash_files_are_noticed_before_a_child_is_built(repository: LocalRepository, root: Path, guest: Guest) -> None:
    first, second = [points_of(root, guest) / point.manifest.point_id for point in chain_of(repository, guest, 2)]
    shutil.copy(first / "disk0.hashes", second / "disk0.hashes")
    with pytest.raises(PointDamagedError):
        guest.next_job().open(repository, second.name)
    assert [point.status for point in repository.list()] == ["ok", "damaged"]


def test_a_point_directory_that_is_a_link_is_not_followed(repository: LocalRepository, root: Path, guest: Guest, tmp_path: Path) -> None:
    point_id = guest.backup(repository).manifest.point_id
    path = points_of(root, guest) / point_id
    path.rename(tmp_path / "outside")
    path.symlink_to(tmp_path / "outside")
    assert [point.status for point in repository.list()] == ["damaged"]
    with pytest.raises(PointDamagedError):
        repository.open_for_read(guest.key, point_id)


def test_a_missing_parent_is_named(repository: LocalRepository, root: Path, guest: Guest, tmp_path: Path) -> None:
    first, second = [point.manifest.point_id for point in chain_of(repository, guest, 2)]
    (points_of(root, guest) / first).rename(tmp_path / "away")
    (point,) = repository.list()
    assert (point.manifest.point_id, point.status) == (second, "damaged")
    assert first in point.damage
    (tmp_path / "away").rename(points_of(root, guest) / first)
    assert [point.status for point in repository.list()] == ["ok", "ok"]


def test_an_unreadable_point_protects_what_it_may_stand_on(repository: LocalRepository, root: Path, guest: Guest) -> None:
    first, second = [point.manifest.point_id for point in chain_of(repository, guest, 2)]
    (points_of(root, guest) / second / "manifest.json").write_text("x")
    with pytest.raises(PointInUseError):
        repository.delete(guest.key, first)
    assert repository.delete(guest.key, second) is True
    assert repository.delete(guest.key, first) is True


def test_marks_that_cannot_be_read_are_taken_at_their_worst(repository: LocalRepository, root: Path, guest: Guest) -> None:
    point_id = guest.backup(repository).manifest.point_id
    machine = root / "machines" / guest.key
    for kind in ("damage", "immutable"):
        (machine / kind).mkdir()
        (machine / kind / f"{point_id}.json").write_text("{")
    (point,) = repository.list()
    assert (point.status, point.immutable_until) == ("damaged", "9999-12-31T23:59:59Z")
    with pytest.raises(PointImmutableError):
        repository.delete(guest.key, point_id)


# --- generations, partials, sweeping ----------------------------------------------------------------------------------


@pytest.mark.parametrize("content", [None, "", "x\n", "-3\n", "7", "9" * 40])
def test_a_lost_generation_is_told_from_the_points(repository: LocalRepository, root: Path, guest: Guest, content: str | None) -> None:
    chain_of(repository, guest, 2)
    guest.next_job().open(repository)
    path = root / "machines" / guest.key / "generation"
    path.unlink()
    if content is not None:
        path.write_text(content)
    assert repository.raise_generation(guest.key) == 4
    assert path.read_text() == "4\n"


def test_a_partial_point_with_an_unreadable_job_is_found_by_its_name(repository: LocalRepository, guest: Guest) -> None:
    job = guest.next_job()
    point = job.open(repository)
    (Path(point.path) / "job.json").write_text("{")
    (partial,) = repository.partials(guest.key)
    assert (partial.job_id, partial.generation) == (job.job_id[:8], 0)
    assert repository.abort(guest.key, "f" * 32) is False
    assert repository.abort(guest.key, partial.job_id) is True
    assert repository.partials(guest.key) == []


def test_leftovers_are_swept_and_nothing_else(repository: LocalRepository, root: Path, guest: Guest) -> None:
    point = guest.backup(repository)
    point_id = point.manifest.point_id
    partial = guest.next_job().open(repository).point_id
    points, machine = points_of(root, guest), root / "machines" / guest.key
    shutil.copytree(points / point_id, points / "20200101T000000Z-00000000.deleting")
    (points / "20200101T000000Z-00000001.preparing").mkdir()
    (points / "notes.txt").write_text("mine")
    (points / point_id / "job.json").write_text("{}")
    repository.mark_damaged(guest.key, point_id, "planted")
    (machine / "damage" / "20200101T000000Z-00000009.json").write_text("{}")
    (machine / "damage" / f".{point_id}.json.tmp").write_text("{}")
    assert sorted(repository.sweep(guest.key)) == [
        "20200101T000000Z-00000000.deleting",
        "20200101T000000Z-00000001.preparing",
        f"{point_id}/job.json",
        f"damage/.{point_id}.json.tmp",
        "damage/20200101T000000Z-00000009.json",
    ]
    assert repository.sweep(guest.key) == []
    assert sorted(os.listdir(points)) == sorted([point_id, f"{partial}.partial", "notes.txt"])
    assert os.listdir(machine / "damage") == [f"{point_id}.json"]


def test_a_change_waits_for_the_lock_for_a_stated_time(repository: LocalRepository, root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    repository.raise_generation("memory-a")
    with open(root / "machines/memory-a/lock", "rb") as other:
        fcntl.flock(other, fcntl.LOCK_EX)
        with pytest.raises(LeaseHeldError) as error, local_files.locked(str(root / "machines/memory-a/lock"), wait_s=0.1):
            raise AssertionError("two hold the lock")
    assert error.value.retryable
    assert repository.raise_generation("memory-a") == 2


# --- immutability by the file system ----------------------------------------------------------------------------------


def test_the_file_system_refuses_what_it_says_it_refuses(repository: LocalRepository, root: Path, guest: Guest) -> None:
    first, second = [point.manifest.point_id for point in chain_of(repository, guest, 2)]
    enforced = repository.set_immutable(guest.key, second, UNTIL)
    assert enforced == repository.capabilities().immutability
    attempts: List[str] = []
    for point_id in (first, second):
        directory = points_of(root, guest) / point_id
        for path in [*directory.iterdir(), directory]:
            try:
                os.rename(path, f"{path}.moved")
                os.rename(f"{path}.moved", path)
            except PermissionError:
                attempts.append(path.name)
    assert len(attempts) == (12 if enforced == "filesystem" else 0)
    third = guest.backup(repository, second)
    assert read_disks(repository, third)


def test_without_the_flag_the_answer_is_software(repository: LocalRepository, guest: Guest, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*arguments: object) -> bytes:
        raise OSError(95, "Operation not supported")

    point_id = guest.backup(repository).manifest.point_id
    monkeypatch.setattr(fcntl, "ioctl", refuse)
    assert repository.capabilities().immutability == "software"
    assert repository.set_immutable(guest.key, point_id, UNTIL) == "software"
    with pytest.raises(PointImmutableError):
        repository.delete(guest.key, point_id)


def test_flipped_really_changes_a_byte() -> None:
    assert flipped(b"abc", 1) == b"a" + bytes([ord("b") ^ 255]) + b"c"
