# Copyright: (c) 2026, Sendense contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What is promised as stored is stored, in order, and a process that is killed at any step breaks nothing."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any, Callable, List, Tuple

import pytest

from ansible_collections.sendense.platform.plugins.module_utils.errors import PointNotFoundError
from ansible_collections.sendense.platform.plugins.module_utils.repositories.local import LocalRepository
from ansible_collections.sendense.platform.plugins.module_utils.repositories.seal import seal
from ansible_collections.sendense.platform.plugins.module_utils.steps import HOOK_VARIABLE
from tests.contract.point_writer import Guest, read_disks
from tests.integration.repositories.interrupted_writer import prepared_guest

ROOT = Path(__file__).resolve().parents[3]
BACKUP_STEPS = (
    "generation:raised",
    "create:partial-made",
    "create:images-made",
    "reread:files-synced",
    "seal:files-adopted",
    "commit:files-synced",
    "commit:manifest-written",
    "commit:renamed",
)
DELETE_STEPS = ("delete:released", "delete:renamed", "delete:removed")


def run_until(tmp_path: Path, operation: str, step: str) -> Tuple[LocalRepository, List[str]]:
    """The repository after the operation was killed at the step, and the steps that it reached."""
    hook = tmp_path / "hook"
    hook.write_text("")
    (tmp_path / "hook.kill").write_text(f"{step}\n")
    argv = [sys.executable, "-m", "tests.integration.repositories.interrupted_writer", str(tmp_path / "repository"), operation, str(hook)]
    environment = {**os.environ, "PYTHONPATH": f"{ROOT / 'collections'}:{ROOT}"}
    done = subprocess.run(argv, env=environment, cwd=ROOT, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == (-signal.SIGKILL if step else 0), done.stderr
    steps = [line.split()[0] for line in hook.read_text().splitlines()]
    return LocalRepository(str(tmp_path / "repository"), reserve_bytes=0), steps


def test_the_steps_of_a_backup_are_the_commit_protocol_in_its_order(tmp_path: Path) -> None:
    repository, reached = run_until(tmp_path, "backup", "")
    assert reached == list(BACKUP_STEPS)
    assert len(repository.list()) == 2


@pytest.mark.parametrize("step", BACKUP_STEPS)
def test_a_backup_killed_at_any_step_is_all_or_nothing(tmp_path: Path, step: str) -> None:
    repository, reached = run_until(tmp_path, "backup", step)
    assert reached[-1] == step
    guest = prepared_guest()
    before = {disk.id: disk.content() for disk in guest.disks}
    guest.jobs = 2
    committed = step == "commit:renamed"
    points = repository.list()
    assert [point.status for point in points] == ["ok"] * (1 + committed)
    assert read_disks(repository, points[0]) == before
    partials = repository.partials(guest.key)
    assert [partial.parent_id for partial in partials] == (
        [] if committed or step == "generation:raised" else [points[0].manifest.point_id]
    )
    for partial in partials:
        assert repository.abort(guest.key, partial.job_id) is True
    guest.scribble(2)
    second = {disk.id: disk.content() for disk in guest.disks}
    if committed:
        assert read_disks(repository, points[1]) == second
    guest.contents = {point.manifest.point_id: content for point, content in zip(points, [before, second], strict=False)}
    guest.scribble(3)
    point = guest.backup(repository, points[-1].manifest.point_id)
    assert read_disks(repository, point) == guest.contents[point.manifest.point_id]
    names = [path.name for path in (tmp_path / "repository").rglob("*")]
    assert [name for name in names if name == "job.json" or ".tmp" in name or ".partial" in name] == []


@pytest.mark.parametrize("step", DELETE_STEPS)
def test_a_deletion_killed_at_any_step_leaves_a_whole_point_or_none(tmp_path: Path, step: str) -> None:
    repository, _reached = run_until(tmp_path, "delete", step)
    guest = prepared_guest()
    listed = repository.list()
    if step == "delete:released":
        assert read_disks(repository, listed[0]) == {disk.id: disk.content() for disk in guest.disks}
        repository.delete(guest.key, listed[0].manifest.point_id)
    else:
        assert listed == []
    repository.raise_generation(guest.key)
    assert os.listdir(tmp_path / "repository/machines" / guest.key / "points") == []


def test_a_marking_that_is_killed_has_marked_the_point_itself(tmp_path: Path) -> None:
    repository, _reached = run_until(tmp_path, "damage", "damage:marked")
    assert [point.status for point in repository.list()] == ["damaged"]


class Recorder:
    """Flushes and renames in the order in which they are made."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.events: List[str] = []
        for name in ("fsync", "rename"):
            monkeypatch.setattr(os, name, self.wrap(name, getattr(os, name)))

    def wrap(self, name: str, real: Callable[..., Any]) -> Callable[..., Any]:
        def call(target: Any, *arguments: Any) -> Any:
            path = os.readlink(f"/proc/self/fd/{target}") if isinstance(target, int) else target
            short = os.path.basename(path) if os.path.basename(path)[:1] in (".", "d", "m", "n", "j", "p", "g") else "POINT"
            self.events.append(f"{name} {short}")
            return real(target, *arguments)

        return call


def test_commit_flushes_before_it_renames_and_the_directory_after(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    repository = LocalRepository(str(tmp_path / "repository"), reserve_bytes=0)
    repository.initialise()
    guest = Guest(sizes={"serial-a": 65536})
    job = guest.next_job()
    point = job.open(repository)
    job.write(point)
    with tempfile.TemporaryDirectory() as work:
        manifest = seal(repository, point, job.sealing(Path(work)))
    recorder = Recorder(monkeypatch)
    repository.reread_images(point)
    reread = len(recorder.events)
    assert set(recorder.events) >= {"fsync disk0.qcow2", "fsync POINT"}
    repository.commit(point, manifest)
    assert recorder.events[reread:] == [
        "fsync disk0.hashes",
        "fsync disk0.qcow2",
        "fsync job.json",
        "fsync machine.native",
        "fsync nvram.fd",
        "fsync POINT",
        "fsync .manifest.json.tmp",
        "rename .manifest.json.tmp",
        "fsync POINT",
        "rename POINT",
        "fsync points",
        "fsync POINT",
    ]


def test_a_generation_is_stored_before_it_is_returned(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    repository = LocalRepository(str(tmp_path / "repository"))
    repository.initialise()
    repository.raise_generation("memory-a")
    recorder = Recorder(monkeypatch)
    repository.raise_generation("memory-a")
    assert recorder.events == ["fsync .generation.tmp", "rename .generation.tmp", "fsync memory-a"]


def test_the_hook_does_nothing_unless_its_file_exists(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(HOOK_VARIABLE, str(tmp_path / "absent"))
    (tmp_path / "absent.kill").write_text("generation:raised\n")
    repository = LocalRepository(str(tmp_path / "repository"))
    repository.initialise()
    assert repository.raise_generation("memory-a") == 1
    assert not (tmp_path / "absent").exists()
    with pytest.raises(PointNotFoundError):
        repository.get("memory-a", "20261120T115400Z-0123abcd")
