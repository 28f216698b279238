# Copyright: (c) 2026, Sendense contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Caps that cannot be meant are refused before a machine is touched, not by the copy when its snapshot is open already."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Dict

import pytest
import yaml

from ansible_collections.sendense.platform.plugins.module_utils.errors import InvalidInputError
from ansible_collections.sendense.platform.plugins.module_utils.jobs import restore, snapshot
from tests.unit.house.arguments import our_tasks

ROLES = Path(__file__).parents[3] / "roles"
WINDOW = {"days": None, "from": "08:00", "to": "18:00", "timezone": "UTC", "bytes_per_second": 20000}
BAD: Dict[str, Dict[str, Any]] = {
    "a job's unit": {"max_bytes_per_second": 100},
    "a node's unit": {"node_bandwidth": {"bytes_per_second": 100, "windows": []}},
    "a time": {"node_bandwidth": {"bytes_per_second": 0, "windows": [dict(WINDOW, to="25:00")]}},
    "a zone": {"node_bandwidth": {"bytes_per_second": 0, "windows": [dict(WINDOW, timezone="Atlantis")]}},
}
BEGINNINGS = {"backup": snapshot.open_snapshot, "restore": restore.prepare}


@pytest.mark.parametrize("check_mode", [True, False])
@pytest.mark.parametrize("given", list(BAD.values()), ids=list(BAD))
@pytest.mark.parametrize("begin", list(BEGINNINGS.values()), ids=list(BEGINNINGS))
def test_nothing_begins_with_a_cap_that_cannot_be_meant(tmp_path: Path, begin: Any, given: Dict[str, Any], check_mode: bool) -> None:
    params = {"platform": "libvirt", "connection": {"uri": "qemu:///system"}, "state_dir": str(tmp_path / "state"), **given}
    with pytest.raises(InvalidInputError, match="bandwidth"):
        begin(params, check_mode)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(("role", "beginning"), [("backup_vm", "vm_snapshot"), ("restore_vm", "vm")])
def test_a_role_begins_with_the_caps_of_its_copy(role: str, beginning: str) -> None:
    found: Dict[str, Any] = {}
    for path in sorted((ROLES / role / "tasks").glob("*.yml")):
        for module, arguments in our_tasks(yaml.safe_load(path.read_text())):
            if "node_bandwidth" in arguments:
                found[module] = {name: arguments[name] for name in ("max_bytes_per_second", "node_bandwidth", "state_dir")}
    assert set(found) == {beginning, "nbd_copy"}
    assert found[beginning] == found["nbd_copy"]
