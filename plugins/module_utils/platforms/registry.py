# Copyright: (c) 2026, Sendense contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Which platforms there are: explicit imports, one line each, alphabetical.

Ansible ships to a node only what it finds as import statements, so folders are never scanned at run time.
"""

from __future__ import annotations

from typing import Any, Callable, Dict, List, Optional

from ..errors import InvalidInputError, PlatformUnreachableError
from ..model import Machine
from ._base import Source, Target
from .bounded import DISCOVERY_SECONDS, within
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


def discover(platform: str, connection: Optional[Dict[str, Any]] = None, limit_s: float = DISCOVERY_SECONDS) -> List[Machine]:
    """All machines of a platform, in at most twice ``limit_s``; errors as :meth:`Source.discover` and :func:`bounded.within`.

    Twice: a machine that hangs holds up whoever is the first to ask for it. After that the platform itself knows that it hangs.
    """

    def ask() -> List[Dict[str, Any]]:
        with source(platform, connection) as opened:
            return [machine.to_dict() for machine in opened.discover()]

    doing = f"Listing the machines of {platform}"
    try:
        found = within(limit_s, doing, ask)
    except PlatformUnreachableError as error:
        if "limit_s" not in error.details:
            raise
        found = within(limit_s, doing, ask)
    return [Machine.from_dict(machine) for machine in found]


def _find(known: Dict[str, Any], platform: str, kind: str) -> Any:
    if platform not in known:
        raise InvalidInputError(
            f"There is no {kind} for platform {platform!r}. Known are: {', '.join(sorted(known))}.",
            details={"platform": platform, "known": sorted(known)},
        )
    return known[platform]
