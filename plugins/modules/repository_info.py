#!/usr/bin/python
# Copyright: (c) 2026, Sendense contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Describe a repository and list what it holds."""

from __future__ import annotations

DOCUMENTATION = r"""
---
module: repository_info
short_description: Describe a repository and list what it holds
version_added: 0.1.0
author:
  - Sendense contributors (@sendense)
description:
  - Identity, capabilities and space of a repository.
  - With O(scan) the catalogue is rebuilt from the directories alone; there is no index that could be lost.
extends_documentation_fragment:
  - sendense.platform.attributes
  - sendense.platform.repository
  - sendense.platform.repository.required
options:
  scan:
    description: Also list every point and every partial point.
    type: bool
    default: false
"""

EXAMPLES = r"""
- name: Describe the repository
  sendense.platform.repository_info:
    repository:
      path: /srv/backups
    scan: true
  delegate_to: hub01
  register: described
"""

RETURN = r"""
repository:
  description: The repository.
  returned: success
  type: dict
  contains:
    identity:
      description: The marker.
      type: dict
    capabilities:
      description: What this backend can do here, such as how far immutability is enforced.
      type: dict
    space:
      description: Total and free bytes.
      type: dict
    machines:
      description: Keys of the machines that have backups here.
      type: list
    points:
      description: All points, oldest first; only with O(scan).
      type: list
    partials:
      description: Points being written or left behind; only with O(scan).
      type: list
"""

from typing import Any, Dict

from ansible_collections.sendense.platform.plugins.module_utils.arg_specs import repository_spec
from ansible_collections.sendense.platform.plugins.module_utils.jobs import info
from ansible_collections.sendense.platform.plugins.module_utils.module import read_only, run_module


def argument_spec() -> Dict[str, Any]:
    """The module's arguments."""
    return dict(repository_spec(), scan={"type": "bool", "default": False})


def main() -> None:
    """Run the module."""
    run_module(read_only(info.repository), argument_spec(), supports_check_mode=True)


if __name__ == "__main__":
    main()
