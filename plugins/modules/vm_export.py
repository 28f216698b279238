#!/usr/bin/python
# Copyright: (c) 2026, Sendense contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Serve the disks of an open snapshot over NBD."""

from __future__ import annotations

DOCUMENTATION = r"""
---
module: vm_export
short_description: Serve the disks of an open snapshot over NBD
version_added: 0.1.0
author:
  - Sendense contributors (@sendense)
description:
  - Returns one NBD source per disk; what the platform does not serve itself is served by the node's keeper.
  - Checks name, size and a second connection of every export before any data moves.
extends_documentation_fragment:
  - sendense.platform.attributes
  - sendense.platform.place
  - sendense.platform.heartbeats
options:
  state:
    description: Whether the sources shall be served.
    type: str
    default: started
    choices: [started, stopped]
  job_id:
    description: The job whose snapshot is served.
    type: str
    required: true
"""

EXAMPLES = r"""
- name: Serve the disks of the snapshot
  sendense.platform.vm_export:
    job_id: "{{ opened.job.id }}"
  delegate_to: node01
  register: served
"""

RETURN = r"""
sources:
  description: One entry per disk.
  returned: when state is started
  type: list
  elements: dict
  sample: [{key: disk0, uri: 'nbd+unix:///disk0?socket=/run/x.sock', size_bytes: 268435456, level: full}]
"""

from typing import Any, Dict

from ansible_collections.sendense.platform.plugins.module_utils.arg_specs import heartbeats_spec, place_spec
from ansible_collections.sendense.platform.plugins.module_utils.jobs import snapshot
from ansible_collections.sendense.platform.plugins.module_utils.module import run_module


def argument_spec() -> Dict[str, Any]:
    """The module's arguments."""
    return dict(
        place_spec(),
        state={"type": "str", "default": "started", "choices": ["started", "stopped"]},
        job_id={"type": "str", "required": True},
        **heartbeats_spec(),
    )


def run(params: Dict[str, Any], check_mode: bool) -> Dict[str, Any]:
    """Serve or stop."""
    if check_mode:
        return {"changed": True, "sources": []}
    return snapshot.start_exports(params) if params["state"] == "started" else snapshot.stop_exports(params)


def main() -> None:
    """Run the module."""
    run_module(run, argument_spec(), supports_check_mode=True)


if __name__ == "__main__":
    main()
