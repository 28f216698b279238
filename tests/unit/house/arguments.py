# Copyright: (c) 2026, Sendense contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a task says to one of our modules, held against the module's argument specification."""

from __future__ import annotations

import importlib
from typing import Any, Dict, Iterator, List, Tuple

import yaml
from ansible.module_utils.common.arg_spec import ArgumentSpecValidator

from tests.unit.house.rules import tasks

PREFIX = "sendense.platform."
Spec = Dict[str, Dict[str, Any]]


def specification(module: str) -> Spec:
    """The argument specification of one of our modules.

    A module that is an action plugin only has documentation and no code; then its documentation is its specification.
    """
    package = "ansible_collections.sendense.platform.plugins.modules"
    loaded = importlib.import_module(f"{package}.{module}")
    if hasattr(loaded, "argument_spec"):
        return loaded.argument_spec()
    return _documented(yaml.safe_load(loaded.DOCUMENTATION)["options"])


def _documented(options: Dict[str, Dict[str, Any]]) -> Spec:
    keys = ("type", "elements", "choices", "required", "aliases")
    spec = {}
    for name, option in options.items():
        spec[name] = {key: option[key] for key in keys if key in option}
        if "suboptions" in option:
            spec[name]["options"] = _documented(option["suboptions"])
    return spec


def our_tasks(data: Any) -> Iterator[Tuple[str, Dict[str, Any]]]:
    """(module, arguments) of every task that calls a module of ours."""
    for task in tasks(data):
        for key, value in task.items():
            if str(key).startswith(PREFIX):
                yield str(key)[len(PREFIX) :], value or {}


def problems(spec: Spec, arguments: Dict[str, Any], complete: bool = True) -> List[str]:
    """What is wrong with these arguments. Values that are templates are not judged, their names are.

    ``complete`` False: required arguments may come from elsewhere (module_defaults).
    """
    names = set(spec) | {alias for option in spec.values() for alias in option.get("aliases", [])}
    found = [f"there is no argument {name!r}" for name in arguments if name not in names]
    if complete:
        found += [f"{name!r} is required" for name, option in spec.items() if option.get("required") and name not in arguments]
    literals = {}
    for name, value in arguments.items():
        option = spec.get(name, {})
        if "options" in option:
            entries = value if isinstance(value, list) else [value]
            found += [f"{name}: {text}" for entry in entries if isinstance(entry, dict) for text in problems(option["options"], entry)]
        if name in spec and not _has_template(value):
            literals[name] = value
    known = {name: {**spec[name], "required": False} for name in literals}
    return found + ArgumentSpecValidator(known).validate(literals).error_messages


def _has_template(value: Any) -> bool:
    if isinstance(value, dict):
        return any(_has_template(entry) for entry in value.values())
    if isinstance(value, list):
        return any(_has_template(entry) for entry in value)
    return isinstance(value, str) and "{{" in value
