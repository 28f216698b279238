# Copyright: (c) 2026, Sendense contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a role's defaults say and what its argument specification says is the same."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Dict, List

import pytest
import yaml

from tests.unit.house.rules import ROOT

ROLES = sorted(path for path in (ROOT / "roles").iterdir() if path.is_dir())


def load(path: Path) -> Dict[str, Any]:
    return yaml.safe_load(path.read_text(encoding="utf-8")) if path.exists() else {}


def differences(options: Dict[str, Dict[str, Any]], defaults: Dict[str, Any]) -> List[str]:
    """Names and values that are not the same. A variable without a meaningful default is required in the specification."""
    found = [f"{name} has a default and is not specified" for name in defaults if name not in options]
    for name, option in options.items():
        if name in defaults:
            if "default" not in option or option["default"] != defaults[name]:
                found.append(f"{name}: specified {option.get('default')!r}, default {defaults[name]!r}")
        elif not option.get("required") and "default" in option:
            found.append(f"{name} is specified with a default and has none")
    return found


def test_there_are_roles() -> None:
    assert {"backup_vm", "cleanup_jobs", "restore_vm", "verify_vm"} <= {path.name for path in ROLES}


@pytest.mark.parametrize("role", ROLES, ids=lambda path: path.name)
def test_defaults_match_the_specification(role: Path) -> None:
    spec = load(role / "meta/argument_specs.yml")["argument_specs"]["main"]
    assert spec["short_description"]
    assert [name for name, option in spec["options"].items() if not option.get("description")] == []
    assert differences(spec["options"], load(role / "defaults/main.yml")) == []


@pytest.mark.parametrize("role", ROLES, ids=lambda path: path.name)
def test_public_variables_carry_the_roles_name(role: Path) -> None:
    assert [name for name in load(role / "defaults/main.yml") if not name.startswith(f"{role.name}_")] == []


def test_differences_are_found() -> None:
    options = {"a": {"default": 1}, "b": {"required": True}, "c": {"default": 3}}
    assert len(differences(options, {"a": 2, "d": 4})) == 3
    assert differences(options, {"a": 1, "c": 3}) == []
