#!/usr/bin/python
# Copyright: (c) 2026, Sendense contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Remove what dead jobs left at a hub or node."""

from __future__ import annotations

DOCUMENTATION = r"""
---
module: cleanup
short_description: Remove what dead jobs left at a hub or node
version_added: 0.1.0
author:
  - Sendense contributors (@sendense)
description:
  - Runs the undo commands of jobs whose keeper is dead, removes partial backups, ends backup jobs and drops checkpoints of dead jobs.
  - Whatever belongs to a living job, to another owner or to somebody else is not touched.
extends_documentation_fragment:
  - sendense.platform.attributes
  - sendense.platform.place
  - sendense.platform.platform.machines
  - sendense.platform.repository
options:
  role:
    description: Which half of the jobs lives at this place.
    type: str
    required: true
    choices: [hub, node]
  repository:
    description: The repository whose partial points are cleaned up (hub only).
  owner:
    description: First 8 hex digits of the repository id, whose unneeded checkpoints may be dropped (node only). Empty drops none.
    type: str
    default: ''
  known_change_ids:
    description: Per machine id, the change ids that its newest backup needs, as the hub's clean-up returned them (node only).
    type: dict
    default: {}
"""

EXAMPLES = r"""
- name: Clean up the hub
  sendense.platform.cleanup:
    role: hub
    machines: "{{ ansible_play_hosts | map('extract', hostvars, 'sendense_source') | list }}"
    repository:
      path: /srv/backups
  delegate_to: hub01
  run_once: true
  register: cleaned
"""

RETURN = r"""
removed:
  description: What was removed, or would be in check mode.
  returned: success
  type: list
  elements: dict
  sample: [{kind: partial, name: 20261120T120000Z-1a2b3c4d, machine_id: 6c9ce2d5-4f5e-4b7f-9a49-8c6f0ab1a001}]
owner:
  description: First 8 hex digits of the repository id (hub only).
  returned: success
  type: str
known_change_ids:
  description: Per machine id, the change ids that its newest backup needs (hub only).
  returned: success
  type: dict
"""

from typing import Any, Dict

from ansible_collections.sendense.platform.plugins.module_utils.arg_specs import machines_spec, place_spec, repository_spec
from ansible_collections.sendense.platform.plugins.module_utils.jobs import cleanup
from ansible_collections.sendense.platform.plugins.module_utils.module import run_module


def argument_spec() -> Dict[str, Any]:
    """The module's arguments."""
    return dict(
        place_spec(),
        **repository_spec(required=False),
        **machines_spec(),
        role={"type": "str", "required": True, "choices": ["hub", "node"]},
        owner={"type": "str", "default": ""},
        known_change_ids={"type": "dict", "default": {}},
    )


def run(params: Dict[str, Any], check_mode: bool) -> Dict[str, Any]:
    """Clean up this half."""
    clean = cleanup.clean_hub if params["role"] == "hub" else cleanup.clean_node
    return clean(params, check_mode)


def main() -> None:
    """Run the module."""
    run_module(run, argument_spec(), supports_check_mode=True)


if __name__ == "__main__":
    main()
