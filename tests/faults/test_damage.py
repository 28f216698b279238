# Copyright: (c) 2026, Sendense contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Flips and truncations of stored points: each is found, in the point and all that stands on it, and nowhere else."""

from __future__ import annotations

import os
import random
import shutil
import sys
import time
from pathlib import Path
from typing import Any, Dict, List

import pytest

from ansible_collections.sendense.platform.plugins.module_utils.agent.build import build_agent
from ansible_collections.sendense.platform.plugins.module_utils.catalog.decision import choose_previous
from ansible_collections.sendense.platform.plugins.module_utils.errors import PointDamagedError
from ansible_collections.sendense.platform.plugins.module_utils.jobs.place import new_job_id
from ansible_collections.sendense.platform.plugins.module_utils.jobs.verify import verify_points
from ansible_collections.sendense.platform.plugins.module_utils.repositories.local import LocalRepository

from .fleet import Fleet
from .oracle import sha256

#: File of a point and what is done to it, for base, middle and top.
EVERYWHERE = [
    ("disk0.qcow2", "flip"),
    ("disk0.qcow2", "cut 1"),
    ("disk1.qcow2", "flip"),
    ("disk0.hashes", "flip"),
    ("manifest.json", "flip"),
    ("manifest.json", "cut 7"),
]
ONCE = [
    (0, "machine.native", "flip"),
    (0, "disk0.qcow2", "cut 65536"),
    (1, "disk0.qcow2", "append"),
    (2, "disk0.hashes", "cut 512"),
    (2, "disk1.qcow2", "cut 4096"),
]
DAMAGES = ONCE + [(position, name, how) for position in range(3) for name, how in EVERYWHERE]


def test_every_damage_is_found_where_it_is(fleet: Fleet, tmp_path: Path) -> None:
    assert len(DAMAGES) >= 20
    fleet.add("m00")
    for _number in range(3):
        fleet.backup()
        fleet.scribble()
    key, points = fleet.key("m00"), [point.manifest.point_id for point in fleet.oracle.repository.list()]
    agent = _agent(tmp_path)
    assert _verify(fleet.site.repository, key, fleet.site.hub_state, agent)["ok"] is True

    began, source = time.monotonic(), random.Random(fleet.seed)
    for number, (position, name, how) in enumerate(DAMAGES):
        copy = tmp_path / f"copy{number}"
        shutil.copytree(fleet.site.repository, copy)
        damage(copy / "machines" / key / "points" / points[position] / name, how, source)
        result = _verify(str(copy), key, fleet.site.hub_state, agent)
        bad = [point["point_id"] for point in result["points"] if not point["ok"]]
        assert (result["ok"], bad) == (False, points[position:]), (position, name, how, result)
        _refuses(copy, key, points, position)
        shutil.rmtree(copy)
    print(f"{len(DAMAGES)} of {len(DAMAGES)} damages found in {time.monotonic() - began:.0f} s")
    assert fleet.oracle.jobs() + fleet.oracle.leaks() == []


def _refuses(copy: Path, key: str, points: List[str], position: int) -> None:
    """What is damaged cannot be opened, what is below still can, and the next backup is a full one."""
    repository = LocalRepository(str(copy))
    listed = repository.list()
    assert [point.manifest.point_id or "?" for point in listed if point.status == "ok"] == points[:position]
    assert choose_previous(listed).reason == "previous_damaged"
    for number, point_id in enumerate(points):
        if number < position:
            assert repository.open_for_read(key, point_id)
        else:
            with pytest.raises(PointDamagedError):
                repository.open_for_read(key, point_id)


def test_after_damage_the_playbooks_say_so_and_the_next_backup_is_full(fleet: Fleet, tmp_path: Path) -> None:
    fleet.add("m00").backup()
    fleet.scribble()
    fleet.backup()
    base = fleet.oracle.repository.list()[0].manifest.point_id
    image = Path(fleet.site.repository, "machines", fleet.key("m00"), "points", base, "disk0.qcow2")
    damage(image, "flip", fleet.random)

    verified = fleet.site.play("verify", "m00", {"verify_vm_all_points": True}, ok=False)
    assert verified.returncode != 0
    assert [point.status for point in fleet.oracle.repository.list()] == ["damaged", "damaged"]
    restored = fleet.site.play("restore", "m00", {"restore_vm_directory": str(tmp_path / "files")}, ok=False)
    assert restored.error("m00")["error_code"] in ("POINT_NOT_FOUND", "POINT_DAMAGED")

    fleet.remember()
    run = fleet.backup()
    assert fleet.oracle.next_backup(run, ["m00"], {"previous_damaged"}) == []
    assert fleet.oracle.check(fleet.before) == []


def damage(path: Path, how: str, source: random.Random) -> None:
    """Flip one random bit, cut bytes off the end, or append some; the file is then another one."""
    before, size = sha256(path), path.stat().st_size
    action, _space, count = how.partition(" ")
    if action == "flip":
        with open(path, "r+b") as stream:
            offset = source.randrange(size)
            stream.seek(offset)
            value = stream.read(1)[0]
            stream.seek(offset)
            stream.write(bytes([value ^ (1 << source.randrange(8))]))
    elif action == "cut":
        os.truncate(path, max(0, size - int(count)))
    else:
        with open(path, "ab") as stream:
            stream.write(b"\0" * 512)
    assert sha256(path) != before


def _agent(tmp_path: Path) -> str:
    content, digest = build_agent()
    path = tmp_path / f"{digest}.pyz"
    path.write_bytes(content)
    return str(path)


def _verify(repository: str, key: str, state_dir: str, agent: str) -> Dict[str, Any]:
    assert sys.executable
    params = {
        "repository": {"type": "local", "path": repository, "id": "", "reserve_bytes": 0},
        "machine_key": key,
        "phase": "run",
        "all_points": True,
        "point_ids": [],
        "state_dir": state_dir,
        "agent_path": agent,
        "job_id": new_job_id(),
    }
    return verify_points(params, check_mode=False)
