# Copyright: (c) 2026, Sendense contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""``backup_prune`` at a hub: what the policy keeps stays byte for byte, what goes is gone, what is held back is said."""

from __future__ import annotations

import subprocess
import time
from typing import Any

import pytest

from ansible_collections.sendense.platform.plugins.module_utils.datapath.images import allocated_ranges, node_filename, qcow2_node
from ansible_collections.sendense.platform.plugins.module_utils.errors import (
    ExpiryRefusedError,
    InvalidInputError,
    JobRunningError,
    PointNotFoundError,
    RepositoryFullError,
)
from ansible_collections.sendense.platform.plugins.module_utils.hubstate.locks import FileLease
from ansible_collections.sendense.platform.plugins.module_utils.jobs import expiry, merging, prune, verify
from ansible_collections.sendense.platform.plugins.module_utils.jobs.backup import lease_name as machine_lease
from ansible_collections.sendense.platform.plugins.module_utils.jobs.expiry import describe
from ansible_collections.sendense.platform.plugins.module_utils.jobs.point_leases import lease_name
from ansible_collections.sendense.platform.plugins.module_utils.repositories import local_exchange
from tests.contract.merge_steps import MERGE_JOB, move, prove_and_finish
from tests.contract.point_writer import Guest

from .conftest import Hub


def ids(rows: list[dict[str, Any]]) -> list[str]:
    return [row["point_id"] for row in rows]


def lease(hub: Hub, point_id: str = "", shared: bool = True) -> FileLease:
    """What another job would hold: a point for reading, or the machine."""
    owner = str(hub.repository.identity()["owner"])
    name = lease_name(owner, hub.guest.key, point_id) if point_id else machine_lease(owner, hub.guest.key)
    return FileLease.acquire(f"{hub.state.leases}/{name}.lease", {"job_id": "f" * 32}, shared=shared)


@pytest.fixture
def ten_days_later(monkeypatch: pytest.MonkeyPatch) -> None:
    """The backups were not made in the last days."""
    later = time.time() + 10 * 86400
    monkeypatch.setattr(expiry.time, "time", lambda: later)


def test_a_chain_is_merged_and_an_older_one_deleted(hub: Hub) -> None:
    old, new = hub.backups(3), hub.backups(6, full=True)
    before = sum(describe(point)["stored_bytes"] for point in hub.repository.list())
    result = hub.prune(keep_last=2)
    assert ids(result["deleted"]) == old and ids(result["kept"]) == new[4:]
    assert [(row["point_id"], row["into"]) for row in result["merged"]] == [(one, new[4]) for one in new[:4]]
    assert result["changed"] and result["left"] == [] and result["damaged"] == []
    assert hub.there() == new[4:] and hub.wrong() == []
    assert result["bytes_freed"] == before - sum(describe(point)["stored_bytes"] for point in hub.repository.list()) > 0
    assert hub.repository.get(hub.guest.key, new[4]).manifest.level == "full"
    assert hub.verify()["ok"]
    assert not hub.prune(keep_last=2)["changed"]


def test_several_runs_of_one_chain_are_merged_one_by_one(hub: Hub) -> None:
    made = hub.backups(7)
    hub.repository.set_immutable(hub.guest.key, made[1], "2099-01-01T00:00:00Z")
    result = hub.prune(keep_last=1)
    assert ids(result["merged"]) == made[2:6] and ids(result["left"]) == made[:2]
    assert all("immutable until 2099" in row["reasons"][-1] for row in result["left"])
    assert hub.there() == [*made[:2], made[6]] and hub.wrong() == [] and hub.verify()["ok"]
    assert not hub.prune(keep_last=1)["changed"]


def test_check_mode_touches_nothing_and_shows_what_would_go_and_why(hub: Hub, ten_days_later: None) -> None:
    made = hub.backups(5)
    result = hub.prune(check_mode=True, confirm_expiry=False, keep_last=1)
    assert result["changed"] and ids(result["merged"]) == made[:4] and hub.there() == made
    assert "4 of the machine's 5" in result["refused"]
    before, after = (result["diff"][name].splitlines() for name in ("before", "after"))
    assert [line for line in before if line not in after] == before[:4] and after == before[4:]
    assert before[0] == f"{made[0]} full ok: merged, no rule keeps it, merged into {made[4]}"
    assert before[4] == f"{made[4]} incremental ok: kept, number 1 of the newest 1 (keep_last); one of the newest 1 sound (minimum_sound)"


def test_the_guard_refuses_and_touches_nothing(hub: Hub, ten_days_later: None) -> None:
    made = hub.backups(5)
    with pytest.raises(ExpiryRefusedError, match="4 of the machine's 5 backups"):
        hub.prune(confirm_expiry=False, keep_last=1)
    assert hub.there() == made


@pytest.mark.parametrize(("read", "left"), [(0, 1), (1, 2), (2, 3), (3, 3), (4, 3)])
def test_points_that_are_read_are_left_for_another_day(hub: Hub, read: int, left: int) -> None:
    """A reader holds its point and all below; a merge needs all that stands on what it consumes."""
    made = hub.backups(5)
    readers = [lease(hub, point_id) for point_id in made[: read + 1]]
    try:
        result = hub.prune(keep_last=2)
    finally:
        for reader in readers:
            reader.release()
    assert ids(result["left"]) == made[:left] and ids(result["merged"]) == made[left:3] and hub.wrong() == []
    assert all("in use" in str(row["reasons"]) or "is working on point" in str(row["reasons"]) for row in result["left"])
    assert ids(hub.prune(keep_last=2)["merged"]) == made[:left] and hub.wrong() == []


def test_a_deletion_waits_for_a_reader_too(hub: Hub) -> None:
    old, new = hub.backups(2), hub.backups(1, full=True)
    reader = lease(hub, old[1])
    try:
        result = hub.prune(keep_last=1)
    finally:
        reader.release()
    assert ids(result["left"]) == old and not result["changed"]
    assert ids(hub.prune(keep_last=1)["deleted"]) == old and hub.there() == new


def test_a_machine_that_is_being_backed_up_is_left_alone(hub: Hub) -> None:
    made = hub.backups(3)
    job = lease(hub, shared=False)
    try:
        result = hub.prune(keep_last=1)
    finally:
        job.release()
    assert not result["changed"] and ids(result["left"]) == made[:2] and "f" * 32 in result["left"][0]["reasons"][-1]


def test_a_synthetic_full_is_written_once(hub: Hub) -> None:
    made = hub.backups(3)
    assert hub.prune(check_mode=True, keep_last=9, synthetic_full=True)["synthetic_full"] == made[2]
    result = hub.prune(keep_last=9, synthetic_full=True)
    assert result["synthetic_full"] == made[2] and result["changed"]
    assert hub.repository.get(hub.guest.key, made[2]).manifest.level == "full" and hub.wrong() == [] and hub.verify()["ok"]
    assert not hub.prune(keep_last=9, synthetic_full=True)["changed"]
    assert ids(hub.prune(keep_last=1)["deleted"]) == made[:2][::-1] or hub.there() == made[2:]


def test_damaged_points_are_never_merged_and_never_counted(hub: Hub) -> None:
    old, new = hub.backups(2), hub.backups(2, full=True)
    hub.repository.mark_damaged(hub.guest.key, new[1], "for a test")
    result = hub.prune(keep_last=1)
    assert ids(result["kept"]) == new and ids(result["deleted"]) == old
    assert hub.there() == new


def test_a_bad_block_in_a_consumed_point_is_found_and_said(hub: Hub) -> None:
    """The merge finds twice that its data is not what the hashes say; so the points are damaged, and no wrong one is sound."""
    made = []
    for number, block in enumerate((0, 5, 1, 2), 1):
        hub.guest.disks[0].write(block, number)
        made += hub.backups_as_is(1)
    manifest = hub.repository.get(hub.guest.key, made[1]).manifest
    path = hub.directory / "r" / "machines" / hub.guest.key / "points" / made[1] / manifest.disks[0].file
    content = bytearray(path.read_bytes())
    content[-4096] ^= 0x40
    path.write_bytes(content)
    result = hub.prune(keep_last=1, minimum_sound=0)
    assert result["damaged"] and made[3] in result["damaged"]
    assert hub.wrong() == [] and "ok" not in {point.status for point in hub.repository.list()}


def test_exactly_the_chosen_backups_go_by_deletion_and_by_merge(hub: Hub) -> None:
    old, new = hub.backups(2), hub.backups(3, full=True)
    plan = hub.remove(old[1], new[1], check_mode=True)
    assert (ids(plan["deleted"]), ids(plan["merged"]), plan["refused"], plan["changed"]) == (old[1:], new[1:2], "", True)
    assert f"{new[1]} incremental ok: merged, it was chosen, merged into {new[2]}" in plan["diff"]["before"]
    assert hub.there() == old + new
    result = hub.remove(old[1], new[1])
    assert (ids(result["deleted"]), ids(result["merged"]), ids(result["kept"])) == (old[1:], new[1:2], [old[0], new[0], new[2]])
    assert hub.there() == [old[0], new[0], new[2]] and hub.wrong() == [] and hub.verify()["ok"]
    with pytest.raises(PointNotFoundError, match=new[1]):
        hub.remove(new[0], new[1])
    assert hub.there() == [old[0], new[0], new[2]]


def test_of_chosen_backups_all_go_or_none(hub: Hub) -> None:
    made = hub.backups(4)
    hub.repository.set_immutable(hub.guest.key, made[1], "2099-01-01T00:00:00Z")
    reader = lease(hub, made[2])
    try:
        for chosen, why in (
            (made[1:4], "it is immutable until 2099"),
            (made[:1], "it is immutable until 2099"),
            (made[2:4], "it is in use by job f"),
        ):
            foreseen = hub.remove(*chosen, check_mode=True)["refused"]
            assert f"{chosen[0]} cannot go" in foreseen and why in foreseen
            with pytest.raises(ExpiryRefusedError, match=why):
                hub.remove(*chosen, confirm_expiry=True)
    finally:
        reader.release()
    assert hub.there() == made and hub.wrong() == []
    job = lease(hub, shared=False)
    try:
        with pytest.raises(JobRunningError):
            hub.remove(made[3])
    finally:
        job.release()
    assert ids(hub.remove(made[3])["deleted"]) == made[3:]


def test_the_last_sound_backup_is_removed_only_with_confirmation_and_a_damaged_one_with_what_stands_on_it(hub: Hub) -> None:
    old, new = hub.backups(3), hub.backups(1, full=True)
    hub.repository.mark_damaged(hub.guest.key, old[1], "for a test")
    with pytest.raises(ExpiryRefusedError, match="damaged"):
        hub.remove(old[1], confirm_expiry=True)
    assert ids(hub.remove(old[1], old[2])["deleted"]) == old[1:]
    with pytest.raises(ExpiryRefusedError, match="All 2 sound backups"):
        hub.remove(old[0], *new)
    assert ids(hub.remove(old[0], *new, confirm_expiry=True)["deleted"]) == [old[0], *new] and hub.there() == []


@pytest.mark.parametrize("policy", [{}, {"maximum_age_days": 5}, {"keep_last": 1, "timezone": "Nowhere/Land"}])
def test_a_policy_that_means_nothing_is_refused(hub: Hub, policy: dict[str, Any]) -> None:
    made = hub.backups(1)
    with pytest.raises(InvalidInputError):
        hub.prune(**policy)
    assert hub.there() == made


def test_an_unknown_key_is_refused_and_a_machine_without_backups_is_not(hub: Hub) -> None:
    hub.backups(1)
    hub.guest.machine.id = "6c9ce2d5-4f5e-4b7f-9a49-8c6f0ab1a0ff"
    hub.guest.key = hub.guest.machine.key
    with pytest.raises(InvalidInputError, match="no machine"):
        hub.prune(keep_last=1)
    nothing = dict(
        hub.params(policy={"keep_last": 1}, point_ids=[], confirm_expiry=False, synthetic_full=False), machine_key="", machine_id="unknown"
    )
    assert not prune.prune_points(nothing, False)["changed"]


def test_the_end_of_a_merge_that_was_cut_off_does_not_change_what_is_being_read(hub: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    made, key = hub.backups(5), hub.guest.key
    opened = hub.repository.begin_merge(key, made[3], made[1:3], MERGE_JOB)
    move(opened)
    with monkeypatch.context() as cut:
        cut.setattr(local_exchange, "finish", lambda paths, key: [])
        prove_and_finish(hub.repository, opened)
    serve = verify.start_readers

    def readers(place: Any, images: Any, sizes: Any) -> Any:
        uris = serve(place, images, sizes)
        if made[3] in images["disk0"]["file"]["filename"]:
            hub.repository.raise_generation(key)  # a backup begins meanwhile
        return uris

    monkeypatch.setattr(verify, "start_readers", readers)
    result = hub.verify()
    assert result["ok"] and result["marked"] == [], [point["damage"] for point in result["points"]]
    assert hub.there() == [made[0], *made[3:]] and hub.wrong() == []


def test_decay_beside_what_is_re_read_is_not_vouched_for_by_a_merge(hub: Hub) -> None:
    hub.guest = Guest(sizes={"serial-a": 64 * 65536})
    hub.guest.disks[0].write(40, 7)
    made = []
    for number in range(5):
        hub.guest.disks[0].write(number, 1 + number)
        made += hub.backups_as_is(1)
    key = hub.guest.key
    hub.repository.set_immutable(key, made[0], "2099-01-01T00:00:00Z")
    image = hub.directory / "r" / "machines" / key / "points" / made[1] / "disk0.qcow2"
    size = image.stat().st_size
    # One bit of an entry of a table: the block reads as zeros instead of as the full has it.
    subprocess.run(["qemu-io", "-c", f"write -z {40 * 65536} 65536", node_filename(qcow2_node(str(image)))], check=True, timeout=60)
    assert image.stat().st_size == size
    result = hub.prune(keep_last=2)
    assert result["damaged"] == made[1:] and ids(result["merged"]) == []
    assert hub.wrong() == [] and hub.repository.get(key, made[0]).status == "ok"


def test_a_synthetic_full_that_shows_damage_says_so_of_the_point(hub: Hub) -> None:
    made = hub.backups(3)
    image = hub.directory / "r" / "machines" / hub.guest.key / "points" / made[2] / "disk0.qcow2"
    [data, *_rest] = [extent for extent in allocated_ranges(str(image)) if extent.data]
    change = f"write -P 251 {data.offset} 512"
    subprocess.run(["qemu-io", "-c", change, node_filename(qcow2_node(str(image)))], check=True, timeout=60)
    result = hub.prune(keep_last=9, synthetic_full=True)
    assert (result["damaged"], result["synthetic_full"], result["changed"]) == ([made[2]], "", True)
    assert hub.wrong() == []


def test_half_a_synthetic_full_does_not_stay_on_a_storage_that_is_full(hub: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    made = hub.backups(3)

    def full(*arguments: Any) -> None:
        raise RepositoryFullError("planted")

    monkeypatch.setattr(merging, "_start_check", full)
    result = hub.prune(keep_last=9, synthetic_full=True)
    assert (result["damaged"], result["synthetic_full"]) == ([], "")
    assert hub.left_over() == [] and hub.there() == made and hub.wrong() == []
