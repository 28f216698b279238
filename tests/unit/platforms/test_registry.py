# Copyright: (c) 2026, Sendense contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The registry is explicit, and building a connector touches nothing."""

from __future__ import annotations

import pytest

from ansible_collections.sendense.platform.plugins.module_utils.errors import InvalidInputError, PlatformUnreachableError
from ansible_collections.sendense.platform.plugins.module_utils.platforms import registry


def test_connectors_are_built_unconnected() -> None:
    for build in (registry.source, registry.target):
        connector = build("libvirt", {"uri": "qemu:///system?socket=/nonexistent", "agent_timeout": None})
        assert connector.NAME == "libvirt"
        connector.close()
    with pytest.raises(PlatformUnreachableError, match="call connect"):
        registry.source("libvirt").discover()


@pytest.mark.parametrize("platform", ["", "Libvirt", "../libvirt", "vmware"])
def test_an_unknown_platform_names_the_known_ones(platform: str) -> None:
    for build in (registry.source, registry.target):
        with pytest.raises(InvalidInputError) as refused:
            build(platform, {})
        assert refused.value.details["known"] == ["libvirt"]
