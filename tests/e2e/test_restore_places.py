# Copyright: (c) 2026, Sendense contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Two machines of one play are never restored to one place; what is refused is refused before anything is touched."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Dict

import pytest
import yaml

from .site import Site

NAMES = ("one", "two", "other")


@pytest.fixture
def gone(tmp_path) -> Site:
    """A site without a platform, whose machines are known by their keys only."""
    site = Site(tmp_path, [])
    (tmp_path / "inventory" / "machines.sendense.yml").unlink()
    hosts = {name: {"sendense_machine_key": f"libvirt-{name}"} for name in NAMES}
    hosts["other"]["restore_vm_name"] = "elsewhere"
    (tmp_path / "inventory" / "machines.yml").write_text(yaml.safe_dump({"gone": {"hosts": hosts}}))
    return site


def errors(site: Site, limit: str, extra: Dict[str, Any]) -> Dict[str, Dict[str, Any]]:
    """Why each machine was not restored."""
    run = site.play("restore", limit, dict({"sendense_hosts": "gone"}, **extra), ok=False)
    return {name: run.error(name) for name in limit.split(",")}


@pytest.mark.parametrize("what", ["name", "directory"])
def test_one_place_for_several_machines_is_refused(gone, what):
    place = f"/same/{what}"
    told = errors(gone, "one,two", {f"restore_vm_{what}": place})
    assert "this play restores two, too" in told["one"]["msg"] and f"{place} (2 hosts in all)" in told["one"]["msg"]
    assert "this play restores one, too" in told["two"]["msg"]
    assert not Path(gone.hub_state).exists() and not Path(gone.node_state).exists()


def test_one_machine_or_a_place_for_each_goes_on_to_the_repository(gone):
    variables = gone.directory / "inventory" / "group_vars"
    variables.mkdir()
    (variables / "gone.yml").write_text('restore_vm_name: "{{ inventory_hostname }}-copy"\n')
    for limit, extra in (("one", {"restore_vm_name": "copy"}), ("one,two,other", {})):
        told = errors(gone, limit, extra)
        assert {error["error_code"] for error in told.values()} == {"REPOSITORY_MISSING"}
    (variables / "gone.yml").write_text("restore_vm_name: elsewhere\n")
    assert all("to the same machine elsewhere" in error["msg"] for error in errors(gone, "one,other", {}).values())
