# Copyright: (c) 2026, Sendense contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What the doctor finds in a repository: each kind planted for real, found, explained, mended; the second time nothing is done."""

from __future__ import annotations

import multiprocessing
import os
import shutil
import signal
import subprocess
import tempfile
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Callable, Dict, Iterator, List

import pytest

from ansible_collections.sendense.platform.plugins.module_utils.hubstate.jobs import JobDir
from ansible_collections.sendense.platform.plugins.module_utils.hubstate.locks import FileLease
from ansible_collections.sendense.platform.plugins.module_utils.hubstate.statedir import StateDir
from ansible_collections.sendense.platform.plugins.module_utils.jobs.backup import lease_name
from ansible_collections.sendense.platform.plugins.module_utils.jobs.doctor.examination import examine_hub
from ansible_collections.sendense.platform.plugins.module_utils.jobs.doctor.kinds import KINDS, MENDABLE, Diagnosis
from ansible_collections.sendense.platform.plugins.module_utils.jobs.doctor.storage import examine_machine, examine_storage, mend_machine
from ansible_collections.sendense.platform.plugins.module_utils.repositories.local import LocalRepository
from ansible_collections.sendense.platform.plugins.module_utils.steps import HOOK_VARIABLE
from tests.contract.merge_steps import MERGE_JOB, merged, move, prove_and_finish
from tests.contract.point_writer import Guest, Job, read_disks
from tests.contract.repository_place import chain_of, damage, flipped
from tests.contract.test_repository_local import release

SMALL = {"serial-a": 2 * 65536}
#: The tests' backups are of the day before.
NOW = datetime(2026, 11, 21, tzinfo=UTC).timestamp()


@pytest.fixture
def root(tmp_path: Path) -> Iterator[Path]:
    yield tmp_path / "repository"
    release(tmp_path / "repository")


@pytest.fixture
def repository(root: Path) -> LocalRepository:
    repository = LocalRepository(str(root), reserve_bytes=0)
    repository.initialise()
    return repository


@pytest.fixture
def state() -> Iterator[StateDir]:
    path = tempfile.mkdtemp(prefix="sdd")
    yield StateDir(path)
    shutil.rmtree(path)


@pytest.fixture
def guest() -> Guest:
    return Guest(sizes=SMALL)


def look(repository: LocalRepository, state: StateDir, guest: Guest, digests: bool = False) -> List[Diagnosis]:
    return examine_machine(repository, state, guest.key, digests, NOW)


def kinds(found: List[Diagnosis]) -> List[str]:
    return sorted(one.kind for one in found)


def mended(repository: LocalRepository, state: StateDir, guest: Guest, digests: bool = False) -> List[Diagnosis]:
    found = look(repository, state, guest, digests)
    mend_machine(repository, state, guest.key, found, MENDABLE)
    return found


def params(root: Path, state: StateDir, **changes: object) -> Dict[str, object]:
    given: Dict[str, object] = {"state_dir": state.path, "mend": [], "machines": [], "inventory": [], "digests": False}
    return {**given, "repository": {"path": str(root), "id": "", "reserve_bytes": 0}, **changes}


def test_a_healthy_repository_has_no_findings(repository: LocalRepository, root: Path, state: StateDir, guest: Guest) -> None:
    chain_of(repository, guest, 3)
    assert look(repository, state, guest, digests=True) == []
    found, usable = examine_storage(repository, {"path": str(root), "reserve_bytes": 0})
    assert usable and kinds(found) in ([], ["no_direct_io"])
    assert (found == []) == repository.capabilities().direct_reread
    assert os.listdir(state.path) == []


# --- damage -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("planted", "kind"),
    [("cut", "file_changed"), ("append", "file_changed"), ("header", "image_wrong"), ("backing", "image_wrong"), ("gone", "file_missing")]
    + [("hashes", "hashes_wrong"), ("link", "file_missing")],
)
@pytest.mark.parametrize("at", [0, 1, 2])
def test_damage_is_found_with_its_dependants_and_marked(
    repository: LocalRepository, state: StateDir, guest: Guest, planted: str, kind: str, at: int
) -> None:
    points = [point.manifest.point_id for point in chain_of(repository, guest, 3)]
    damage(repository, repository.get(guest.key, points[at]), planted)
    (found,) = look(repository, state, guest)
    assert (found.kind, found.details["point_id"], found.mendable) == (kind, points[at], True)
    assert found.details["dependants"] == points[at + 1 :]
    assert {point.status for point in repository.list()} == {"ok"}

    (one,) = mended(repository, state, guest)
    assert one.mended
    after = look(repository, state, guest)
    assert kinds(after) == (["no_sound_point", "point_damaged"] if at == 0 else ["point_damaged"])
    damaged = next(one for one in after if one.kind == "point_damaged")
    assert (damaged.object, damaged.details["dependants"], damaged.mendable) == (points[at], points[at + 1 :], False)
    assert not any(one.mended for one in mended(repository, state, guest))
    for point_id in points[:at]:
        assert read_disks(repository, repository.get(guest.key, point_id)) == guest.contents[point_id]


def test_swapped_images_are_found(repository: LocalRepository, root: Path, state: StateDir, guest: Guest) -> None:
    points = [Path(root, "machines", guest.key, "points", point.manifest.point_id) for point in chain_of(repository, guest, 3)]
    paths = [point / "disk0.qcow2" for point in points]
    aside = root / "aside"
    for source, target in ((paths[1], aside), (paths[2], paths[1]), (aside, paths[2])):
        source.rename(target)
    found = look(repository, state, guest)
    assert {one.details["point_id"] for one in found} == {points[1].name, points[2].name}
    assert set(kinds(found)) <= {"image_wrong", "file_changed"}


def test_a_looped_image_is_found_and_never_opened(repository: LocalRepository, root: Path, state: StateDir, guest: Guest) -> None:
    newest = chain_of(repository, guest, 2)[-1].manifest.point_id
    image = root / "machines" / guest.key / "points" / newest / "disk0.qcow2"
    size = image.stat().st_size
    subprocess.run(["qemu-img", "rebase", "-u", "-f", "qcow2", "-F", "qcow2", "-b", f"../{newest}/disk0.qcow2", str(image)], check=True)
    os.truncate(image, size)
    (found,) = look(repository, state, guest)
    assert (found.kind, found.details["point_id"]) == ("image_wrong", newest) and "its backing file is" in found.found


def test_images_of_one_shape_in_each_others_place_are_found_by_their_digests(
    repository: LocalRepository, root: Path, state: StateDir, guest: Guest
) -> None:
    points = []
    for seed in (3, 4):
        guest.scribble(seed)
        points.append(guest.backup(repository).manifest.point_id)
    image = root / "machines" / guest.key / "points" / points[0] / "disk0.qcow2"
    image.write_bytes(flipped(image.read_bytes(), image.stat().st_size - 1))
    assert look(repository, state, guest) == []
    (found,) = mended(repository, state, guest, digests=True)
    assert (found.kind, found.details["check"], found.mended) == ("file_changed", "digest", True)
    assert kinds(look(repository, state, guest, digests=True)) == ["point_damaged"]


def test_an_unreadable_manifest_and_a_missing_parent(repository: LocalRepository, root: Path, state: StateDir, guest: Guest) -> None:
    points = [point.manifest.point_id for point in chain_of(repository, guest, 3)]
    folder = root / "machines" / guest.key / "points"
    manifest = folder / points[0] / "manifest.json"
    kept = manifest.read_bytes()
    manifest.write_bytes(flipped(kept, len(kept) // 2))
    found = look(repository, state, guest)
    assert kinds(found) == ["manifest_unreadable", "no_sound_point"]
    first = next(one for one in found if one.kind == "manifest_unreadable")
    assert (first.object, first.details["dependants"], first.mendable) == (points[0], points[1:], False)
    manifest.write_bytes(kept)
    (folder / points[0]).rename(root / "moved")
    (found_chain, _none) = look(repository, state, guest)
    assert (found_chain.kind, found_chain.object, found_chain.details["dependants"]) == ("chain_broken", points[1], points[2:])
    (root / "moved").rename(folder / points[0])
    assert look(repository, state, guest) == []


def test_manifests_in_a_circle_are_found(repository: LocalRepository, root: Path, state: StateDir, guest: Guest) -> None:
    points = chain_of(repository, guest, 3)
    above = points[2].manifest.point_id
    disks = [replace(disk, parent_id=above) for disk in points[1].manifest.disks]
    looped = replace(points[1].manifest, parent_id=above, disks=disks)
    (root / "machines" / guest.key / "points" / looped.point_id / "manifest.json").write_text(looped.to_text())
    assert kinds(look(repository, state, guest)) == ["chain_broken", "chain_broken"]


# --- partial points ---------------------------------------------------------------------------------------------------


def test_the_partial_of_a_dead_job_is_removed_and_that_of_a_living_one_stays(
    repository: LocalRepository, state: StateDir, guest: Guest
) -> None:
    point = guest.backup(repository)
    dead = guest.next_job().open(repository)
    alive = guest.next_job()
    held = JobDir.create(state.create(), alive.job_id, "hub", {"machine_key": guest.key})
    open_point = alive.open(repository, point.manifest.point_id)
    (found,) = mended(repository, state, guest)
    assert (found.kind, found.object, found.mended) == ("partial_orphan", dead.point_id, True)
    assert [partial.point_id for partial in repository.partials(guest.key)] == [open_point.point_id]
    assert look(repository, state, guest) == []
    held.remove()
    assert held.lock is not None
    held.lock.release()


def test_the_partial_of_another_hub_is_left_to_it(repository: LocalRepository, root: Path, state: StateDir, guest: Guest) -> None:
    guest.next_job().open(LocalRepository(str(root), reserve_bytes=0, hub_id="somewhere-else"))
    (found,) = mended(repository, state, guest)
    assert (found.kind, found.mendable, found.mended) == ("partial_of_other_hub", False, False)
    assert len(repository.partials(guest.key)) == 1


def test_nothing_is_mended_while_a_job_holds_the_machine(repository: LocalRepository, state: StateDir, guest: Guest) -> None:
    guest.next_job().open(repository)
    name = lease_name(repository.identity()["owner"], guest.key)
    lease = FileLease.acquire(os.path.join(state.create().leases, f"{name}.lease"), {"what": "a backup"})
    (found,) = mended(repository, state, guest)
    lease.release()
    assert not found.mended and "held by a backup" in found.why_not and len(repository.partials(guest.key)) == 1
    assert [one.mended for one in mended(repository, state, guest)] == [True]


# --- merges -----------------------------------------------------------------------------------------------------------


def test_a_merge_that_stopped_before_its_data_is_left_to_the_next_prune(repository: LocalRepository, state: StateDir, guest: Guest) -> None:
    points = [point.manifest.point_id for point in chain_of(repository, guest, 4)]
    opened = repository.begin_merge(guest.key, points[2], points[:2], MERGE_JOB)
    (found,) = mended(repository, state, guest)
    assert (found.kind, found.object, found.details["consumed"]) == ("merge_open", points[2], points[:2])
    assert not found.mended and "prune.yml" in found.why_not
    move(opened)
    assert kinds(look(repository, state, guest, digests=True)) == ["merge_open"]
    prove_and_finish(repository, repository.begin_merge(guest.key, points[2], points[:2], MERGE_JOB))
    assert look(repository, state, guest, digests=True) == []


def test_a_merge_of_a_living_job_is_no_finding(repository: LocalRepository, state: StateDir, guest: Guest) -> None:
    points = [point.manifest.point_id for point in chain_of(repository, guest, 3)]
    held = JobDir.create(state.create(), MERGE_JOB, "hub", {"machine_key": guest.key})
    repository.begin_merge(guest.key, points[1], points[:1], MERGE_JOB)
    assert look(repository, state, guest) == []
    held.remove()
    assert held.lock is not None
    held.lock.release()
    assert kinds(look(repository, state, guest)) == ["merge_open"]


@pytest.mark.parametrize("step", ["merge:prepared", "merge:exchanged", "merge:consumed-removed"])
def test_a_merge_that_was_killed_after_its_result_was_complete_is_finished(
    repository: LocalRepository, root: Path, tmp_path: Path, state: StateDir, guest: Guest, step: str
) -> None:
    points = [point.manifest.point_id for point in chain_of(repository, guest, 4)]
    hook = tmp_path / "hook"
    hook.touch()
    (tmp_path / "hook.kill").write_text(f"{step}\n")
    killed = multiprocessing.get_context("fork").Process(target=merge_with_hook, args=(str(hook), root, guest.key, points))
    killed.start()
    killed.join()
    assert killed.exitcode == -signal.SIGKILL
    assert kinds(look(repository, state, guest)) == ["merge_open"]
    assert [(one.kind, one.mended) for one in mended(repository, state, guest)] == [("merge_open", True)]
    assert look(repository, state, guest, digests=True) == []
    for point_id in points[2:]:
        assert read_disks(repository, repository.get(guest.key, point_id)) == guest.contents[point_id]


def merge_with_hook(hook: str, root: Path, key: str, points: List[str]) -> None:
    """In a process of its own, which the hook kills."""
    os.environ[HOOK_VARIABLE] = hook
    merged(LocalRepository(str(root), reserve_bytes=0), key, points[2], points[:2])


def test_a_journal_that_cannot_be_read(repository: LocalRepository, root: Path, state: StateDir, guest: Guest) -> None:
    points = [point.manifest.point_id for point in chain_of(repository, guest, 3)]
    repository.begin_merge(guest.key, points[1], points[:1], MERGE_JOB)
    (root / "machines" / guest.key / "merge.json").write_text("{")
    found = mended(repository, state, guest)
    assert {"merge_unreadable", "no_sound_point"} <= set(kinds(found)) and not any(one.mended for one in found)


def test_a_point_that_no_backup_builds_on(repository: LocalRepository, state: StateDir, guest: Guest) -> None:
    point_id = chain_of(repository, guest, 2)[-1].manifest.point_id
    repository.distrust(guest.key, point_id, "the audit found a lie")
    (found,) = mended(repository, state, guest)
    assert (found.kind, found.object, found.mended) == ("point_distrusted", point_id, False)


# --- time -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("created_at", "kind"), [("2999-01-01T00:00:00Z", "point_from_future"), ("2026-11-19T12:00:00Z", "points_out_of_order")]
)
def test_clocks_that_were_wrong(repository: LocalRepository, state: StateDir, guest: Guest, created_at: str, kind: str) -> None:
    first = guest.backup(repository)
    guest.jobs += 1
    guest.scribble(4)
    Job(guest, f"{guest.jobs:08x}" + "0" * 24, created_at).run(repository, first.manifest.point_id)
    (found,) = mended(repository, state, guest)
    assert (found.kind, found.mended) == (kind, False)


# --- the whole repository ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("plant", "options", "kind"),
    [
        (lambda root: (root / "sendense-repository.json").unlink(), {}, "repository_missing"),
        (lambda root: shutil.rmtree(root), {}, "repository_missing"),
        (lambda root: (root / "sendense-repository.json").write_text("{}"), {}, "repository_missing"),
        (lambda root: None, {"id": "00000000-0000-4000-8000-000000000000"}, "repository_mismatch"),
    ],
)
def test_a_repository_that_is_not_there_is_one_error_and_nothing_is_said_of_machines(
    repository: LocalRepository, root: Path, state: StateDir, guest: Guest, plant: Callable[[Path], object], options: dict, kind: str
) -> None:
    guest.backup(repository)
    plant(root)
    given = params(root, state, mend=["all"])
    given["repository"] = {**given["repository"], **options}  # type: ignore[dict-item]
    answer = examine_hub(given, False)
    assert [one["kind"] for one in answer["findings"]] == [kind]
    assert (answer["ok"], answer["changed"], answer["owner"], answer["known_change_ids"]) == (False, False, "", {})
    assert (
        answer["findings"][0]["meaning"] == KINDS[kind].meaning and "lost-repository-marker" in str(answer) or options or not root.exists()
    )


def test_what_the_storage_does_not_deliver_is_an_error_and_no_health(
    repository: LocalRepository, root: Path, state: StateDir, guest: Guest
) -> None:
    guest.backup(repository)
    (root / "machines" / guest.key / "damage").write_text("a file where a directory was")
    (found,) = mended(repository, state, guest)
    assert (found.kind, found.machine_key, found.mended) == ("repository_unreadable", guest.key, False)


def test_too_little_space_is_found(repository: LocalRepository, root: Path) -> None:
    found, usable = examine_storage(repository, {"path": str(root), "reserve_bytes": 1 << 62})
    assert usable and "space_low" in kinds(found)


def test_a_machine_that_left_the_inventory_is_reported_and_looked_at(
    repository: LocalRepository, root: Path, state: StateDir, guest: Guest
) -> None:
    other = Guest("6c9ce2d5-4f5e-4b7f-9a49-8c6f0ab1a002", SMALL)
    for one in (guest, other):
        one.scribble(3)
        one.backup(repository)
    other.next_job().open(repository)
    machine = {"platform": "memory", "machine_id": guest.machine.id}
    given = params(root, state, machines=[machine], inventory=[guest.key], mend=["partial_orphan"])
    answer = examine_hub(given, True)
    wanted = [("partial_orphan", other.key, "", False), ("source_gone", other.key, "", False)]
    without = [one for one in answer["findings"] if not one["kind"].startswith(("no_direct", "point_from"))]
    assert [(one["kind"], one["machine_key"], one["machine_id"], one["mended"]) for one in without] == wanted
    assert (answer["changed"], len(answer["would_mend"])) == (True, 1) and len(repository.partials(other.key)) == 1
    assert answer["known_change_ids"] == {guest.machine.id: ["1-serial-a"]}
    assert examine_hub(given, False)["changed"] is True
    assert examine_hub(given, False)["changed"] is False
    assert "source_gone" not in str(examine_hub(params(root, state, machines=[machine]), False)["findings"])
    assert "it has 1 backup here" in str(examine_hub(given, False)["findings"])


def test_a_repository_whose_machines_are_all_gone_is_looked_at(
    repository: LocalRepository, root: Path, state: StateDir, guest: Guest
) -> None:
    (point,) = chain_of(repository, guest, 1)
    (root / "machines" / guest.key / "points" / point.manifest.point_id / "disk0.qcow2").unlink()
    found = examine_hub(params(root, state), False)["findings"]
    assert ("file_missing", guest.key) in [(one["kind"], one["machine_key"]) for one in found]
    assert "source_gone" not in [one["kind"] for one in found]  # without an inventory nobody knows
