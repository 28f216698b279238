#!/usr/bin/python
# Copyright: (c) 2026, Sendense contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Make a directory a backup repository."""

from __future__ import annotations

DOCUMENTATION = r"""
---
module: repository
short_description: Make a directory a backup repository
version_added: 0.1.0
author:
  - Sendense contributors (@sendense)
description:
  - Creates the identity marker that tells a repository from an empty or unmounted directory.
  - Never removes anything.
extends_documentation_fragment:
  - sendense.platform.attributes
  - sendense.platform.repository
  - sendense.platform.repository.required
options:
  state:
    description: V(present) initialises the repository if it is not.
    type: str
    default: present
    choices: [present]
  hash_algorithm:
    description:
      - Algorithm of the block hashes and file digests of all backups in this repository; fixed at creation.
      - V(xxh3_128) needs python3-xxhash at hub and node; V(sha256) needs nothing and costs more CPU.
    type: str
    default: xxh3_128
    choices: [xxh3_128, sha256]
"""

EXAMPLES = r"""
- name: Make the repository
  sendense.platform.repository:
    repository:
      path: /srv/backups
  delegate_to: hub01
"""

RETURN = r"""
identity:
  description: The marker of the repository.
  returned: success
  type: dict
  sample: {repository_id: 7d0ff0a4-0d8c-4b57-9f0e-1f1f2d2a3b4c, owner: 7d0ff0a4, schema_version: 1, hash_algorithm: xxh3_128}
"""

from typing import Any, Dict

from ansible_collections.sendense.platform.plugins.module_utils.arg_specs import repository_spec
from ansible_collections.sendense.platform.plugins.module_utils.errors import RepositoryMissingError
from ansible_collections.sendense.platform.plugins.module_utils.module import run_module
from ansible_collections.sendense.platform.plugins.module_utils.repositories import registry


def argument_spec() -> Dict[str, Any]:
    """The module's arguments."""
    return dict(
        repository_spec(),
        state={"type": "str", "default": "present", "choices": ["present"]},
        hash_algorithm={"type": "str", "default": "xxh3_128", "choices": ["xxh3_128", "sha256"]},
    )


def run(params: Dict[str, Any], check_mode: bool) -> Dict[str, Any]:
    """Initialise the repository once."""
    repository = registry.open_repository(params["repository"])
    if check_mode:
        try:
            return {"changed": False, "identity": repository.identity()}
        except RepositoryMissingError:
            return {"changed": True, "identity": {}}
    changed = repository.initialise(hash_algorithm=params["hash_algorithm"])
    return {"changed": changed, "identity": repository.identity()}


def main() -> None:
    """Run the module."""
    run_module(run, argument_spec(), supports_check_mode=True)


if __name__ == "__main__":
    main()
