# Copyright: (c) 2026, Sendense contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Documentation keeps up with the code: generated pages, module examples, reasons, links."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from pathlib import Path
from typing import Dict

import pytest
import yaml

from ansible_collections.sendense.platform.plugins.module_utils.errors import error_classes
from ansible_collections.sendense.platform.plugins.module_utils.platforms._base import REASONS
from tests.unit.house.arguments import our_tasks, problems, specification
from tests.unit.house.rules import ROOT
from tests.unit.house.test_rules import tracked

MODULES = sorted(path for path in (ROOT / "plugins/modules").glob("*.py") if path.name != "__init__.py")
PAGES = sorted(ROOT.glob("docs/**/*.md")) + sorted(ROOT.glob("*.md"))
LINK = re.compile(r"\]\(([^)#\s]+)(?:#[^)]*)?\)")


def constants(path: Path) -> Dict[str, str]:
    """The documentation strings of a module file."""
    found = {}
    for node in ast.parse(path.read_text(encoding="utf-8")).body:
        if isinstance(node, ast.Assign) and isinstance(node.value, ast.Constant) and isinstance(node.value.value, str):
            found[getattr(node.targets[0], "id", "")] = node.value.value
    return found


def test_generated_files_are_current() -> None:
    done = subprocess.run([sys.executable, "scripts/generate.py", "--check"], cwd=ROOT, capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (0, "")


def test_every_error_code_is_documented() -> None:
    page = (ROOT / "docs/reference/error-codes.md").read_text(encoding="utf-8")
    assert [code for code in error_classes() if f"| `{code}` |" not in page] == []


def test_every_reason_for_a_full_backup_is_documented() -> None:
    page = (ROOT / "docs/reference/full-backup-reasons.md").read_text(encoding="utf-8")
    documented = set(re.findall(r"^\| `(\w+)` \|", page, re.MULTILINE))
    assert documented == set(REASONS)


def test_there_are_modules() -> None:
    assert len(MODULES) >= 12


@pytest.mark.parametrize("path", MODULES, ids=lambda path: path.stem)
def test_module_documents_itself_with_runnable_examples(path: Path) -> None:
    texts = constants(path)
    assert {"DOCUMENTATION", "EXAMPLES", "RETURN"} <= set(texts)
    assert yaml.safe_load(texts["DOCUMENTATION"])["module"] == path.stem
    examples = list(our_tasks(yaml.safe_load(texts["EXAMPLES"])))
    assert path.stem in [module for module, _arguments in examples]
    for module, arguments in examples:
        assert problems(specification(module), arguments) == []


def task_files() -> list[Path]:
    return tracked(("playbooks/**/*.yml", "roles/**/tasks/**/*.yml"))


def test_every_task_fits_the_specification_of_its_module() -> None:
    wrong, seen = [], 0
    for path in task_files():
        for module, arguments in our_tasks(yaml.safe_load(path.read_text(encoding="utf-8"))):
            seen += 1
            wrong += [f"{path.relative_to(ROOT)}: {module}: {text}" for text in problems(specification(module), arguments, complete=False)]
    assert wrong == []
    assert seen >= 10


@pytest.mark.parametrize(
    ("arguments", "part"),
    [
        ({"nonsense": 1}, "no argument 'nonsense'"),
        ({}, "'name' is required"),
        ({"name": "x", "state": "sideways"}, "sideways"),
        ({"name": "x", "nested": {"wrong": 1}}, "nested: there is no argument 'wrong'"),
        ({"name": "x", "size": "many"}, "many"),
    ],
)
def test_wrong_arguments_are_found(arguments: Dict[str, object], part: str) -> None:
    spec = {
        "name": {"type": "str", "required": True},
        "state": {"type": "str", "choices": ["present", "absent"]},
        "size": {"type": "int"},
        "nested": {"type": "dict", "options": {"path": {"type": "path"}}},
    }
    assert part in "\n".join(problems(spec, arguments))
    assert problems(spec, {"name": "x", "state": "{{ wanted }}", "nested": {"path": "/x"}, "size": 3}) == []


def test_links_between_pages_lead_somewhere() -> None:
    broken = []
    for page in PAGES:
        for target in LINK.findall(page.read_text(encoding="utf-8")):
            if "://" not in target and not (page.parent / target).exists():
                broken.append(f"{page.relative_to(ROOT)}: {target}")
    assert broken == []


def test_every_page_can_be_reached_from_the_index() -> None:
    seen: set[Path] = set()
    pending = [ROOT / "docs/README.md"]
    while pending:
        page = pending.pop()
        if page in seen:
            continue
        seen.add(page)
        targets = [(page.parent / target).resolve() for target in LINK.findall(page.read_text(encoding="utf-8")) if "://" not in target]
        pending += [target for target in targets if target.suffix == ".md" and target.exists()]
    assert [str(page.relative_to(ROOT)) for page in PAGES if page not in seen and page.parent != ROOT] == []
