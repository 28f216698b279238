#!/usr/bin/python
# Copyright: (c) 2026, Sendense contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""List backups by filter."""

from __future__ import annotations

DOCUMENTATION = r"""
---
module: backup_info
short_description: List backups by filter
version_added: 0.1.0
author:
  - Sendense contributors (@sendense)
description:
  - Reads the manifests of a repository; nothing else is consulted.
  - Without O(machine_id) and O(machine_key), the backups of all machines are listed.
extends_documentation_fragment:
  - sendense.platform.attributes
  - sendense.platform.repository
  - sendense.platform.repository.required
  - sendense.platform.any_machine
options:
  status:
    description: Only backups in this state.
    type: str
    choices: [ok, damaged, merging]
  level:
    description: Only backups of this level.
    type: str
    choices: [full, incremental]
  since:
    description: Only backups created at or after this time (UTC, ISO 8601).
    type: str
  until:
    description: Only backups created at or before this time (UTC, ISO 8601).
    type: str
"""

EXAMPLES = r"""
- name: List the sound backups of one machine
  sendense.platform.backup_info:
    repository:
      path: /srv/backups
    machine_id: 6c9ce2d5-4f5e-4b7f-9a49-8c6f0ab1a001
    status: ok
  delegate_to: hub01
  register: listed
"""

RETURN = r"""
points:
  description:
    - The points that pass the filter, oldest first, with one entry per disk; C(device) is what the machine called the disk then.
    - C(audited) says which of the blocks that a point did not copy were compared with the source, C(all) or C(sample), C(distrusted) why no
      incremental is built on it.
  returned: success
  type: list
  elements: dict
  sample: [{point_id: 20261120T120000Z-1a2b3c4d, level: full, status: ok, machine_name: web01}]
"""

from typing import Any, Dict

from ansible_collections.sendense.platform.plugins.module_utils.arg_specs import any_machine_spec, repository_spec
from ansible_collections.sendense.platform.plugins.module_utils.jobs import info
from ansible_collections.sendense.platform.plugins.module_utils.module import read_only, run_module


def argument_spec() -> Dict[str, Any]:
    """The module's arguments."""
    return dict(
        repository_spec(),
        **any_machine_spec(),
        status={"type": "str", "choices": ["ok", "damaged", "merging"]},
        level={"type": "str", "choices": ["full", "incremental"]},
        since={"type": "str"},
        until={"type": "str"},
    )


def main() -> None:
    """Run the module."""
    run_module(read_only(info.points), argument_spec(), supports_check_mode=True)


if __name__ == "__main__":
    main()
