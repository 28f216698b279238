# Copyright: (c) 2026, Sendense contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Every connector has its registry line, its page and its contract test."""

from __future__ import annotations

import importlib
from typing import Dict, List, Tuple

import pytest

from tests.unit.house.rules import ROOT

PACKAGE = "ansible_collections.sendense.platform.plugins.module_utils"
#: Connectors that exist for tests only have no page.
TEST_ONLY = {"memory", "faulty"}


def registered() -> List[Tuple[str, str]]:
    """(kind, name) of every connector in a registry."""
    platforms = importlib.import_module(f"{PACKAGE}.platforms.registry")
    repositories = importlib.import_module(f"{PACKAGE}.repositories.registry")
    rows = [("source", name) for name in platforms.SOURCES] + [("target", name) for name in platforms.TARGETS]
    return sorted(rows + [("repository", name) for name in repositories.REPOSITORIES])


def missing(kind: str, name: str) -> List[str]:
    """Paths that a connector must have and has not."""
    page = {"repository": "repositories"}.get(kind, "platforms")
    wanted: Dict[str, bool] = {f"tests/contract/test_{kind}_{name}.py": True, f"docs/reference/{page}/{name}.md": name not in TEST_ONLY}
    return [path for path, needed in wanted.items() if needed and not (ROOT / path).is_file()]


def test_registries_hold_the_connectors_of_the_main_job() -> None:
    assert {("source", "libvirt"), ("target", "libvirt"), ("repository", "local")} <= set(registered())


def test_every_connector_has_its_page_and_its_contract_test() -> None:
    assert [path for kind, name in registered() for path in missing(kind, name)] == []


def test_a_connector_without_them_is_noticed() -> None:
    assert missing("source", "abacus") == ["tests/contract/test_source_abacus.py", "docs/reference/platforms/abacus.md"]


@pytest.mark.parametrize(("kind", "folder"), [("source", "platforms"), ("repository", "repositories")])
def test_every_connector_on_disk_is_registered(kind: str, folder: str) -> None:
    root = ROOT / "plugins/module_utils" / folder
    if kind == "source":
        names = {path.name for path in root.iterdir() if path.is_dir() and (path / "source.py").exists()}
    else:
        names = {path.stem for path in root.glob("*.py") if f'NAME = "{path.stem}"' in path.read_text(encoding="utf-8")}
    assert names
    assert names <= {name for found, name in registered() if found == kind}
