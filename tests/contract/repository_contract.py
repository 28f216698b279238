# Copyright: (c) 2026, Sendense contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The contract of a repository as a suite: every backend subclasses it and supplies :meth:`place`.

Nothing in here knows how a backend stores anything; data goes in and out through real qemu tools.
"""

from __future__ import annotations

import os
import tempfile
from abc import ABC, abstractmethod
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Callable, Dict, Iterator, List

import pytest

from ansible_collections.sendense.platform.plugins.module_utils.catalog.decision import choose_previous, known_change_ids
from ansible_collections.sendense.platform.plugins.module_utils.errors import (
    FencedError,
    InvalidInputError,
    JobRunningError,
    PointDamagedError,
    PointImmutableError,
    PointInUseError,
    PointNotFoundError,
    RepositoryFullError,
    RepositoryMismatchError,
    RepositoryMissingError,
    VerificationFailedError,
)
from ansible_collections.sendense.platform.plugins.module_utils.repositories._base import OpenPoint, Point, PointFilter, Repository
from ansible_collections.sendense.platform.plugins.module_utils.repositories.seal import seal
from tests.contract.point_writer import NVRAM, OTHER_MACHINE_ID, Guest, read_disks

JOB = "0123456789abcdef0123456789abcdef"
POINT = "20261120T115400Z-0123abcd"
OTHER_REPOSITORY = "00000000-0000-4000-8000-000000000000"

HOSTILE = (
    "../../etc/passwd",
    "/etc/x",
    "a/b",
    "..",
    ".",
    "",
    "-rf",
    "--help",
    "memory-a\0b",
    "memory-a\nb",
    "$(id)",
    "{{ lookup('pipe','id') }}",
    "'; DROP TABLE",
    "memory-" + "a" * 300,
    "memory-\u202e",
    POINT + "/..",
    POINT + ".partial",
    POINT + "\n",
)


@dataclass
class RepositoryPlace:
    """Storage under test. ``open(repository_id)`` gives a fresh handle, as another process would have one."""

    open: Callable[[str], Repository]
    lose: Callable[[], None]
    """Take the storage's marker away, as if it were unmounted."""
    exhaust: Callable[[], None]
    """Make the storage claim that it has no free space."""
    wait_until: Callable[[str], None]
    """Let the handles' clock show this time."""


class RepositoryContract(ABC):
    """Subclass it as ``Test...`` and implement :meth:`place`."""

    @abstractmethod
    def place(self, *fixtures: Any) -> Iterator[RepositoryPlace]:
        """A pytest fixture: storage that was never initialised; afterwards nothing of it is left."""

    @pytest.fixture
    def repository(self, place: RepositoryPlace) -> Repository:
        repository = place.open("")
        assert repository.initialise() is True
        return repository

    @pytest.fixture
    def guest(self) -> Guest:
        guest = Guest()
        guest.scribble(1)
        return guest

    # --- identity ---------------------------------------------------------------------------------------------------

    def test_initialise_once_then_the_identity_stays(self, place: RepositoryPlace) -> None:
        assert place.open("").initialise("sha256") is True
        identity = place.open("").identity()
        assert place.open("").initialise() is False
        assert place.open(identity["repository_id"]).identity() == identity
        assert identity["owner"] == identity["repository_id"][:8]
        assert (identity["schema_version"], identity["hash_algorithm"]) == (1, "sha256")

    def test_nothing_works_before_it_is_initialised_and_nothing_is_made(self, place: RepositoryPlace) -> None:
        for name, call in calls(place.open(""), "memory-a", POINT).items():
            with pytest.raises(RepositoryMissingError):
                call()
            assert name
        assert place.open("").initialise() is True

    def test_a_lost_marker_stops_every_call_and_no_new_repository_takes_the_place(self, place: RepositoryPlace, guest: Guest) -> None:
        first = place.open("")
        first.initialise()
        identity = first.identity()["repository_id"]
        point = guest.backup(first)
        place.lose()
        for call in calls(place.open(identity), guest.key, point.manifest.point_id).values():
            with pytest.raises(RepositoryMissingError):
                call()
        with pytest.raises(RepositoryMissingError):
            place.open(identity).initialise()

    def test_another_repository_is_refused_by_every_call(self, place: RepositoryPlace, repository: Repository) -> None:
        other = place.open(OTHER_REPOSITORY)
        for call in [*calls(other, "memory-a", POINT).values(), other.initialise]:
            with pytest.raises(RepositoryMismatchError):
                call()

    def test_capabilities_and_space_are_stated(self, repository: Repository) -> None:
        stated = repository.capabilities()
        assert stated.immutability in ("none", "software", "filesystem", "storage")
        assert stated.incremental
        assert 0 < repository.space().free_bytes <= repository.space().total_bytes

    # --- writing and reading ----------------------------------------------------------------------------------------

    def test_full_and_incrementals_read_back_identical(self, place: RepositoryPlace, repository: Repository, guest: Guest) -> None:
        points = chain_of(repository, guest, 3)
        assert [point.manifest.level for point in points] == ["full", "incremental", "incremental"]
        for point in place.open("").list():
            assert read_disks(place.open(""), point) == guest.contents[point.manifest.point_id]
        assert place.open("").machines() == [guest.key]
        for point in points:
            assert place.open("").structure_check(guest.key, point.manifest.point_id) == []
            assert place.open("").digest_check(guest.key, point.manifest.point_id) == []

    def test_one_disk_in_full_inside_an_incremental_stands_alone(self, repository: Repository, guest: Guest) -> None:
        full = guest.backup(repository)
        guest.scribble(2)
        point = guest.backup(repository, full.manifest.point_id, {"serial-b"})
        levels = {disk.id: (disk.level, disk.parent_id) for disk in point.manifest.disks}
        assert levels == {"serial-a": ("incremental", full.manifest.point_id), "serial-b": ("full", "")}
        nodes = repository.open_for_read(guest.key, point.manifest.point_id)
        assert nodes["disk0"]["backing"] is not None and nodes["disk1"]["backing"] is None
        assert read_disks(repository, point) == guest.contents[point.manifest.point_id]
        guest.scribble(3)
        third = guest.backup(repository, point.manifest.point_id)
        assert read_disks(repository, third) == guest.contents[third.manifest.point_id]
        assert [len(paths) for paths in repository.hash_files(guest.key, third.manifest.point_id).values()] == [3, 2]

    def test_a_parent_under_which_every_disk_is_full_is_no_parent(self, repository: Repository, guest: Guest) -> None:
        full = guest.backup(repository)
        point = guest.backup(repository, full.manifest.point_id, {"serial-a", "serial-b"})
        assert (point.manifest.parent_id, point.manifest.level, point.manifest.chain_depth) == ("", "full", 0)

    def test_a_backup_of_nothing_changed_has_the_parents_roots(self, repository: Repository, guest: Guest) -> None:
        full = guest.backup(repository)
        point = guest.backup(repository, full.manifest.point_id)
        assert [disk.root for disk in point.manifest.disks] == [disk.root for disk in full.manifest.disks]
        assert [disk.parent_root for disk in point.manifest.disks] == [disk.root for disk in full.manifest.disks]

    def test_the_manifest_says_what_was_backed_up(self, repository: Repository, guest: Guest) -> None:
        guest.machine.name = "{{ lookup('pipe','touch pwned') }}; rm -rf \"$HOME\" /../x \u202e \ud800"
        manifest = guest.backup(repository).manifest
        assert manifest.machine_model() == guest.machine
        assert manifest.repository_id == repository.identity()["repository_id"]
        assert manifest.consistency == {"reached": "crash", "wanted": "filesystem", "reason": "no guest agent"}
        assert manifest.tpm == {"present": True, "covered": False} and manifest.not_covered == ["tpm state"]
        files = repository.files(guest.key, manifest.point_id)
        assert Path(files["nvram"]).read_bytes() == NVRAM
        assert guest.machine.name in Path(files["native"]).read_text("utf-8", "surrogatepass")

    def test_reading_what_is_not_there(self, repository: Repository, guest: Guest) -> None:
        guest.backup(repository)
        for name in ("get", "open_for_read", "hash_files", "files", "structure_check", "digest_check"):
            for key in (guest.key, "memory-nobody"):
                with pytest.raises(PointNotFoundError):
                    getattr(repository, name)(key, POINT)

    # --- listing ----------------------------------------------------------------------------------------------------

    def test_list_by_filter_oldest_first(self, repository: Repository, guest: Guest) -> None:
        ids = [point.manifest.point_id for point in chain_of(repository, guest, 3)]
        other = Guest(OTHER_MACHINE_ID, {"serial-c": 65536}).backup(repository)
        repository.mark_damaged(guest.key, ids[2], "planted")

        def found(**fields: str) -> List[str]:
            return [point.manifest.point_id for point in repository.list(PointFilter(**fields))]

        assert found(machine_key=guest.key) == ids
        assert sorted(found()) == sorted([*ids, other.manifest.point_id])
        assert found(machine_key=guest.key, level="incremental") == ids[1:]
        assert found(machine_key=guest.key, status="damaged") == ids[2:]
        assert found(machine_key=guest.key, status="ok") == ids[:2]
        assert found(machine_key=guest.key, since="2026-11-20T12:02:00Z") == ids[1:]
        assert found(machine_key=guest.key, until="2026-11-20T12:02:00+00:00") == ids[:2]
        assert found(machine_key="memory-nobody") == []
        with pytest.raises(InvalidInputError):
            found(since="yesterday")

    # --- generations ------------------------------------------------------------------------------------------------

    def test_generations_only_grow_across_handles(self, place: RepositoryPlace, repository: Repository) -> None:
        seen = [place.open("").raise_generation("memory-a") for _ in range(3)]
        assert seen == sorted(set(seen)) and seen[0] >= 1
        assert repository.raise_generation("memory-b") >= 1

    def test_a_stale_writer_is_fenced_at_commit_and_at_create(self, place: RepositoryPlace, repository: Repository, guest: Guest) -> None:
        full = guest.backup(repository)
        stale = guest.next_job()
        point = stale.open(repository)
        newer = place.open("").raise_generation(guest.key)
        stale.write(point)
        with pytest.raises(FencedError), tempfile.TemporaryDirectory() as work:
            repository.commit(point, seal(repository, point, stale.sealing(Path(work))))
        assert ids_of(repository, guest) == [full.manifest.point_id]
        late = guest.next_job()
        late.generation = newer - 1
        with pytest.raises(FencedError):
            late.create(repository)
        assert [partial.job_id for partial in repository.partials(guest.key)] == [stale.job_id]
        assert repository.abort(guest.key, stale.job_id) is True

    # --- commit and abort -------------------------------------------------------------------------------------------

    def test_commit_may_be_repeated_and_abort_after_it_touches_nothing(self, place: RepositoryPlace, repository: Repository) -> None:
        guest = Guest()
        job = guest.next_job()
        point = job.open(repository)
        job.write(point)
        with tempfile.TemporaryDirectory() as work:
            manifest = seal(repository, point, job.sealing(Path(work)))
            assert seal(repository, point, job.sealing(Path(work))).disks == manifest.disks
        committed = repository.commit(point, manifest)
        assert place.open("").commit(point, manifest) == committed
        repository.raise_generation(guest.key)
        assert place.open("").commit(point, manifest) == committed
        assert repository.abort(guest.key, job.job_id) is False
        assert read_disks(repository, committed) == job.contents

    def test_abort_removes_the_partial_point_of_its_job_only(self, place: RepositoryPlace, repository: Repository, guest: Guest) -> None:
        full = guest.backup(repository)
        first, second = guest.next_job(), guest.next_job()
        first.open(repository, full.manifest.point_id)
        open_point = second.open(repository, full.manifest.point_id)
        assert place.open("").abort(guest.key, first.job_id) is True
        assert place.open("").abort(guest.key, first.job_id) is False
        assert place.open("").abort(guest.key, JOB) is False
        assert place.open("").abort("memory-nobody", JOB) is False
        partials = place.open("").partials(guest.key)
        assert [replace(partial, images=open_point.images) for partial in partials] == [open_point]
        second.finish(repository, open_point)
        assert place.open("").partials(guest.key) == []

    def test_an_aborted_job_cannot_commit(self, repository: Repository, guest: Guest) -> None:
        job = guest.next_job()
        point = job.open(repository)
        job.write(point)
        with tempfile.TemporaryDirectory() as work:
            manifest = seal(repository, point, job.sealing(Path(work)))
        repository.abort(guest.key, job.job_id)
        with pytest.raises(PointNotFoundError):
            repository.commit(point, manifest)
        with pytest.raises(PointNotFoundError):
            repository.reread_images(point)
        assert ids_of(repository, guest) == []

    def test_a_job_has_one_point(self, repository: Repository, guest: Guest) -> None:
        job = guest.next_job()
        job.open(repository)
        with pytest.raises(JobRunningError):
            job.create(repository)
        assert len(repository.partials(guest.key)) == 1

    @pytest.mark.parametrize("done", ["nothing", "raised", "created", "written", "synced", "sealed"])
    def test_a_job_that_stops_anywhere_leaves_older_points_alone(
        self, place: RepositoryPlace, repository: Repository, guest: Guest, done: str
    ) -> None:
        points = chain_of(repository, guest, 2)
        before = [(point, read_disks(repository, point)) for point in repository.list()]
        guest.scribble(9)
        job = guest.next_job()
        stop_after(done, place.open(""), job, points[-1].manifest.point_id)
        again = place.open("")
        assert [(point, read_disks(again, point)) for point in again.list()] == before
        started = done not in ("nothing", "raised")
        assert [partial.job_id for partial in again.partials(guest.key)] == ([job.job_id] if started else [])
        assert again.abort(guest.key, job.job_id) is started
        assert again.partials(guest.key) == []
        after = guest.backup(again, points[-1].manifest.point_id)
        assert read_disks(again, after) == guest.contents[after.manifest.point_id]

    def test_a_manifest_of_something_else_is_not_committed(self, repository: Repository, guest: Guest) -> None:
        job = guest.next_job()
        point = job.open(repository)
        job.write(point)
        with tempfile.TemporaryDirectory() as work:
            manifest = seal(repository, point, job.sealing(Path(work)))
        disk = manifest.disks[0]
        wrong = [
            replace(manifest, job_id=JOB),
            replace(manifest, generation=manifest.generation + 1),
            replace(manifest, point_id=POINT),
            replace(manifest, disks=[replace(disk, file_size=disk.file_size + 1), manifest.disks[1]]),
            replace(manifest, disks=[replace(disk, size_bytes=disk.size_bytes + 512), manifest.disks[1]]),
            replace(manifest, disks=[replace(disk, hashes_sha256="0" * 64), manifest.disks[1]]),
        ]
        for one in wrong:
            with pytest.raises(VerificationFailedError):
                repository.commit(point, one)
        assert ids_of(repository, guest) == []
        assert repository.commit(point, manifest).status == "ok"

    def test_sealing_refuses_what_does_not_fit(self, repository: Repository, guest: Guest, tmp_path: Path) -> None:
        job = guest.next_job()
        point = job.open(repository)
        job.write(point)
        good = job.sealing(tmp_path)
        with pytest.raises(InvalidInputError):
            seal(repository, point, replace(good, copied={"disk0": good.copied["disk0"]}))
        with pytest.raises(VerificationFailedError):
            seal(repository, point, replace(good, hashes={"disk0": good.hashes["disk1"], "disk1": good.hashes["disk0"]}))
        damaged = tmp_path / "damaged"
        damaged.write_bytes(flipped(Path(good.hashes["disk0"]).read_bytes(), 70))
        with pytest.raises(VerificationFailedError):
            seal(repository, point, replace(good, hashes={**good.hashes, "disk0": str(damaged)}))
        assert ids_of(repository, guest) == []

    # --- refusals of create -----------------------------------------------------------------------------------------

    def test_create_refuses_what_cannot_become_a_point(self, repository: Repository, guest: Guest) -> None:
        full = guest.backup(repository)
        job = guest.next_job()
        job.generation = repository.raise_generation(guest.key)
        good = job.new_point(full.manifest.point_id)
        first = good.disks[0]
        bad = [
            replace(good, parent_id=""),
            replace(good, disks=[]),
            replace(good, disks=[first, first]),
            replace(good, disks=[replace(first, key="../disk0")]),
            replace(good, disks=[replace(first, level="half")]),
            replace(good, disks=[replace(first, size_bytes=first.size_bytes * 2)]),
            replace(good, disks=[replace(first, disk_id="another")]),
            replace(good, job_id="x"),
            replace(good, created_at="2026-02-30T00:00:00Z"),
        ]
        for new in bad:
            with pytest.raises(InvalidInputError):
                repository.create(new)
        with pytest.raises(PointNotFoundError):
            repository.create(replace(good, parent_id=POINT))
        assert repository.partials(guest.key) == []

    def test_no_space_refuses_before_anything_is_made(self, place: RepositoryPlace, repository: Repository, guest: Guest) -> None:
        job = guest.next_job()
        job.generation = repository.raise_generation(guest.key)
        with pytest.raises(RepositoryFullError):
            repository.create(replace(job.new_point(), expected_bytes=1 << 60))
        place.exhaust()
        with pytest.raises(RepositoryFullError) as error:
            job.create(place.open(""))
        assert error.value.retryable
        assert repository.partials(guest.key) == []

    # --- damage -----------------------------------------------------------------------------------------------------

    def test_damage_reaches_descendants_and_spares_the_others(self, place: RepositoryPlace, repository: Repository, guest: Guest) -> None:
        first, second, third = [point.manifest.point_id for point in chain_of(repository, guest, 3)]
        sibling = guest.backup(repository, first).manifest.point_id
        stranger = Guest(OTHER_MACHINE_ID, {"serial-c": 65536}).backup(repository)
        assert repository.mark_damaged(guest.key, second, "planted") == [second, third]
        assert repository.mark_damaged(guest.key, second, "planted") == []
        again = place.open("")
        assert {point.manifest.point_id: point.status for point in again.list()} == {
            first: "ok",
            second: "damaged",
            third: "damaged",
            sibling: "ok",
            stranger.manifest.point_id: "ok",
        }
        assert "planted" in again.get(guest.key, third).damage and second in again.get(guest.key, third).damage
        for point_id in (second, third):
            with pytest.raises(PointDamagedError):
                again.open_for_read(guest.key, point_id)
        assert read_disks(again, again.get(guest.key, sibling)) == guest.contents[sibling]
        with pytest.raises(PointNotFoundError):
            again.mark_damaged(guest.key, POINT, "planted")

    def test_a_damaged_newest_point_makes_the_next_backup_full(self, repository: Repository, guest: Guest) -> None:
        assert choose_previous(repository.list()).reason == "no_previous_backup"
        points = chain_of(repository, guest, 2)
        newest = points[-1].manifest.point_id
        assert choose_previous(repository.list()).point_id == newest
        assert known_change_ids(repository.list()) == ["2-serial-a", "2-serial-b"]
        repository.mark_damaged(guest.key, newest, "planted")
        assert choose_previous(repository.list()).reason == "previous_damaged"
        job = guest.next_job()
        with pytest.raises(PointDamagedError):
            job.open(repository, newest)
        assert repository.partials(guest.key) == []
        full = guest.backup(repository)
        assert choose_previous(repository.list()).point_id == full.manifest.point_id

    @pytest.mark.parametrize("member", [0, 1])
    @pytest.mark.parametrize("kind", ["cut", "append", "header", "backing", "hashes", "gone", "link"])
    def test_opening_a_damaged_chain_refuses_and_marks_it(self, repository: Repository, guest: Guest, kind: str, member: int) -> None:
        points = chain_of(repository, guest, 2)
        ids = [point.manifest.point_id for point in points]
        damage(repository, points[member], kind)
        assert {finding.point_id for finding in repository.structure_check(guest.key, ids[1])} == {ids[member]}
        job = guest.next_job()
        with pytest.raises(PointDamagedError) as error:
            job.open(repository, ids[1])
        assert error.value.details["point_id"] == ids[member]
        assert repository.partials(guest.key) == []
        assert [point.status for point in repository.list()] == (["ok", "damaged"] if member else ["damaged", "damaged"])
        with pytest.raises(PointDamagedError):
            repository.open_for_read(guest.key, ids[1])
        full = guest.backup(repository)
        assert read_disks(repository, full) == guest.contents[full.manifest.point_id]

    def test_digests_find_every_flip_and_structure_needs_no_data(self, repository: Repository, guest: Guest) -> None:
        point = chain_of(repository, guest, 2)[1]
        path = Path(image_paths(repository, point)["disk0"])
        size = path.stat().st_size
        good = path.read_bytes()
        for offset in [size - 1, size // 2, size // 3, *range(200 * 1024, size, 97 * 1024)]:
            path.write_bytes(flipped(good, offset))
            found = repository.digest_check(guest.key, point.manifest.point_id)
            assert [(finding.disk, finding.kind) for finding in found] == [("disk0", "digest")]
        path.write_bytes(good)
        assert repository.digest_check(guest.key, point.manifest.point_id) == []
        for name, other in repository.files(guest.key, point.manifest.point_id).items():
            Path(other).write_bytes(flipped(Path(other).read_bytes(), 3))
            assert len(repository.digest_check(guest.key, point.manifest.point_id)) == (1 if name == "native" else 2)
        with pytest.raises(PointDamagedError):
            repository.files(guest.key, point.manifest.point_id)

    def test_a_parent_that_is_damaged_while_its_child_is_written_takes_no_child(self, repository: Repository, guest: Guest) -> None:
        full = guest.backup(repository)
        job = guest.next_job()
        point = job.open(repository, full.manifest.point_id)
        job.write(point)
        with tempfile.TemporaryDirectory() as work:
            manifest = seal(repository, point, job.sealing(Path(work)))
        repository.mark_damaged(guest.key, full.manifest.point_id, "planted")
        with pytest.raises(PointDamagedError):
            repository.commit(point, manifest)
        assert ids_of(repository, guest) == [full.manifest.point_id]

    # --- deletion and immutability ----------------------------------------------------------------------------------

    def test_delete_takes_leaves_only_and_may_be_repeated(self, place: RepositoryPlace, repository: Repository, guest: Guest) -> None:
        first, second = [point.manifest.point_id for point in chain_of(repository, guest, 2)]
        with pytest.raises(PointInUseError):
            repository.delete(guest.key, first)
        assert repository.delete(guest.key, second) is True
        assert place.open("").delete(guest.key, second) is False
        assert repository.delete("memory-nobody", second) is False
        job = guest.next_job()
        job.open(repository, first)
        with pytest.raises(PointInUseError):
            repository.delete(guest.key, first)
        repository.abort(guest.key, job.job_id)
        generation = repository.raise_generation(guest.key)
        assert repository.delete(guest.key, first) is True
        assert place.open("").list() == []
        assert repository.raise_generation(guest.key) > generation

    def test_a_deleted_points_marks_do_not_outlive_it(self, place: RepositoryPlace, repository: Repository) -> None:
        guest = Guest(sizes={"serial-c": 65536})
        job = guest.next_job()
        point = job.run(repository)
        repository.mark_damaged(guest.key, point.manifest.point_id, "planted")
        repository.delete(guest.key, point.manifest.point_id)
        again = job.run(place.open(""))
        assert (again.manifest.point_id, again.status) == (point.manifest.point_id, "ok")

    def test_immutable_until_a_time_that_never_gets_shorter(self, place: RepositoryPlace, repository: Repository, guest: Guest) -> None:
        first, second = [point.manifest.point_id for point in chain_of(repository, guest, 2)]
        place.wait_until("2026-11-20T13:00:00Z")
        stated = repository.capabilities().immutability
        assert repository.set_immutable(guest.key, second, "2026-12-01T00:00:00Z") == stated
        assert repository.set_immutable(guest.key, second, "2026-11-25T00:00:00Z") == stated
        assert [point.immutable_until for point in repository.list()] == ["2026-12-01T00:00:00Z"] * 2
        for now in ("2026-11-20T13:00:00Z", "2026-11-30T23:59:59Z"):
            place.wait_until(now)
            with pytest.raises(PointImmutableError):
                place.open("").delete(guest.key, second)
        guest.scribble(5)
        third = guest.backup(repository, second)
        assert read_disks(repository, third) == guest.contents[third.manifest.point_id]
        repository.mark_damaged(guest.key, third.manifest.point_id, "planted")
        place.wait_until("2026-12-01T00:00:00Z")
        for point_id in (third.manifest.point_id, second, first):
            assert place.open("").delete(guest.key, point_id) is True
        assert repository.list() == []

    def test_immutability_refuses_bad_times_and_missing_points(self, repository: Repository, guest: Guest) -> None:
        point_id = guest.backup(repository).manifest.point_id
        for until in ("tomorrow", "2026-13-01T00:00:00Z", "2026-12-01T00:00:00+02:00", ""):
            with pytest.raises(InvalidInputError):
                repository.set_immutable(guest.key, point_id, until)
        with pytest.raises(PointNotFoundError):
            repository.set_immutable(guest.key, POINT, "2026-12-01T00:00:00Z")
        assert repository.get(guest.key, point_id).immutable_until == ""

    # --- hostile names ----------------------------------------------------------------------------------------------

    @pytest.mark.parametrize("name", HOSTILE)
    def test_hostile_keys_and_ids_never_get_near_the_storage(self, repository: Repository, tmp_path: Path, name: str) -> None:
        before = sorted(os.listdir(tmp_path.parent))
        for title, call in calls(repository, name, POINT).items():
            if title not in LISTS_EVERYTHING or name:
                with pytest.raises(InvalidInputError):
                    call()
        for call in [repository_call for title, repository_call in calls(repository, "memory-a", name).items() if title in WITH_POINT]:
            with pytest.raises(InvalidInputError):
                call()
        with pytest.raises(InvalidInputError):
            repository.abort("memory-a", name)
        assert repository.machines() == []
        assert sorted(os.listdir(tmp_path.parent)) == before


WITH_POINT = {
    "get", "open_for_read", "hash_files", "files", "structure_check", "digest_check", "mark_damaged", "delete", "set_immutable",
}  # fmt: skip
LISTS_EVERYTHING = {"list"}


def calls(repository: Repository, key: str, point_id: str) -> Dict[str, Callable[[], Any]]:
    """Every method that needs an initialised repository and takes a machine, with plausible arguments otherwise."""
    guest = Guest(sizes={"serial-c": 65536})
    job = guest.next_job()
    new = replace(job.new_point(), machine_key=key, generation=1)
    point = OpenPoint(key, JOB, 1, POINT, "/nonexistent", "")
    with_machine: Dict[str, Callable[[], Any]] = {
        "list": lambda: repository.list(PointFilter(machine_key=key)),
        "raise_generation": lambda: repository.raise_generation(key),
        "create": lambda: repository.create(new),
        "reread_images": lambda: repository.reread_images(point),
        "abort": lambda: repository.abort(key, JOB),
        "partials": lambda: repository.partials(key),
        "mark_damaged": lambda: repository.mark_damaged(key, point_id, "planted"),
        "set_immutable": lambda: repository.set_immutable(key, point_id, "2027-01-01T00:00:00Z"),
    }
    for name in sorted(WITH_POINT - set(with_machine)):
        with_machine[name] = lambda name=name: getattr(repository, name)(key, point_id)
    return with_machine


def chain_of(repository: Repository, guest: Guest, length: int) -> List[Point]:
    """A full and its incrementals."""
    points: List[Point] = []
    for seed in range(length):
        guest.scribble(seed + 3)
        points.append(guest.backup(repository, points[-1].manifest.point_id if points else ""))
    return points


def ids_of(repository: Repository, guest: Guest) -> List[str]:
    """Ids of the guest's points, oldest first."""
    return [point.manifest.point_id for point in repository.list(PointFilter(machine_key=guest.key))]


def stop_after(done: str, repository: Repository, job: Any, parent_id: str) -> None:
    """Run a job up to the named step, and no further."""
    if done == "nothing":
        return
    job.generation = repository.raise_generation(job.guest.key)
    if done == "raised":
        return
    point = job.create(repository, parent_id)
    if done == "created":
        return
    job.write(point)
    if done == "written":
        return
    repository.reread_images(point)
    if done == "sealed":
        with tempfile.TemporaryDirectory() as work:
            seal(repository, point, job.sealing(Path(work)))


def image_paths(repository: Repository, point: Point) -> Dict[str, str]:
    """Image files of a point by disk key."""
    nodes = repository.open_for_read(point.manifest.machine_key, point.manifest.point_id)
    return {key: node["file"]["filename"] for key, node in nodes.items()}


def flipped(content: bytes, offset: int) -> bytes:
    """The content with one byte inverted: XOR, because a fixed value might be there already."""
    return content[:offset] + bytes([content[offset] ^ 0xFF]) + content[offset + 1 :]


def damage(repository: Repository, point: Point, kind: str) -> None:
    """Damage the first disk of a point as storage, or somebody, might."""
    path = Path(image_paths(repository, point)["disk0"])
    hashes = Path(repository.hash_files(point.manifest.machine_key, point.manifest.point_id)["disk0"][-1])
    content = path.read_bytes()
    if kind == "cut":
        path.write_bytes(content[:-1])
    elif kind == "append":
        path.write_bytes(content + b"\0")
    elif kind == "header":
        path.write_bytes(flipped(content, 31))
    elif kind == "backing":
        path.write_bytes(content[:8] + bytes(12) + content[20:] if b"../" in content[:1024] else with_backing(content))
    elif kind == "hashes":
        hashes.write_bytes(flipped(hashes.read_bytes(), 100))
    elif kind == "gone":
        path.unlink()
    elif kind == "link":
        target = path.with_name("elsewhere")
        path.rename(target)
        path.symlink_to(target)


def with_backing(content: bytes) -> bytes:
    """The image with a backing file named in its header, behind which a secret of the host may lie."""
    name = b"/etc/passwd"
    return content[:8] + (512).to_bytes(8, "big") + len(name).to_bytes(4, "big") + content[20:512] + name + content[512 + len(name) :]
