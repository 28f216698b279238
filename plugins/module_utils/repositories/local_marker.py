# Copyright: (c) 2026, Sendense contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The identity marker of a local repository: how an unmounted or a wrong path is noticed."""

from __future__ import annotations

import json
import os
import time
import uuid
from typing import Any, Dict, List

from ..catalog import fields as f
from ..catalog.times import utc_from_seconds
from ..datapath.hashing import BLOCK_BYTES, digest_size
from ..errors import RepositoryMismatchError, RepositoryMissingError, SchemaUnknownError
from . import local_files as files
from .local_paths import MARKER, Paths

SCHEMA_VERSION = 1
_LIMIT = 64 << 10
#: What a fresh file system, or an initialisation that was cut off, may hold.
_HARMLESS = ("lost+found", os.path.basename(files.temporary_name(MARKER)))
_FIELDS = {
    "schema_version": f.number(1),
    "repository_id": f.matching(f.REPOSITORY_ID, "a repository id"),
    "hash_algorithm": f.algorithm(),
    "block_bytes": f.block_bytes,
    "created_at": f.time,
}
_RUNBOOK = "See docs/runbooks/lost-repository-marker.md."


def read(paths: Paths, wanted_id: str) -> Dict[str, Any]:
    """The marker with ``owner`` added.

    RepositoryMissingError if there is none or it cannot be read, RepositoryMismatchError if it is not ``wanted_id``'s,
    SchemaUnknownError if a newer version made the repository.
    """
    content = files.read_file(paths.marker, _LIMIT)
    if content is None:
        raise RepositoryMissingError(
            f"No backup repository at {paths.root}: {MARKER} is not there. Mount the storage, correct the path, or initialise it once with"
            f" the repository module. {_RUNBOOK}",
            details={"path": paths.root},
        )
    data = _parse(content, paths)
    if wanted_id and data["repository_id"] != wanted_id:
        raise RepositoryMismatchError(
            f"Another backup repository at {paths.root}: it is {data['repository_id']}, not {wanted_id}. Mount the right storage or correct"
            " the id.",
            details={"path": paths.root, "found": data["repository_id"], "wanted": wanted_id},
        )
    return {**data, "owner": data["repository_id"][:8]}


def create(paths: Paths, wanted_id: str, hash_algorithm: str) -> bool:
    """Make the marker durably; False if it was there.

    InvalidInputError for an unknown algorithm, RepositoryMismatchError if the directory holds something else,
    RepositoryMissingError if a certain repository was asked for and is not there.
    """
    digest_size(hash_algorithm)
    if files.file_size(paths.marker) is not None:
        read(paths, wanted_id)
        return False
    if wanted_id:
        read(paths, wanted_id)
    _require_empty(paths)
    files.make_directory(paths.root)
    content = {
        "schema_version": SCHEMA_VERSION,
        "repository_id": str(uuid.uuid4()),
        "hash_algorithm": hash_algorithm,
        "block_bytes": BLOCK_BYTES,
        "created_at": utc_from_seconds(time.time()),
    }
    files.write_durable(paths.marker, (json.dumps(content, indent=1) + "\n").encode("ascii"))
    return True


def _require_empty(paths: Paths) -> None:
    foreign: List[str] = [name for name in files.names(paths.root) if name not in _HARMLESS]
    if foreign:
        raise RepositoryMismatchError(
            f"Cannot make a backup repository at {paths.root}: the directory holds {len(foreign)} other entries, for example"
            f" {foreign[0]!r}. Choose an empty directory; if this was a repository: {_RUNBOOK}",
            details={"path": paths.root, "entries": foreign[:10]},
        )


def _parse(content: bytes, paths: Paths) -> Dict[str, Any]:
    try:
        data = json.loads(content.decode("ascii"))
    except (ValueError, RecursionError):
        data = None
    version = data.get("schema_version") if isinstance(data, dict) else None
    if isinstance(version, int) and version > SCHEMA_VERSION:
        raise SchemaUnknownError(
            f"Cannot use the repository at {paths.root}: a newer version of this product made it (schema {version}). Upgrade this place.",
            details={"path": paths.root, "schema_version": version},
        )
    fault = f.first_fault(data, _FIELDS)
    if fault or not isinstance(data, dict):
        raise RepositoryMissingError(
            f"The marker {paths.marker} cannot be used: it {fault}. {_RUNBOOK}", details={"path": paths.root, "fault": fault}
        )
    return data
