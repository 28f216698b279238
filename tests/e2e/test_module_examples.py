# Copyright: (c) 2026, Sendense contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The examples of every module's documentation, run for real against the lab in the order of a backup and a restore."""

from __future__ import annotations

import json
import re
import subprocess
from collections import Counter
from pathlib import Path
from typing import Any, Dict, List

import pytest
import yaml

from .estate import estate, play
from .site import ROOT, Run, Site

#: The machine that the examples speak of.
UUID = "6c9ce2d5-4f5e-4b7f-9a49-8c6f0ab1a001"
POINT = "20261120T120000Z-1a2b3c4d"
MODULES = sorted(path.stem for path in (ROOT / "plugins" / "modules").glob("*.py"))
COLLECTION = "sendense.platform"

#: Module and number of its example: every example of every module exactly once.
ORDER = [
    ("repository", 0),
    ("repository_info", 0),
    ("vm_info", 0),
    ("cleanup", 0),
    ("backup_doctor", 0),
    ("backup_doctor", 1),
    ("backup", 0),
    ("vm_snapshot", 0),
    ("vm_export", 0),
    ("nbd_export", 0),
    ("nbd_export_info", 0),
    ("nbd_copy", 0),
    ("backup", 1),
    ("vm_snapshot", 1),
    ("job_report", 0),
    ("backup_info", 0),
    ("backup_verify", 0),
    ("backup_prune", 0),
    ("nbd_export", 1),
    ("vm", 0),
    ("nbd_copy", 1),
    ("vm", 1),
    ("nbd_export", 2),
    ("job_cancel", 0),
]


@pytest.fixture(scope="module")
def example_estate(lab_base):
    with estate(lab_base, "examples") as found:
        guest = found.guest("web01", uuid=UUID)
        yield found
        guest.remove()


@pytest.fixture(scope="module")
def documented(example_estate):
    """What ansible-doc says about every module and about the inventory plugin."""
    found: Dict[str, Any] = {}
    for kind, names in (("module", MODULES), ("inventory", ["vms"])):
        argv = [tool(example_estate.site, "ansible-doc"), "-t", kind, "--json", *[f"{COLLECTION}.{name}" for name in names]]
        found.update(json.loads(run(example_estate.site, argv)))
    return found


@pytest.fixture(scope="module")
def examples(example_estate, documented):
    """All examples of modules as tasks whose places, paths and ids are those of the lab."""
    site = example_estate.site
    replaced = {
        "/srv/backups": str(site.directory / "backups"),
        "/var/lib/libvirt/images": str(site.directory / "images"),
        "qemu:///system": site.uris[0],
        POINT: '"{{ committed.point.id }}"',
    }
    (site.directory / "images").mkdir()
    found: Dict[str, List[Dict[str, Any]]] = {}
    for module in MODULES:
        text = documented[f"{COLLECTION}.{module}"]["examples"] or ""
        for old, new in replaced.items():
            text = text.replace(old, new)
        found[module] = yaml.safe_load(text) or []
    return found


@pytest.fixture(scope="module")
def scenario(example_estate, examples):
    """One play of all examples."""
    site = example_estate.site
    hub, node = {"state_dir": site.hub_state}, {"state_dir": site.node_state}
    platform = dict(node, connection="{{ sendense_source.connection }}")
    given = {
        "backup": hub,
        "backup_verify": hub,
        "backup_prune": hub,
        "nbd_export": hub,
        "nbd_export_info": hub,
        "cleanup": hub,
        "backup_doctor": hub,
    }
    given.update(nbd_copy=node, vm_export=node, job_cancel=node, vm=platform, vm_snapshot=platform)
    defaults = {f"{COLLECTION}.{name}": arguments for name, arguments in given.items()}
    tasks = [examples[module][number] for module, number in ORDER]
    written = dict(play(tasks, hosts="web01"), module_defaults=defaults)
    # A relative report_dir is one below the directory that ansible-playbook runs in.
    written["tasks"] = [json.loads(json.dumps(task).replace('"reports"', json.dumps(str(site.directory / "reports")))) for task in tasks]
    return example_estate.generated("examples", [written], ok=False)


def tool(site: Site, name: str) -> str:
    """A command of Ansible beside ansible-playbook."""
    return str(Path(site.argv("x")[0]).with_name(name))


def run(site: Site, argv: List[str]) -> str:
    """Its output."""
    environ = dict(site.environ(), ANSIBLE_STDOUT_CALLBACK="ansible.builtin.default")
    done = subprocess.run(argv, cwd=ROOT, env=environ, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.mark.parametrize("module", [*MODULES, "vms"])
def test_every_plugin_has_documentation_and_examples(documented, module):
    found = documented[f"{COLLECTION}.{module}"]
    assert found["doc"]["short_description"] and found["doc"]["description"] and found["doc"]["options"]
    assert yaml.safe_load(found["examples"])
    if module != "vms":
        assert found["return"]


def test_every_example_of_every_module_is_run_once(examples):
    there = Counter((module, number) for module, tasks in examples.items() for number in range(len(tasks)))
    assert Counter(ORDER) == there
    assert sorted({module for module, _number in ORDER}) == MODULES


@pytest.mark.parametrize(("module", "number"), ORDER)
def test_the_example_works(scenario: Run, examples, module, number):
    name = examples[module][number]["name"]
    found = [task["result"] for task in scenario.tasks if task["task"].endswith(name)]
    assert len(found) == 1, f"{name!r} did not run:\n{scenario.output[-3000:]}"
    assert not found[0].get("failed"), found[0]


def test_names_of_examples_are_unique(examples):
    names = [task["name"] for tasks in examples.values() for task in tasks]
    assert Counter(names) == Counter(set(names))


def test_the_example_of_the_inventory_plugin_works(example_estate, documented):
    site = example_estate.site
    path = site.directory / "inventory-example.sendense.yml"
    example, uris = re.subn(r"\buri: \S+", f"uri: {site.uris[0]}", documented[f"{COLLECTION}.vms"]["examples"])
    assert uris == 2  # the node's and the controller's, which are one machine here
    path.write_text(example)
    listed = json.loads(run(site, [tool(site, "ansible-inventory"), "-i", str(path), "--list"]))
    assert "web01" in listed["sendense_machines"]["hosts"] and "web01" in listed["platform_libvirt"]["hosts"]
