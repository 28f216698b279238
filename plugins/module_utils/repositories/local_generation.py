# Copyright: (c) 2026, Sendense contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Generations: the fencing tokens that keep a stale writer of a machine's backups from committing."""

from __future__ import annotations

from typing import List, Optional

from ..errors import FencedError, PointDamagedError, SchemaUnknownError
from ..steps import reached
from . import local_files as files
from .local_paths import PARTIAL, Paths
from .local_points import partial_job, read_manifest


def raise_generation(paths: Paths, key: str) -> int:
    """Durably raise and return the machine's generation; the machine's lock is held. RepositoryIoError, RepositoryFullError."""
    generation = current(paths, key) + 1
    files.write_durable(paths.generation(key), f"{generation}\n".encode("ascii"))
    reached("generation:raised")
    return generation


def current(paths: Paths, key: str) -> int:
    """The machine's newest generation; 0 if none was ever raised.

    If the file is lost or unreadable, the highest generation of the machine's points takes its place.
    """
    stored = _stored(paths, key)
    return _highest_used(paths, key) if stored is None else stored


def require_newest(paths: Paths, key: str, generation: int, what: str) -> None:
    """FencedError unless ``generation`` is the machine's newest. ``what`` says what is refused, as ``commit point X``."""
    newest = current(paths, key)
    if generation != newest:
        raise FencedError(
            f"Cannot {what} of machine {key}: its job has generation {generation}, but the newest is {newest}, so another job has taken"
            " over. Nothing was published; start a new backup.",
            details={"machine_key": key, "generation": generation, "newest": newest},
        )


def _stored(paths: Paths, key: str) -> Optional[int]:
    content = files.read_file(paths.generation(key), 32)
    if content is None or not content.endswith(b"\n") or not content[:-1].isdigit():
        return None
    return int(content)


def _highest_used(paths: Paths, key: str) -> int:
    found: List[int] = [0]
    for point_id in paths.point_ids(key):
        try:
            found.append(read_manifest(paths, key, point_id).generation)
        except (PointDamagedError, SchemaUnknownError):
            continue
    for point_id in paths.point_ids(key, PARTIAL):
        value = partial_job(paths, key, point_id).get("generation")
        if isinstance(value, int):
            found.append(value)
    return max(found)
