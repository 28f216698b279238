#!/usr/bin/python
# Copyright: (c) 2026, Sendense contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Describe the machines of a platform."""

from __future__ import annotations

DOCUMENTATION = r"""
---
module: vm_info
short_description: Describe the machines of a platform
version_added: 0.1.0
author:
  - Sendense contributors (@sendense)
description:
  - Discovery - disks with stable ids, firmware, network cards, guest agent and power state of every machine.
extends_documentation_fragment:
  - sendense.platform.attributes
  - sendense.platform.platform
options:
  machine_id:
    description: Only the machine with this id; all machines without it.
    type: str
"""

EXAMPLES = r"""
- name: Describe all machines of a host
  sendense.platform.vm_info:
    connection:
      uri: qemu:///system
  delegate_to: node01
  register: discovered
"""

RETURN = r"""
machines:
  description: The machines, sorted by id. Names come from the platform and must be treated as hostile.
  returned: success
  type: list
  elements: dict
  sample: [{platform: libvirt, id: 6c9ce2d5-4f5e-4b7f-9a49-8c6f0ab1a001, name: web01, inventory_name: web01, power: running}]
"""

from typing import Any, Dict

from ansible_collections.sendense.platform.plugins.module_utils.arg_specs import machine_spec, platform_spec
from ansible_collections.sendense.platform.plugins.module_utils.jobs import info
from ansible_collections.sendense.platform.plugins.module_utils.module import read_only, run_module


def argument_spec() -> Dict[str, Any]:
    """The module's arguments."""
    return dict(platform_spec(), **machine_spec(required=False))


def main() -> None:
    """Run the module."""
    run_module(read_only(info.machines), argument_spec(), supports_check_mode=True)


if __name__ == "__main__":
    main()
