# Copyright: (c) 2026, Sendense contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The repository backends, by type. A new one is one file beside this one and one line here."""

from __future__ import annotations

from typing import Any, Dict, Type

from ..errors import InvalidInputError
from ._base import Repository
from .local import RESERVE_BYTES, LocalRepository

REPOSITORIES: Dict[str, Type[Repository]] = {
    LocalRepository.NAME: LocalRepository,
}


def open_repository(options: Dict[str, Any], hub_id: str = "") -> Repository:
    """The repository that the modules' ``repository`` option names: ``type``, ``path``, ``id``, ``reserve_bytes``.

    Touches nothing. InvalidInputError for an unknown type or a path that cannot be one.
    """
    kind = options.get("type") or LocalRepository.NAME
    if kind not in REPOSITORIES:
        raise InvalidInputError(f"There is no repository type {kind!r}. Use one of: {', '.join(sorted(REPOSITORIES))}.")
    reserve = options.get("reserve_bytes")
    return LocalRepository(
        str(options["path"]),
        repository_id=options.get("id") or "",
        reserve_bytes=RESERVE_BYTES if reserve is None else int(reserve),
        hub_id=hub_id,
    )
