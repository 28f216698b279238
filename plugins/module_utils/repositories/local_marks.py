# Copyright: (c) 2026, Sendense contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Marks beside the points of a local repository: what was found damaged, and what may not be deleted before when.

They lie outside the points' own directories, which may be immutable. A mark that cannot be read is taken at its worst.
"""

from __future__ import annotations

import json
from typing import Any, Dict

from ..errors import RepositoryIoError
from . import local_files as files
from .local_paths import Paths

DAMAGE = "damage"
IMMUTABLE = "immutable"
DISTRUST = "distrust"
_LIMIT = 64 << 10


def read_all(paths: Paths, key: str, kind: str, lenient: bool = False) -> Dict[str, Dict[str, Any]]:
    """The marks of one kind by point id; one that is not what was written is an empty mapping.

    RepositoryIoError if the storage fails; ``lenient`` takes that as an empty mapping, too, where only one mark fails.
    """
    found = {}
    for name in files.names(paths.marks(key, kind)):
        if name.endswith(".json") and not name.startswith("."):
            found[name[: -len(".json")]] = _read(f"{paths.marks(key, kind)}/{name}", lenient)
    return found


def write(paths: Paths, key: str, kind: str, point_id: str, content: Dict[str, Any]) -> None:
    """Write one mark durably. RepositoryIoError, RepositoryFullError."""
    files.make_directory(paths.marks(key, kind))
    files.write_durable(paths.mark(key, kind, point_id), (json.dumps(content, indent=1) + "\n").encode("ascii"))


def remove(paths: Paths, key: str, kind: str, point_id: str) -> bool:
    """Remove one mark durably; False if there was none. RepositoryIoError."""
    return files.remove_file(paths.mark(key, kind, point_id))


def _read(path: str, lenient: bool) -> Dict[str, Any]:
    try:
        content = files.read_file(path, _LIMIT)
        data = json.loads((content or b"").decode("ascii"))
    except (ValueError, RecursionError):
        return {}
    except RepositoryIoError:
        if not lenient:
            raise
        return {}
    return data if isinstance(data, dict) else {}
