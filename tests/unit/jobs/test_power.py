# Copyright: (c) 2026, Sendense contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What is said of a restored machine that cannot be switched on."""

from __future__ import annotations

from unittest.mock import MagicMock

import libvirt
import pytest

from ansible_collections.sendense.platform.plugins.module_utils.errors import TargetFailedError
from ansible_collections.sendense.platform.plugins.module_utils.jobs import restore
from ansible_collections.sendense.platform.plugins.module_utils.platforms.libvirt.target import LibvirtTarget


def test_a_machine_that_cannot_be_started_is_named_and_said_to_stay(monkeypatch: pytest.MonkeyPatch) -> None:
    refusal = libvirt.libvirtError("no such file")
    refusal.err = (libvirt.VIR_ERR_SYSTEM_ERROR, libvirt.VIR_FROM_STORAGE, "no such file", 2, "", None, None, 0, 0)
    domain = MagicMock(**{"isActive.return_value": 0, "name.return_value": "web01", "create.side_effect": refusal})
    target = LibvirtTarget({"uri": "test:///default"})
    monkeypatch.setattr(target, "_client", MagicMock(**{"domain.return_value": domain}))
    monkeypatch.setattr(restore.registry, "target", lambda platform, connection: MagicMock(**{"__enter__.return_value": target}))
    with pytest.raises(TargetFailedError) as caught:
        restore.power({"state": "started", "platform": "libvirt", "connection": {}, "machine_id": "1"}, False)
    assert caught.value.msg.startswith("Cannot start machine web01: ") and "stay as they are" in caught.value.msg
