# Copyright: (c) 2026, Sendense contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The part of the repository contract that is about trouble: damage, deletion, immutability, hostile names."""

from __future__ import annotations

import os
import tempfile
from abc import ABC, abstractmethod
from pathlib import Path
from typing import Any, Iterator

import pytest

from ansible_collections.sendense.platform.plugins.module_utils.catalog.decision import choose_previous, known_change_ids
from ansible_collections.sendense.platform.plugins.module_utils.errors import (
    InvalidInputError,
    PointDamagedError,
    PointImmutableError,
    PointInUseError,
    PointNotFoundError,
)
from ansible_collections.sendense.platform.plugins.module_utils.repositories._base import Repository
from ansible_collections.sendense.platform.plugins.module_utils.repositories.seal import seal
from tests.contract.point_writer import OTHER_MACHINE_ID, Guest, read_disks
from tests.contract.repository_place import (
    HOSTILE,
    LISTS_EVERYTHING,
    POINT,
    WITH_POINT,
    RepositoryPlace,
    calls,
    chain_of,
    damage,
    flipped,
    ids_of,
    image_paths,
)


class RepositoryTroubleContract(ABC):
    """Part of :class:`RepositoryContract`; not to be subclassed by itself."""

    @abstractmethod
    def place(self, *fixtures: Any) -> Iterator[RepositoryPlace]:
        """A pytest fixture: storage that was never initialised; afterwards nothing of it is left."""

    @pytest.fixture(autouse=True)
    def no_flushes(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """Thousands of flushes of a busy disk are slow, and prove nothing here: backends test theirs by themselves."""
        monkeypatch.setattr(os, "fsync", lambda descriptor: None)

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

    def test_nothing_is_built_on_a_distrusted_point_which_stays_what_it_is(
        self, place: RepositoryPlace, repository: Repository, guest: Guest
    ) -> None:
        first, newest = [point.manifest.point_id for point in chain_of(repository, guest, 2)]
        assert repository.distrust(guest.key, newest, "planted") is True
        assert repository.distrust(guest.key, newest, "another word") is False
        again = place.open("")
        assert [(point.status, point.distrusted) for point in again.list()] == [("ok", ""), ("ok", "planted")]
        assert (choose_previous(again.list()).reason, known_change_ids(again.list())) == ("tracking_lied", [])
        assert read_disks(again, again.get(guest.key, newest)) == guest.contents[newest]
        full = guest.backup(repository).manifest.point_id
        assert choose_previous(again.list()).point_id == full
        assert repository.delete(guest.key, newest) and repository.delete(guest.key, first)
        assert [point.distrusted for point in again.list()] == [""]
        with pytest.raises(PointNotFoundError):
            again.distrust(guest.key, POINT, "planted")

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
