# Copyright: (c) 2026, Sendense contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The hub's half of the audit, on a real repository: samples, what is kept of an incarnation, and who is suspect."""

from __future__ import annotations

import tempfile
from dataclasses import replace
from pathlib import Path
from typing import Any, Dict, Iterator, List

import pytest

from ansible_collections.sendense.platform.plugins.module_utils.datapath.blockhashes import BlockHashFile
from ansible_collections.sendense.platform.plugins.module_utils.datapath.hashing import BLOCK_BYTES, DEFAULT_ALGORITHM, algorithm
from ansible_collections.sendense.platform.plugins.module_utils.datapath.keeper_client import KeeperClient
from ansible_collections.sendense.platform.plugins.module_utils.errors import PointNotFoundError
from ansible_collections.sendense.platform.plugins.module_utils.hubstate.jobs import JobDir
from ansible_collections.sendense.platform.plugins.module_utils.hubstate.statedir import StateDir
from ansible_collections.sendense.platform.plugins.module_utils.jobs.auditing import condemn, outcome, write_samples
from ansible_collections.sendense.platform.plugins.module_utils.jobs.info import describe_point
from ansible_collections.sendense.platform.plugins.module_utils.jobs.place import JobPlace
from ansible_collections.sendense.platform.plugins.module_utils.repositories.local import LocalRepository
from tests.contract.point_writer import Guest

JOB = "0123456789abcdef0123456789abcdef"
NOW = {"host": "boot-1", "run": "3", "began": ""}
BIG = {"serial-a": 130 * BLOCK_BYTES, "serial-b": 3 * BLOCK_BYTES + 512}


@pytest.fixture
def repository(tmp_path: Path) -> LocalRepository:
    found = LocalRepository(str(tmp_path / "repository"), reserve_bytes=0)
    found.initialise()
    return found


@pytest.fixture
def guest() -> Guest:
    guest = Guest(sizes=BIG)
    guest.scribble(1)
    return guest


@pytest.fixture
def place(guest: Guest) -> Iterator[JobPlace]:
    with tempfile.TemporaryDirectory(prefix="sj-") as short:
        state = StateDir(short).create()
        job = JobDir.create(state, JOB, "hub", {"machine_key": guest.key})
        assert job.lock is not None
        try:
            yield JobPlace(state, job, KeeperClient(job.socket_path), "")
        finally:
            job.lock.release()


def order(guest: Guest, parent_id: str, **extra: Any) -> Dict[str, Any]:
    disks = [{"key": f"disk{at}", "id": disk.id, "size_bytes": disk.size, "level": "incremental"} for at, disk in enumerate(guest.disks)]
    return {"disks": disks, "parent_id": parent_id, "audit": {}, "incarnation": {}, **extra}


def chain_of(repository: LocalRepository, guest: Guest, length: int) -> List[str]:
    ids: List[str] = []
    for seed in range(length):
        guest.scribble(seed + 2)
        ids.append(guest.backup(repository, ids[-1] if ids else "").manifest.point_id)
    return ids


def test_a_sample_has_the_digests_of_the_disk_as_the_whole_chain_has_it(repository: LocalRepository, guest: Guest, place: JobPlace) -> None:
    newest = chain_of(repository, guest, 3)[-1]
    hasher = algorithm(DEFAULT_ALGORITHM)
    seen = set()
    for generation in range(3):
        answer = write_samples(place, repository, order(guest, newest), generation)
        assert (answer["in_full"], answer["reason"], sorted(answer["files"])) == (False, "", ["disk0", "disk1"])
        for disk, path in zip(guest.disks, (answer["files"]["disk0"], answer["files"]["disk1"]), strict=True):
            with BlockHashFile(path) as sample:
                blocks = dict(sample.held())
            assert len(blocks) == min(64, len(disk.blocks))
            seen |= {(disk.id, block) for block in blocks}
            for block, digest in blocks.items():
                assert digest == hasher.digest_of(bytes([disk.blocks[block]]) * disk.length(block)), (disk.id, block)
    assert len(seen) == sum(len(disk.blocks) for disk in guest.disks), "three samples of 64 leave none of 130 blocks out"


def test_the_walk_goes_on_by_its_own_count_and_leaves_nothing_out(
    repository: LocalRepository, guest: Guest, place: JobPlace, monkeypatch: pytest.MonkeyPatch
) -> None:
    guest.unplug("serial-b")
    newest = chain_of(repository, guest, 1)[-1]
    policy = {"share": 50.0}
    seen = set()
    for generation in (2, 4):  # a prune between the two has raised it
        answer = write_samples(place, repository, order(guest, newest, audit=policy), generation)
        with BlockHashFile(answer["files"]["disk0"]) as sample:
            seen |= {block for block, _digest in sample.held()}
        _result, versions = outcome(place, [{"key": "disk0", "audit": {"blocks_checked": 65, "error": None}}], NOW)
        committed(repository, versions, monkeypatch)
    assert len(seen) == 130


def test_a_full_hands_the_turn_of_the_walk_on(
    repository: LocalRepository, guest: Guest, place: JobPlace, monkeypatch: pytest.MonkeyPatch
) -> None:
    newest = chain_of(repository, guest, 1)[-1]
    write_samples(place, repository, order(guest, newest), 7)
    assert outcome(place, [], NOW)[1]["audit_turn"] == "8"
    committed(repository, {"audit_turn": "8"}, monkeypatch)
    write_samples(place, repository, dict(order(guest, ""), disks=[]), 20)
    assert outcome(place, [], NOW)[1]["audit_turn"] == "8"


def committed(repository: LocalRepository, versions: Dict[str, str], monkeypatch: pytest.MonkeyPatch) -> None:
    """As if the newest point had been committed with these versions."""
    points = LocalRepository.list(repository)
    points[-1].manifest = replace(points[-1].manifest, versions=versions)
    monkeypatch.setattr(repository, "list", lambda wanted=None: points)


def test_full_disks_and_a_share_of_nothing_have_no_sample(repository: LocalRepository, guest: Guest, place: JobPlace) -> None:
    newest = chain_of(repository, guest, 1)[-1]
    params = order(guest, newest)
    params["disks"][1]["level"] = "full"
    assert list(write_samples(place, repository, params, 1)["files"]) == ["disk0"]
    assert write_samples(place, repository, order(guest, newest, audit={"share": 0}), 1)["files"] == {}
    for disk in params["disks"]:
        disk["level"] = "full"
    assert write_samples(place, repository, dict(params, parent_id=""), 1)["files"] == {}


def test_a_changed_disk_set_is_followed_by_an_audit_of_all_blocks(repository: LocalRepository, guest: Guest, place: JobPlace) -> None:
    newest = chain_of(repository, guest, 1)[-1]
    guest.unplug("serial-b")
    answer = write_samples(place, repository, order(guest, newest, audit={"share": 0}), 1)
    assert (answer["in_full"], answer["reason"]) == (True, "disks_changed")
    with BlockHashFile(answer["files"]["disk0"]) as sample:
        assert sample.header.block_count == 130


@pytest.mark.parametrize("audited", [True, False])
def test_an_audit_that_is_due_stays_due_until_it_is_completed(
    repository: LocalRepository, guest: Guest, place: JobPlace, audited: bool
) -> None:
    newest = chain_of(repository, guest, 1)[-1]
    guest.unplug("serial-b")
    write_samples(place, repository, order(guest, newest), 1)
    error = None if audited else {"msg": "cannot read", "error_code": "COPY_FAILED"}
    copied = [{"key": "disk0", "audit": {"ok": audited, "blocks_checked": 130 if audited else 7, "error": error}}]
    result, versions = outcome(place, copied, NOW)
    assert result["failed"] == ([] if audited else ["cannot read"])
    assert versions.get("source_host", "") == ("boot-1" if audited else "")
    assert versions["audited"] == ("all" if audited else "sample")


def lie(blocks: List[int], complete: bool = True) -> Dict[str, Any]:
    return {"disk_id": "serial-a", "count": len(blocks) if complete else 5000, "blocks": blocks, "complete": complete}


@pytest.mark.parametrize(
    ("held_by", "complete", "suspects"),
    [((0,), True, (1, 2, 3)), ((0, 2), True, (3,)), ((0, 3), True, ()), ((), True, (1, 2, 3)), ((0, 3), False, (1, 2, 3))],
)
def test_suspect_are_the_points_after_the_newest_that_read_the_block(
    repository: LocalRepository, guest: Guest, held_by: tuple[int, ...], complete: bool, suspects: tuple[int, ...]
) -> None:
    ids: List[str] = []
    for position in range(4):
        guest.disks[0].write(99, 1)
        if position in held_by:
            guest.disks[0].write(50, 7 + position)
        ids.append(guest.backup(repository, ids[-1] if ids else "").manifest.point_id)
    answer = condemn(repository, guest.key, ids[-1], [lie([50], complete)])
    assert answer["marked"] == [ids[at] for at in suspects]
    listed = {point.manifest.point_id: point for point in repository.list()}
    assert [listed[one].status for one in ids] == ["damaged" if at in suspects else "ok" for at in range(4)]
    assert "audit found" in describe_point(listed[ids[-1]])["distrusted"]
    assert condemn(repository, guest.key, ids[-1], [lie([50], complete)])["marked"] == []


def test_the_oldest_suspect_of_all_blocks_and_disks_counts(repository: LocalRepository, guest: Guest) -> None:
    ids: List[str] = []
    for position in range(4):
        guest.disks[0].write(50 + position, 7)
        guest.disks[1].write(position % 3, 9)
        ids.append(guest.backup(repository, ids[-1] if ids else "").manifest.point_id)
    other = {"disk_id": "serial-b", "count": 1, "blocks": [2], "complete": True}
    assert condemn(repository, guest.key, ids[-1], [lie([53]), other])["marked"] == ids[3:]
    assert condemn(repository, guest.key, ids[-1], [lie([53, 51])])["marked"] == ids[2:3]


def test_what_another_run_built_on_the_parent_meanwhile_is_suspect_too(repository: LocalRepository, guest: Guest) -> None:
    """The hub's keeper was killed, so the machine was free before the play could say what it had found."""
    first = chain_of(repository, guest, 1)[-1]
    guest.disks[0].write(129, 5)
    parent = guest.backup(repository, first).manifest.point_id
    guest.disks[0].write(1, 77)
    late = guest.backup(repository, parent).manifest.point_id
    assert condemn(repository, guest.key, parent, [lie([129])])["marked"] == [late]
    assert {point.manifest.point_id: point.status for point in repository.list()} == {first: "ok", parent: "ok", late: "damaged"}


def test_a_lie_about_a_point_that_is_not_there_marks_nothing(repository: LocalRepository, guest: Guest) -> None:
    ids = chain_of(repository, guest, 2)
    with pytest.raises(PointNotFoundError):
        condemn(repository, guest.key, "20261120T120000Z-00000000", [lie([1])])
    assert [(point.status, point.distrusted) for point in repository.list()] == [("ok", "")] * len(ids)
