# Copyright: (c) 2026, Sendense contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The contract of a repository as a suite: every backend subclasses it and supplies :meth:`place`.

Nothing in here knows how a backend stores anything; data goes in and out through real qemu tools.
"""

from __future__ import annotations

import tempfile
from dataclasses import replace
from pathlib import Path
from typing import List

import pytest

from ansible_collections.sendense.platform.plugins.module_utils.errors import (
    FencedError,
    InvalidInputError,
    JobRunningError,
    PointNotFoundError,
    RepositoryFullError,
    RepositoryMismatchError,
    RepositoryMissingError,
    VerificationFailedError,
)
from ansible_collections.sendense.platform.plugins.module_utils.repositories._base import PointFilter, Repository
from ansible_collections.sendense.platform.plugins.module_utils.repositories.seal import seal
from tests.contract.point_writer import NVRAM, OTHER_MACHINE_ID, Guest, read_disks
from tests.contract.repository_merging import RepositoryMergingContract
from tests.contract.repository_place import JOB, OTHER_REPOSITORY, POINT, RepositoryPlace, calls, chain_of, flipped, ids_of, stop_after
from tests.contract.repository_trouble import RepositoryTroubleContract


class RepositoryContract(RepositoryTroubleContract, RepositoryMergingContract):
    """Subclass it as ``Test...`` and implement :meth:`place`."""

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
