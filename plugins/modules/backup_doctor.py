#!/usr/bin/python
# Copyright: (c) 2026, Sendense contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Find, explain and mend what is wrong with backups."""

from __future__ import annotations

DOCUMENTATION = r"""
---
module: backup_doctor
short_description: Find, explain and on request mend what is wrong with backups
version_added: 0.2.0
author:
  - Sendense contributors (@sendense)
description:
  - Looks at one half of the product, the hub (repository and state directory) or a node (machines and state directory).
  - Every finding says what it means for restores and for the next backup, and what mending would do.
  - Mends only the kinds that O(mend) names. Living jobs, backups that are offered for a restore and everything foreign stay as
    they are. A second run changes nothing.
  - Each kind has a section in C(docs/runbooks/doctor-findings.md).
extends_documentation_fragment:
  - sendense.platform.attributes
  - sendense.platform.place
  - sendense.platform.platform.machines
  - sendense.platform.repository
options:
  role:
    description: Which half to look at.
    type: str
    required: true
    choices: [hub, node]
  inventory:
    description:
      - Keys of all machines of the inventory, C(sendense_machine_key) (hub only). Machines of the repository that are not among
        them are looked at, too, and reported as gone.
      - Without any, no machine is called gone. Without any O(machines) either, all machines of the repository are looked at.
    type: list
    elements: str
    default: []
  repository:
    description: The repository to look at (hub only); without it only the state directory.
  digests:
    description:
      - Also read every byte of every backup's files and compare their digests (hub only). Takes as long as the storage needs.
      - Only this tells two images of the same shape that were put in each other's place.
    type: bool
    default: false
  storage:
    description: Directories in which restores create disks (node only). Disks there that no machine uses are reported.
    type: list
    elements: path
    default: []
  mend:
    description: The kinds of findings to mend, or V(all). Nothing is mended without it.
    type: list
    elements: str
    default: []
  owner:
    description: First 8 hex digits of the repository id, as the hub's answer has it (node only). Without it change tracking is not judged.
    type: str
    default: ''
  known_change_ids:
    description: Per machine id, the change ids that its newest backup needs, as the hub's answer has them (node only).
    type: dict
    default: {}
  known_at:
    description: When the hub looked, in seconds since 1970, as its answer has it (node only). What is newer is not judged.
    type: float
    default: 0
"""

EXAMPLES = r"""
- name: Look at the hub and mend what dead jobs left there
  sendense.platform.backup_doctor:
    role: hub
    machines: "{{ ansible_play_hosts | map('extract', hostvars, 'sendense_source') | list }}"
    repository:
      path: /srv/backups
    mend: [dead_job, partial_orphan]
  delegate_to: hub01
  run_once: true
  register: examined_hub

- name: Look at the machines of a node
  sendense.platform.backup_doctor:
    role: node
    machines: "{{ ansible_play_hosts | map('extract', hostvars, 'sendense_source') | list }}"
    owner: "{{ examined_hub.owner }}"
    known_change_ids: "{{ examined_hub.known_change_ids }}"
    known_at: "{{ examined_hub.known_at }}"
  delegate_to: node01
  run_once: true
  register: examined_node
"""

RETURN = r"""
findings:
  description: What was found, worst first; C(mended) says what is no more.
  returned: success
  type: list
  elements: dict
  sample:
    - kind: partial_orphan
      severity: warning
      where: hub
      machine_key: libvirt-6c9ce2d5-4f5e-4b7f-9a49-8c6f0ab1a001
      object: 20261120T120000Z-1a2b3c4d
      found: job 1a2b3c4d5e6f708192a3b4c5d6e7f809, which wrote it, is dead
      meaning: It takes space and is never offered for a restore. The next backup of the machine removes it.
      mending: The partial backup is removed.
      mendable: true
      mended: false
      why_not: ''
counts:
  description: How many findings of each severity are left.
  returned: success
  type: dict
  sample: {error: 0, warning: 1, hint: 0}
ok:
  description: Whether no finding of severity C(error) is left.
  returned: success
  type: bool
would_mend:
  description: What would be mended (check mode only).
  returned: success
  type: list
  elements: str
place:
  description: Identity of the state directory; the same if hub and node share one. Empty if it is not there.
  returned: success
  type: str
owner:
  description: First 8 hex digits of the repository id (hub only).
  returned: success
  type: str
known_change_ids:
  description: Per machine id, the change ids that its newest backup needs (hub only).
  returned: success
  type: dict
known_at:
  description: When the hub looked, in seconds since 1970 (hub only).
  returned: success
  type: float
"""

from typing import Any, Dict

from ansible_collections.sendense.platform.plugins.module_utils.arg_specs import machines_spec, place_spec, repository_spec
from ansible_collections.sendense.platform.plugins.module_utils.jobs.doctor import examination
from ansible_collections.sendense.platform.plugins.module_utils.module import run_module


def argument_spec() -> Dict[str, Any]:
    """The module's arguments."""
    return dict(
        place_spec(),
        **repository_spec(required=False),
        **machines_spec(),
        role={"type": "str", "required": True, "choices": ["hub", "node"]},
        inventory={"type": "list", "elements": "str", "default": []},
        digests={"type": "bool", "default": False},
        storage={"type": "list", "elements": "path", "default": []},
        mend={"type": "list", "elements": "str", "default": []},
        owner={"type": "str", "default": ""},
        known_change_ids={"type": "dict", "default": {}},
        known_at={"type": "float", "default": 0},
    )


def run(params: Dict[str, Any], check_mode: bool) -> Dict[str, Any]:
    """Look at this half."""
    examine = examination.examine_hub if params["role"] == "hub" else examination.examine_node
    return examine(params, check_mode)


def main() -> None:
    """Run the module."""
    run_module(run, argument_spec(), supports_check_mode=True)


if __name__ == "__main__":
    main()
