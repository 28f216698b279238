#!/usr/bin/python
# Copyright: (c) 2026, Sendense contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Cancel the jobs of one machine at a hub or node."""

from __future__ import annotations

DOCUMENTATION = r"""
---
module: job_cancel
short_description: Cancel the jobs of one machine at a hub or node
version_added: 0.1.0
author:
  - Sendense contributors (@sendense)
description:
  - Asks the keeper of every living job of the machine at this place (backup, restore, verification, prune) to undo and end it.
  - The play that runs the job fails for this machine with the error code C(JOB_CANCELLED); other machines go on.
  - A job that has published its backup already stays as it is, backup included. Jobs of other machines are never touched.
  - A job has a half at its hub and one at its node; cancel it at both.
extends_documentation_fragment:
  - sendense.platform.attributes
  - sendense.platform.place.state
  - sendense.platform.any_machine
options:
  job_ids:
    description: Only these jobs of the machine. Empty means all.
    type: list
    elements: str
    default: []
  wait:
    description: Seconds to wait until the jobs have ended here. V(0) only asks for the end.
    type: int
    default: 60
"""

EXAMPLES = r"""
- name: Cancel whatever works on the machine at its node
  sendense.platform.job_cancel:
    machine_id: "{{ sendense_machine_id }}"
  delegate_to: node01
"""

RETURN = r"""
machine_key:
  description: The machine's key.
  returned: success
  type: str
jobs:
  description:
    - The jobs that were running here, and would be cancelled in check mode.
    - C(kind) is C(backup), C(restore), C(verify) or C(prune); C(job) if it ended meanwhile, or was begun by an older version.
  returned: success
  type: list
  elements: dict
  sample: [{job_id: 0123456789abcdef0123456789abcdef, kind: backup, role: node, requested_before: false}]
"""

from typing import Any, Dict

from ansible_collections.sendense.platform.plugins.module_utils.arg_specs import any_machine_spec, place_spec
from ansible_collections.sendense.platform.plugins.module_utils.jobs import cancel
from ansible_collections.sendense.platform.plugins.module_utils.module import run_module


def argument_spec() -> Dict[str, Any]:
    """The module's arguments."""
    return dict(
        any_machine_spec(),
        state_dir=place_spec()["state_dir"],
        job_ids={"type": "list", "elements": "str", "default": []},
        wait={"type": "int", "default": 60},
    )


def main() -> None:
    """Run the module."""
    run_module(cancel.cancel_jobs, argument_spec(), supports_check_mode=True)


if __name__ == "__main__":
    main()
