# Copyright: (c) 2026, Sendense contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The house rules as functions from text to findings, so that each rule can be tested on a planted violation."""

from __future__ import annotations

import ast
import re
from pathlib import Path
from typing import Any, Dict, Iterator, List

import yaml

ROOT = Path(__file__).resolve().parents[3]

MAX_FILE_LINES = 500
MAX_FUNCTION_LINES = 60

HEADER = (
    "# Copyright: (c) 2026, Sendense contributors\n"
    "# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)\n"
    "# SPDX-License-Identifier: GPL-3.0-or-later\n"
)

#: Calls that turn data into code, or load objects from data.
DANGEROUS_CALLS = {"eval", "exec", "__import__"}
DANGEROUS_MODULES = {"pickle", "cPickle", "marshal", "shelve", "dill", "jsonpickle"}

#: Written so that this file does not match itself.
MACHINE_PATH = re.compile(r"(?:^|[^A-Za-z0-9_.$}])/(?:work|farm|root/\.pyenv)/")
UNFINISHED = re.compile(r"\b(?:TO" r"DO|FIX" r"ME|XX" r"X)\b|pytest\.(?:mark\.)?(?:skip|x" r"fail)|NotImplemented" r"Error")


def too_long(text: str) -> List[str]:
    """Files over the limit, and functions over theirs."""
    lines = text.count("\n")
    return [f"{lines} lines"] if lines > MAX_FILE_LINES else []


def long_functions(text: str) -> List[str]:
    return [
        f"{node.name} has {node.end_lineno - node.lineno + 1} lines"
        for node in ast.walk(ast.parse(text))
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)) and (node.end_lineno or 0) - node.lineno + 1 > MAX_FUNCTION_LINES
    ]


def header_missing(text: str) -> List[str]:
    """The licence header, after an interpreter line if there is one."""
    body = text.split("\n", 1)[1] if text.startswith("#!") else text
    body = re.sub(r"\A#[^\n]*coding[^\n]*\n", "", body)
    return [] if body.startswith(HEADER) else ["the licence header of errors.py is missing"]


def future_import_missing(text: str) -> List[str]:
    """``from __future__ import annotations`` is the first import of a file that has any code."""
    for node in ast.parse(text).body:
        if isinstance(node, ast.ImportFrom) and node.module == "__future__":
            return []
        if not (isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant)):
            return ["from __future__ import annotations is not the first statement"]
    return []


def newer_than_python_3_9(text: str) -> List[str]:
    """Syntax and calls that a node's Python 3.9 does not know."""
    try:
        tree = ast.parse(text, feature_version=(3, 9))
    except SyntaxError as error:
        return [f"line {error.lineno}: {error.msg}"]
    newer = {"dataclass": {"slots", "kw_only"}, "zip": {"strict"}}
    return [
        f"line {node.lineno}: {ast.unparse(node)[:80]}"
        for node in ast.walk(tree)
        if isinstance(node, ast.Call)
        and {word.arg or "" for word in node.keywords} & newer.get(ast.unparse(node.func).rsplit(".", 1)[-1], set())
    ]


def dangerous_calls(text: str) -> List[str]:
    found = []
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.Import):
            found += [f"import {alias.name}" for alias in node.names if alias.name.split(".")[0] in DANGEROUS_MODULES]
        elif isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] in DANGEROUS_MODULES:
            found.append(f"from {node.module} import")
        elif isinstance(node, ast.Call):
            found += _dangerous_call(node)
    return found


def _dangerous_call(node: ast.Call) -> List[str]:
    name = ast.unparse(node.func)
    shell = [word for word in node.keywords if word.arg == "shell" and getattr(word.value, "value", True) is not False]
    if name in DANGEROUS_CALLS or name in ("os.system", "os.popen", "yaml.load", "yaml.load_all", "yaml.unsafe_load") or shell:
        return [f"line {node.lineno}: {ast.unparse(node)[:80]}"]
    return []


def shell_tasks(text: str) -> List[str]:
    """Tasks that go through a shell, and free-form commands: external names must travel as argv."""
    return [finding for task in tasks(yaml.safe_load(text)) for finding in _shell_task(task)]


def _shell_task(task: Dict[str, Any]) -> List[str]:
    found = []
    for key, value in task.items():
        name = str(key).rsplit(".", 1)[-1]
        if name in ("shell", "raw", "script", "expect"):
            found.append(f"{key}: {str(value)[:60]}")
        elif name == "command" and not (isinstance(value, dict) and "argv" in value):
            found.append(f"{key} without argv: {str(value)[:60]}")
    return found


def tasks(data: Any) -> Iterator[Dict[str, Any]]:
    """Every task of a playbook or task file, blocks included."""
    for entry in data if isinstance(data, list) else []:
        if not isinstance(entry, dict):
            continue
        yield entry
        for key in ("tasks", "pre_tasks", "post_tasks", "handlers", "block", "rescue", "always"):
            yield from tasks(entry.get(key))


def machine_paths(text: str) -> List[str]:
    return [f"line {number}: {line.strip()[:80]}" for number, line in enumerate(text.splitlines(), 1) if MACHINE_PATH.search(line)]


def unfinished(text: str) -> List[str]:
    return [f"line {number}: {line.strip()[:80]}" for number, line in enumerate(text.splitlines(), 1) if UNFINISHED.search(line)]


def vague_name(path: str) -> List[str]:
    return ["says nothing about what is in it"] if Path(path).stem in ("utils", "util", "helper", "helpers", "misc", "common") else []
