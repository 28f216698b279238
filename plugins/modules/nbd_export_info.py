#!/usr/bin/python
# Copyright: (c) 2026, Sendense contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""List export servers and leased ports of a hub."""

from __future__ import annotations

DOCUMENTATION = r"""
---
module: nbd_export_info
short_description: List export servers and leased ports of a hub
version_added: 0.1.0
author:
  - Sendense contributors (@sendense)
description:
  - Export servers with port, job, machine, export name, pid and state, and the port pool with its metrics.
extends_documentation_fragment:
  - sendense.platform.attributes
  - sendense.platform.place
options:
  job_id:
    description: Only what belongs to this job.
    type: str
  port:
    description: Only this port.
    type: int
"""

EXAMPLES = r"""
- name: Look at the exports of a hub
  sendense.platform.nbd_export_info:
  delegate_to: hub01
  register: hub_exports
"""

RETURN = r"""
exports:
  description: One entry per export server.
  returned: success
  type: list
  elements: dict
  sample: [{port: 10100, job: 0f0e0d0c0b0a09080706050403020100, export: libvirt-6c9c-disk0, pid: 4711, state: running}]
count:
  description: How many are listed.
  returned: success
  type: int
active:
  description: Whether there is one and all of them are running.
  returned: success
  type: bool
metrics:
  description: Export servers by state.
  returned: success
  type: dict
ports:
  description: Leases and the total, available and allocated ports with the utilisation (0 to 1).
  returned: success
  type: dict
"""

from typing import Any, Dict

from ansible_collections.sendense.platform.plugins.module_utils.arg_specs import place_spec
from ansible_collections.sendense.platform.plugins.module_utils.jobs import info
from ansible_collections.sendense.platform.plugins.module_utils.module import read_only, run_module


def argument_spec() -> Dict[str, Any]:
    """The module's arguments."""
    return dict(place_spec(), job_id={"type": "str"}, port={"type": "int"})


def main() -> None:
    """Run the module."""
    run_module(read_only(info.exports), argument_spec(), supports_check_mode=True)


if __name__ == "__main__":
    main()
