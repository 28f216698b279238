# Copyright: (c) 2026, Sendense contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Which platforms there are: explicit imports, one line each, alphabetical.

Ansible ships to a node only what it finds as import statements, so folders are never scanned at run time.
"""

from __future__ import annotations

from typing import Any, Callable, Dict, Optional

from ..errors import InvalidInputError
from ._base import Source, Target
from .libvirt.source import LibvirtSource
from .libvirt.target import LibvirtTarget

SOURCES: Dict[str, Callable[[Dict[str, Any]], Source]] = {
    "libvirt": LibvirtSource,
}

TARGETS: Dict[str, Callable[[Dict[str, Any]], Target]] = {
    "libvirt": LibvirtTarget,
}


def source(platform: str, connection: Optional[Dict[str, Any]] = None) -> Source:
    """The source of a platform, not yet connected. InvalidInputError for an unknown platform or connection option."""
    return _find(SOURCES, platform, "source")(dict(connection or {}))


def target(platform: str, connection: Optional[Dict[str, Any]] = None) -> Target:
    """The target of a platform, not yet connected. InvalidInputError as for :func:`source`."""
    return _find(TARGETS, platform, "target")(dict(connection or {}))


def _find(known: Dict[str, Any], platform: str, kind: str) -> Any:
    if platform not in known:
        raise InvalidInputError(
            f"There is no {kind} for platform {platform!r}. Known are: {', '.join(sorted(known))}.",
            details={"platform": platform, "known": sorted(known)},
        )
    return known[platform]
