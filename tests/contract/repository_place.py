# Copyright: (c) 2026, Sendense contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What the suites of the repository contract share: the storage under test, every call, and damage to plant."""

from __future__ import annotations

import tempfile
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, Callable, Dict, List

from ansible_collections.sendense.platform.plugins.module_utils.repositories._base import (
    OpenMerge,
    OpenPoint,
    Point,
    PointFilter,
    Repository,
)
from ansible_collections.sendense.platform.plugins.module_utils.repositories.seal import seal
from tests.contract.point_writer import Guest

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


WITH_POINT = {
    "get", "open_for_read", "hash_files", "files", "structure_check", "digest_check", "mark_damaged", "delete", "set_immutable",
    "distrust", "begin_merge",
}  # fmt: skip
LISTS_EVERYTHING = {"list"}


def calls(repository: Repository, key: str, point_id: str) -> Dict[str, Callable[[], Any]]:
    """Every method that needs an initialised repository and takes a machine, with plausible arguments otherwise."""
    guest = Guest(sizes={"serial-c": 65536})
    job = guest.next_job()
    new = replace(job.new_point(), machine_key=key, generation=1)
    point = OpenPoint(key, JOB, 1, POINT, "/nonexistent", "")
    merge = OpenMerge(key, "merge", [POINT], point_id, JOB, [], "/nonexistent")
    with_machine: Dict[str, Callable[[], Any]] = {
        "list": lambda: repository.list(PointFilter(machine_key=key)),
        "raise_generation": lambda: repository.raise_generation(key),
        "create": lambda: repository.create(new),
        "reread_images": lambda: repository.reread_images(point),
        "abort": lambda: repository.abort(key, JOB),
        "partials": lambda: repository.partials(key),
        "mark_damaged": lambda: repository.mark_damaged(key, point_id, "planted"),
        "distrust": lambda: repository.distrust(key, point_id, "planted"),
        "begin_merge": lambda: repository.begin_merge(key, point_id, [], JOB),
        "merged_images": lambda: repository.merged_images(merge),
        "merged_hashes": lambda: repository.merged_hashes(merge),
        "finish_merge": lambda: repository.finish_merge(merge, {"disk0": "0" * 32}, {}),
        "abandon_merge": lambda: repository.abandon_merge(key, "planted", JOB),
        "open_merges": lambda: repository.open_merges(key),
        "recover": lambda: repository.recover(key),
        "set_immutable": lambda: repository.set_immutable(key, point_id, "2027-01-01T00:00:00Z"),
    }
    for name in sorted(WITH_POINT - set(with_machine)):
        with_machine[name] = partial(getattr(repository, name), key, point_id)
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
