# Copyright: (c) 2026, Sendense contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The part of the repository contract that is about merges: what survives reads as before, what goes is offered no more."""

from __future__ import annotations

import random
from typing import Dict, List

import pytest

from ansible_collections.sendense.platform.plugins.module_utils.catalog.decision import choose_previous
from ansible_collections.sendense.platform.plugins.module_utils.errors import (
    FencedError,
    InvalidInputError,
    PointDamagedError,
    PointImmutableError,
    PointInUseError,
    PointNotFoundError,
    RepositoryFullError,
    VerificationFailedError,
)
from ansible_collections.sendense.platform.plugins.module_utils.repositories._base import Repository
from tests.contract.merge_steps import MERGE_JOB, VERIFIED, merged, move, prove_and_finish
from tests.contract.point_writer import Guest, read_disks
from tests.contract.repository_place import JOB, POINT, RepositoryPlace, chain_of, damage, ids_of

UNTIL = "2999-01-01T00:00:00Z"


def ids(repository: Repository, guest: Guest, length: int) -> List[str]:
    """A chain, by the ids of its points."""
    return [point.manifest.point_id for point in chain_of(repository, guest, length)]


def states(repository: Repository) -> Dict[str, str]:
    """Every point's status."""
    return {point.manifest.point_id: point.status for point in repository.list()}


def assert_right(repository: Repository, guest: Guest, *point_ids: str) -> None:
    """These points are sound, in all checks, and read as the guest was."""
    for point_id in point_ids:
        assert repository.structure_check(guest.key, point_id) == []
        assert repository.digest_check(guest.key, point_id) == []
        assert read_disks(repository, repository.get(guest.key, point_id)) == guest.contents[point_id]


class RepositoryMergingContract:
    """Part of :class:`RepositoryContract`; not to be subclassed by itself."""

    def test_a_run_in_the_middle_goes_into_the_next_point(self, place: RepositoryPlace, repository: Repository, guest: Guest) -> None:
        base, first, second, third, top = ids(repository, guest, 5)
        before = {point.manifest.point_id: point.manifest for point in repository.list()}
        survivor = merged(repository, guest.key, third, [first, second])
        again = place.open("")
        assert ids_of(again, guest) == [base, third, top]
        assert_right(again, guest, base, third, top)
        new, old = survivor.manifest, before[third]
        assert (new.parent_id, new.level, new.chain_depth, new.verified) == (base, "incremental", 1, VERIFIED)
        for name in ("point_id", "job_id", "generation", "created_at", "machine", "native", "nvram", "not_covered"):
            assert getattr(new, name) == getattr(old, name)
        assert [(disk.root, disk.change_id, disk.reason) for disk in new.disks] == [
            (disk.root, disk.change_id, disk.reason) for disk in old.disks
        ]
        assert again.get(guest.key, top).manifest == before[top]
        assert again.open_merges(guest.key) == [] and again.recover(guest.key) == []

    def test_the_full_itself_may_go(self, repository: Repository, guest: Guest) -> None:
        base, first, second, top = ids(repository, guest, 4)
        survivor = merged(repository, guest.key, second, [base, first]).manifest
        assert (survivor.parent_id, survivor.level, survivor.chain_depth) == ("", "full", 0)
        assert {(disk.level, disk.reason, disk.parent_id, disk.parent_root) for disk in survivor.disks} == {("full", "merged", "", "")}
        assert ids_of(repository, guest) == [second, top]
        assert_right(repository, guest, second, top)
        guest.scribble(9)
        assert choose_previous(repository.list()).point_id == top
        assert_right(repository, guest, guest.backup(repository, top).manifest.point_id)

    def test_a_chain_becomes_a_synthetic_full(self, repository: Repository, guest: Guest) -> None:
        base, first, second, top = ids(repository, guest, 4)
        survivor = merged(repository, guest.key, second, []).manifest
        assert (survivor.parent_id, survivor.level) == ("", "full")
        assert states(repository) == dict.fromkeys([base, first, second, top], "ok")
        assert_right(repository, guest, base, first, second, top)
        assert repository.delete(guest.key, first) is True
        assert_right(repository, guest, base, second, top)
        with pytest.raises(InvalidInputError):
            repository.begin_merge(guest.key, second, [], MERGE_JOB)

    def test_disks_that_are_full_in_between_come_and_go(self, repository: Repository, guest: Guest) -> None:
        base = guest.backup(repository).manifest.point_id
        guest.scribble(2)
        first = guest.backup(repository, base, {"serial-b"}).manifest.point_id
        guest.scribble(3)
        second = guest.backup(repository, first).manifest.point_id
        guest.scribble(4)
        third = guest.backup(repository, second, {"serial-a"}).manifest.point_id
        guest.scribble(5)
        top = guest.backup(repository, third).manifest.point_id
        survivor = merged(repository, guest.key, third, [first, second]).manifest
        assert {disk.id: disk.level for disk in survivor.disks} == {"serial-a": "full", "serial-b": "full"}
        assert (survivor.parent_id, survivor.level) == ("", "full")
        assert_right(repository, guest, base, third, top)

    def test_a_disk_that_was_removed_and_one_that_was_added(self, repository: Repository, guest: Guest) -> None:
        base = guest.backup(repository).manifest.point_id
        guest.scribble(2)
        first = guest.backup(repository, base).manifest.point_id
        gone = guest.unplug("serial-a")
        guest.plug("serial-c", 3 * 65536)
        guest.scribble(3)
        second = guest.backup(repository, first, {"serial-c"}).manifest.point_id
        guest.scribble(4)
        top = guest.backup(repository, second).manifest.point_id
        survivor = merged(repository, guest.key, second, [first]).manifest
        assert {disk.id: (disk.key, disk.level) for disk in survivor.disks} == {
            "serial-b": ("disk0", "incremental"),
            "serial-c": ("disk1", "full"),
        }
        assert survivor.parent_id == base and gone.id == "serial-a"
        assert_right(repository, guest, base, second, top)
        merged(repository, guest.key, second, [base])
        assert_right(repository, guest, second, top)

    @pytest.mark.parametrize("seed", range(4))
    def test_random_chains_are_merged_until_one_point_is_left(self, repository: Repository, seed: int) -> None:
        source = random.Random(seed)
        guest = Guest(
            sizes={"serial-a": 65536 * source.randrange(1, 12) + 512 * source.randrange(3), "serial-b": 512, "serial-c": 5 * 65536}
        )
        chain: List[str] = []
        for _number in range(6):
            for disk in guest.disks:
                for _write in range(source.randrange(5)):
                    disk.write(source.randrange(len(disk.blocks)), source.choice([0, 0, source.randrange(1, 256)]))
            fulls = {disk.id for disk in guest.disks if source.random() < 0.15}
            chain.append(guest.backup(repository, chain[-1] if chain else "", fulls).manifest.point_id)
        while len(chain) > 1:
            begin = source.randrange(len(chain) - 1)
            end = source.randrange(begin + 1, len(chain))
            consumed = self.linked(repository, guest, chain[begin:end], chain[end])
            if consumed:
                merged(repository, guest.key, chain[end], consumed)
                chain = [point_id for point_id in chain if point_id not in consumed]
            else:
                chain = [point_id for point_id in chain if point_id == chain[end] or chain.index(point_id) > end]
            assert_right(repository, guest, *chain)

    def linked(self, repository: Repository, guest: Guest, run: List[str], survivor: str) -> List[str]:
        """The part of a run that the survivor really stands on: a point in which every disk is full stands on nothing."""
        found: List[str] = []
        at = repository.get(guest.key, survivor).manifest.parent_id
        while at in run:
            found.insert(0, at)
            at = repository.get(guest.key, at).manifest.parent_id
        return found

    # --- while it is open -------------------------------------------------------------------------------------------

    def test_from_its_begin_on_what_is_consumed_is_not_offered(self, place: RepositoryPlace, repository: Repository, guest: Guest) -> None:
        base, first, second, third = ids(repository, guest, 4)
        opened = repository.begin_merge(guest.key, second, [first], MERGE_JOB)
        again = place.open("")
        wanted = {base: "ok", first: "merging", second: "ok", third: "ok"}
        assert states(again) == wanted
        assert [point.manifest.point_id for point in again.list() if point.damage] == []
        for name in ("open_for_read", "hash_files", "files", "structure_check", "digest_check"):
            with pytest.raises(PointNotFoundError):
                getattr(again, name)(guest.key, first)
        with pytest.raises(PointNotFoundError):
            guest.next_job().open(again, first)
        for point_id in (first, second):
            with pytest.raises(PointInUseError):
                again.delete(guest.key, point_id)
        for point_id in (second, third):
            with pytest.raises(PointInUseError):
                again.set_immutable(guest.key, point_id, UNTIL)
        move(opened)
        assert states(again) == wanted
        assert_right(again, guest, base, second, third)
        assert choose_previous(again.list()).point_id == third
        guest.scribble(7)
        newer = guest.backup(again, third).manifest.point_id
        assert_right(again, guest, newer)
        assert [merge.survivor for merge in again.open_merges(guest.key)] == [second]
        prove_and_finish(again, opened)
        assert_right(place.open(""), guest, base, second, third, newer)

    def test_an_open_merge_is_taken_over_and_its_former_job_is_fenced(
        self, place: RepositoryPlace, repository: Repository, guest: Guest
    ) -> None:
        base, first, second, top = ids(repository, guest, 4)
        stale = repository.begin_merge(guest.key, second, [first], JOB)
        with pytest.raises(PointInUseError):
            repository.begin_merge(guest.key, top, [second], MERGE_JOB)
        (found,) = place.open("").open_merges(guest.key)
        assert found == stale
        opened = place.open("").begin_merge(guest.key, found.survivor, found.consumed, MERGE_JOB)
        assert opened.disks == stale.disks
        for call in (repository.merged_images, repository.merged_hashes):
            with pytest.raises(FencedError):
                call(stale)
        with pytest.raises(FencedError):
            repository.finish_merge(stale, {}, VERIFIED)
        with pytest.raises(FencedError):
            repository.abandon_merge(guest.key, "planted", JOB)
        assert states(repository) == {base: "ok", first: "merging", second: "ok", top: "ok"}
        move(opened)
        done = prove_and_finish(repository, opened)
        digests = {disk.key: disk.file_digest for disk in done.manifest.disks}
        assert place.open("").finish_merge(opened, digests, VERIFIED) == done
        with pytest.raises(FencedError):
            repository.finish_merge(opened, dict.fromkeys(digests, "0" * 32), VERIFIED)
        assert_right(repository, guest, base, second, top)

    def test_a_result_that_is_not_complete_is_not_published(self, repository: Repository, guest: Guest) -> None:
        base, first, second = ids(repository, guest, 3)
        opened = repository.begin_merge(guest.key, second, [first], MERGE_JOB)
        move(opened)
        repository.merged_images(opened)
        with pytest.raises(VerificationFailedError):
            repository.finish_merge(opened, {"disk0": "0" * 32, "disk1": "0" * 32}, VERIFIED)  # no hashes yet
        repository.merged_hashes(opened)
        with pytest.raises(VerificationFailedError):
            repository.finish_merge(opened, {"disk0": "0" * 32}, VERIFIED)
        assert states(repository) == {base: "ok", first: "merging", second: "ok"}
        prove_and_finish(repository, opened)
        assert_right(repository, guest, base, second)

    def test_a_merge_that_cannot_be_proved_is_abandoned(self, place: RepositoryPlace, repository: Repository, guest: Guest) -> None:
        base, first, second, third = ids(repository, guest, 4)
        repository.begin_merge(guest.key, second, [first], MERGE_JOB)
        assert sorted(repository.abandon_merge(guest.key, "planted", MERGE_JOB)) == [first, second, third]
        assert place.open("").abandon_merge(guest.key, "planted", MERGE_JOB) == []
        assert states(place.open("")) == {base: "ok", first: "damaged", second: "damaged", third: "damaged"}
        for point_id in (third, second, first):
            assert repository.delete(guest.key, point_id) is True
        assert_right(repository, guest, base)
        guest.scribble(3)
        child = guest.backup(repository, base).manifest.point_id
        repository.begin_merge(guest.key, child, [], MERGE_JOB)
        assert repository.abandon_merge(guest.key, "planted", MERGE_JOB) == []
        assert_right(repository, guest, base, child)

    def test_a_survivor_that_is_damaged_meanwhile_is_not_published(self, repository: Repository, guest: Guest) -> None:
        base, first, second, third = ids(repository, guest, 4)
        opened = repository.begin_merge(guest.key, second, [first], MERGE_JOB)
        move(opened)
        assert sorted(repository.mark_damaged(guest.key, second, "planted")) == [second, third]
        with pytest.raises(PointDamagedError):
            prove_and_finish(repository, opened)
        with pytest.raises(PointDamagedError):
            repository.begin_merge(guest.key, second, [first], MERGE_JOB)
        assert sorted(repository.abandon_merge(guest.key, "planted", MERGE_JOB)) == [first]
        assert states(repository) == {base: "ok", first: "damaged", second: "damaged", third: "damaged"}

    # --- what is refused --------------------------------------------------------------------------------------------

    def test_what_may_not_be_merged_is_refused_and_nothing_changes(
        self, place: RepositoryPlace, repository: Repository, guest: Guest
    ) -> None:
        base, first, second, third = ids(repository, guest, 4)
        sibling = guest.backup(repository, first).manifest.point_id
        before = repository.list()
        refused = [
            (second, [first], PointInUseError),  # the sibling stands on it
            (third, [first], InvalidInputError),
            (third, [second, first], InvalidInputError),
            (base, [], InvalidInputError),
            (base, [first], InvalidInputError),
            (POINT, [first], PointNotFoundError),
            (second, [POINT], PointNotFoundError),
            ("../x", [first], InvalidInputError),
            (second, ["../x"], InvalidInputError),
        ]
        for survivor, consumed, error in refused:
            with pytest.raises(error):
                repository.begin_merge(guest.key, survivor, consumed, MERGE_JOB)
        with pytest.raises(InvalidInputError):
            repository.begin_merge(guest.key, third, [second], "--job")
        assert place.open("").list() == before and repository.open_merges(guest.key) == []
        assert_right(repository, guest, base, first, second, third, sibling)

    def test_a_point_that_is_being_written_is_a_dependant(self, repository: Repository, guest: Guest) -> None:
        base, first, second = ids(repository, guest, 3)
        job = guest.next_job()
        job.open(repository, first)
        with pytest.raises(PointInUseError):
            repository.begin_merge(guest.key, second, [first], MERGE_JOB)
        repository.abort(guest.key, job.job_id)
        merged(repository, guest.key, second, [first])
        assert_right(repository, guest, base, second)

    def test_immutable_points_are_not_touched_until_their_time(self, place: RepositoryPlace, repository: Repository, guest: Guest) -> None:
        place.wait_until("2026-11-20T13:00:00Z")
        base, first, second, third = ids(repository, guest, 4)
        repository.set_immutable(guest.key, second, "2026-12-01T00:00:00Z")
        for survivor, consumed in ((second, [first]), (first, [base]), (second, []), (third, [second])):
            with pytest.raises(PointImmutableError):
                place.open("").begin_merge(guest.key, survivor, consumed, MERGE_JOB)
        assert repository.open_merges(guest.key) == []
        place.wait_until("2026-12-01T00:00:00Z")
        merged(repository, guest.key, second, [first])
        assert_right(repository, guest, base, second, third)

    def test_a_damaged_chain_is_not_merged(self, repository: Repository, guest: Guest) -> None:
        points = chain_of(repository, guest, 3)
        base, first, second = [point.manifest.point_id for point in points]
        damage(repository, points[1], "cut")
        with pytest.raises(PointDamagedError):
            repository.begin_merge(guest.key, second, [first], MERGE_JOB)
        assert states(repository) == {base: "ok", first: "damaged", second: "damaged"}
        assert repository.open_merges(guest.key) == []

    def test_a_synthetic_full_needs_its_space(self, place: RepositoryPlace, repository: Repository, guest: Guest) -> None:
        base, first = ids(repository, guest, 2)
        place.exhaust()
        with pytest.raises(RepositoryFullError):
            place.open("").begin_merge(guest.key, first, [], MERGE_JOB)
        assert repository.open_merges(guest.key) == []
        assert_right(repository, guest, base, first)
