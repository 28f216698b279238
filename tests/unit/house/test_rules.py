# Copyright: (c) 2026, Sendense contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Every rule of the house holds for every file of the tree."""

from __future__ import annotations

import subprocess
from pathlib import Path
from typing import Callable, Dict, List

import pytest

from tests.unit.house import rules

Rule = Callable[[str], List[str]]

PYTHON = ("plugins/**/*.py", "sendense_runner/**/*.py", "scripts/**/*.py", "tests/**/*.py")
PRODUCT = ("plugins/**/*.py", "sendense_runner/**/*.py", "scripts/**/*.py")
NODES = ("plugins/module_utils/**/*.py", "plugins/modules/*.py")
TASKS = ("playbooks/**/*.yml", "roles/**/tasks/**/*.yml", "roles/**/handlers/**/*.yml")
SOURCES = (*PYTHON, "**/*.sh", "**/*.go", *TASKS)

RULES: Dict[str, tuple[Rule, tuple[str, ...]]] = {
    "file length": (rules.too_long, SOURCES),
    "function length": (rules.long_functions, PYTHON),
    "licence header": (rules.header_missing, PRODUCT),
    "future import": (rules.future_import_missing, PRODUCT),
    "Python 3.9": (rules.newer_than_python_3_9, NODES),
    "dangerous calls": (rules.dangerous_calls, PRODUCT),
    "shell tasks": (rules.shell_tasks, TASKS),
    "paths of one machine": (rules.machine_paths, ("**/*",)),
    "unfinished work": (rules.unfinished, (*PYTHON, *TASKS)),
}

PLANTED: Dict[str, str] = {
    "file length": "x = 1\n" * 501,
    "function length": "def f():\n" + "    x = 1\n" * 61,
    "licence header": '"""A file."""\n',
    "future import": '"""A file."""\nimport os\n',
    "Python 3.9": "@dataclass(frozen=True, slots=True)\nclass A:\n    pass\n",
    "dangerous calls": "import subprocess\nsubprocess.run(command, shell=True)\n",
    "shell tasks": "- hosts: all\n  tasks:\n    - block:\n        - ansible.builtin.shell: echo {{ name }}\n",
    "paths of one machine": "cd /" + "work/main\n",
    "unfinished work": "# TO" + "DO: later\n",
}


def tracked(patterns: tuple[str, ...]) -> List[Path]:
    """Files of the tree that match, without what .gitignore names; links are left out."""
    command = ["git", "ls-files", "-z", "-co", "--exclude-standard", "--", *(f":(glob){pattern}" for pattern in patterns)]
    names = subprocess.run(command, cwd=rules.ROOT, check=True, capture_output=True).stdout.decode().split("\0")
    paths = [rules.ROOT / name for name in names if name]
    return [path for path in paths if path.is_file() and not path.is_symlink()]


@pytest.mark.parametrize("name", RULES)
def test_tree_keeps_the_rule(name: str) -> None:
    rule, patterns = RULES[name]
    findings = []
    for path in tracked(patterns):
        text = path.read_text(encoding="utf-8", errors="replace")
        findings += [f"{path.relative_to(rules.ROOT)}: {finding}" for finding in rule(text) if text.strip()]
    assert findings == []


@pytest.mark.parametrize("name", RULES)
def test_rule_finds_a_planted_violation(name: str) -> None:
    assert RULES[name][0](PLANTED[name])


@pytest.mark.parametrize(
    "text",
    [
        "import pickle\n",
        "from marshal import loads\n",
        "yaml.load(text)\n",
        "value = eval(text)\n",
        "os.system(command)\n",
    ],
)
def test_dangerous_calls_are_found(text: str) -> None:
    assert rules.dangerous_calls(text)


def test_newer_syntax_is_found() -> None:
    assert rules.newer_than_python_3_9("match x:\n    case 1:\n        pass\n")
    assert rules.newer_than_python_3_9("for a, b in zip(x, y, strict=True):\n    pass\n")
    assert rules.newer_than_python_3_9("for a, b in zip(x, y):\n    pass\n") == []


def test_free_form_command_is_found_and_argv_is_not() -> None:
    assert rules.shell_tasks("- ansible.builtin.command: ls {{ name }}\n")
    assert rules.shell_tasks("- ansible.builtin.command:\n    argv: [ls, -l]\n") == []


def test_no_file_has_a_vague_name() -> None:
    assert rules.vague_name("plugins/module_utils/utils.py")
    assert [path.name for path in tracked(PYTHON) if rules.vague_name(path.name)] == []


def test_tree_is_not_empty() -> None:
    assert len(tracked(PRODUCT)) > 20
