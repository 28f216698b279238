# Copyright: (c) 2026, Sendense contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The journal of a machine's open merge: ``merge.json``. While it is there, the points that it consumes are offered no more.

It is written as a whole, durably, and ends in its own digest: a journal that is not what was written must never pass for
one that consumes other points.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, dataclass
from typing import Any, Dict, List, Optional

from ..catalog.fields import JOB_ID, POINT_ID
from ..errors import PointDamagedError
from . import local_files as files
from .local_paths import Paths

MERGE, SYNTHETIC = "merge", "synthetic"
_SCHEMA_VERSION = 1
_LIMIT = 1 << 20
_DIGEST_FIELD = "journal_sha256"
_FIELDS = {"schema_version", "kind", "survivor", "consumed", "job_id", "began_at", "manifest_sha256"}


@dataclass(frozen=True)
class Journal:
    """One open merge."""

    kind: str
    survivor: str
    consumed: List[str]
    """Oldest first."""
    job_id: str
    """The job that works on it now, or was the last to."""
    began_at: str
    manifest_sha256: str = ""
    """Of the survivor's new manifest, as soon as its new form is complete."""
    schema_version: int = _SCHEMA_VERSION

    def same(self, survivor: str, consumed: List[str]) -> bool:
        """Whether it is of this merge."""
        return (self.survivor, self.consumed) == (survivor, consumed)


def read(paths: Paths, key: str) -> Optional[Journal]:
    """The journal of the machine's open merge; None if no merge is open. PointDamagedError if it cannot be used, RepositoryIoError."""
    content = files.read_file(paths.journal(key), _LIMIT)
    if content is None:
        if not files.exists(paths.journal(key)):
            return None
        content = files.read_file(paths.journal(key), _LIMIT) or b""  # it may have been written between the two looks
    try:
        data = json.loads(content.decode("ascii"))
    except (ValueError, RecursionError):
        data = None
    if not isinstance(data, dict) or not _is_sound(data) or _spell(data) != content:
        raise PointDamagedError(
            f"Cannot read the journal of a merge of machine {key}: {paths.journal(key)} is not what was written, so nobody knows which"
            " backups were being merged. See docs/runbooks/damaged-point.md.",
            details={"machine_key": key, "path": paths.journal(key)},
        )
    del data[_DIGEST_FIELD]
    return Journal(**data)


def write(paths: Paths, key: str, journal: Journal) -> None:
    """Write the journal durably. RepositoryIoError, RepositoryFullError."""
    data = asdict(journal)
    files.write_durable(paths.journal(key), _spell({**data, _DIGEST_FIELD: _digest(data)}))


def remove(paths: Paths, key: str) -> bool:
    """Remove the journal durably: the merge is over. RepositoryIoError."""
    return files.remove_file(paths.journal(key))


def _is_sound(data: Dict[str, Any]) -> bool:
    rest = {name: value for name, value in data.items() if name != _DIGEST_FIELD}
    if set(rest) != _FIELDS or data.get(_DIGEST_FIELD) != _digest(rest) or rest["schema_version"] != _SCHEMA_VERSION:
        return False
    ids = rest["consumed"] if isinstance(rest["consumed"], list) else [None]
    texts = [rest["survivor"], rest["job_id"], rest["began_at"], rest["manifest_sha256"], *ids]
    return (
        all(isinstance(text, str) for text in texts)
        and all(POINT_ID.fullmatch(point_id) for point_id in [rest["survivor"], *ids])
        and bool(JOB_ID.fullmatch(rest["job_id"]))
        and rest["kind"] == (MERGE if ids else SYNTHETIC)
    )


def _digest(data: Dict[str, Any]) -> str:
    return hashlib.sha256(json.dumps(data, sort_keys=True, separators=(",", ":")).encode("ascii")).hexdigest()


def _spell(data: Dict[str, Any]) -> bytes:
    return (json.dumps(data, indent=1, sort_keys=True) + "\n").encode("ascii")
