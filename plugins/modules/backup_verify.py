#!/usr/bin/python
# Copyright: (c) 2026, Sendense contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Verify backups: structure, digests and every block."""

from __future__ import annotations

DOCUMENTATION = r"""
---
module: backup_verify
short_description: Verify the structure, digests and every block of backups
version_added: 0.1.0
author:
  - Sendense contributors (@sendense)
description:
  - Checks manifest, sizes, image headers and digests of a backup and of all it stands on,
    then reads all data and compares it with the block hashes.
  - A damaged backup and all that depend on it are marked; the next backup of the machine is then a full one.
extends_documentation_fragment:
  - sendense.platform.attributes
  - sendense.platform.repository
  - sendense.platform.repository.required
  - sendense.platform.any_machine
  - sendense.platform.place
  - sendense.platform.following
  - sendense.platform.heartbeats
options:
  point_ids:
    description: The backups to verify; the newest sound one without it.
    type: list
    elements: str
    default: []
  all_points:
    description: Verify every backup of the machine.
    type: bool
    default: false
  job_id:
    description: The id of the job; set by the action plugin.
    type: str
"""

EXAMPLES = r"""
- name: Verify the newest backup of a machine
  sendense.platform.backup_verify:
    repository:
      path: /srv/backups
    machine_id: "{{ sendense_machine_id }}"
  delegate_to: hub01
  register: verified
"""

RETURN = r"""
ok:
  description: Whether everything that was verified is what was committed.
  returned: success
  type: bool
points:
  description: One entry per point that was verified, oldest first, with one result per disk.
  returned: success
  type: list
  elements: dict
  sample: [{point_id: 20261120T120000Z-1a2b3c4d, ok: true, disks: [{key: disk0, ok: true, blocks_checked: 4096}]}]
marked:
  description: Points newly marked as damaged.
  returned: success
  type: list
  elements: str
"""

from typing import Any, Dict

from ansible_collections.sendense.platform.plugins.module_utils.arg_specs import (
    any_machine_spec,
    following_spec,
    place_spec,
    repository_spec,
)
from ansible_collections.sendense.platform.plugins.module_utils.jobs import verify
from ansible_collections.sendense.platform.plugins.module_utils.module import run_module


def argument_spec() -> Dict[str, Any]:
    """The module's arguments."""
    return dict(
        repository_spec(),
        **any_machine_spec(),
        **place_spec(),
        **following_spec(),
        point_ids={"type": "list", "elements": "str", "default": []},
        all_points={"type": "bool", "default": False},
        job_id={"type": "str"},
    )


def main() -> None:
    """Run the module."""
    run_module(verify.verify_points, argument_spec(), supports_check_mode=True)


if __name__ == "__main__":
    main()
