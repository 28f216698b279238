# Copyright: (c) 2026, Sendense contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Machines of a platform as inventory hosts."""

from __future__ import annotations

DOCUMENTATION = r"""
name: vms
short_description: Machines of a virtualization platform as inventory hosts
version_added: 0.1.0
author:
  - Sendense contributors (@sendense)
description:
  - Discovers all machines of one or more platform connections from the controller and makes each an inventory host.
  - A host is named after its machine if that name matches C([A-Za-z0-9][A-Za-z0-9._-]{0,62}) and is unique, otherwise
    C(PLATFORM-) and the first 12 hex digits of the machine's id. The real name is C(sendense_machine_name).
  - Groups are C(sendense_machines), C(platform_NAME), C(power_STATE), C(tag_TAG) and C(policy_POLICY).
  - Names, tags and policies come from the platform and are never evaluated as templates.
options:
  plugin:
    description: The name of this plugin.
    type: str
    required: true
    choices: [sendense.platform.vms]
  sources:
    description: Where machines are discovered.
    type: list
    elements: dict
    required: true
    suboptions:
      platform:
        description: The platform.
        type: str
        default: libvirt
      connection:
        description: How its node reaches it, as for M(sendense.platform.vm_info).
        type: dict
        default: {}
      discovery_connection:
        description:
          - Options of O(sources[].connection) that are others at the controller, which lists the machines, C(uri) above all.
          - Nodes never see them.
        type: dict
        default: {}
      node:
        description: Inventory name of the node that reads these machines; empty means the first of C(sendense_nodes).
        type: str
        default: ''
requirements:
  - python3-libvirt of the distribution, for the Python that runs Ansible
"""

EXAMPLES = r"""
# inventories/production/machines.sendense.yml
plugin: sendense.platform.vms
sources:
  - platform: libvirt
    connection:
      uri: qemu:///system
    discovery_connection:
      uri: qemu+ssh://sendense@node01.example.com/system?keyfile=/etc/sendense/discovery
    node: node01
"""

import re
import sys
from typing import Any, Dict, List, Tuple

from ansible.errors import AnsibleParserError
from ansible.plugins.inventory import BaseInventoryPlugin

from ansible_collections.sendense.platform.plugins.module_utils.errors import SendenseError
from ansible_collections.sendense.platform.plugins.module_utils.model import Machine, inventory_name
from ansible_collections.sendense.platform.plugins.module_utils.platforms import registry

FILE_ENDINGS = (".sendense.yml", ".sendense.yaml")
MACHINES_GROUP = "sendense_machines"


class InventoryModule(BaseInventoryPlugin):
    """One host per machine."""

    NAME = "sendense.platform.vms"

    def verify_file(self, path: str) -> bool:
        """Only files that end in .sendense.yml or .sendense.yaml."""
        return bool(super().verify_file(path)) and path.endswith(FILE_ENDINGS)

    def parse(self, inventory: Any, loader: Any, path: str, cache: bool = True) -> None:
        """Discover the machines of all sources."""
        super().parse(inventory, loader, path, cache)
        self._read_config_data(path)
        found: List[Tuple[Machine, Dict[str, Any]]] = []
        for source in self.get_option("sources"):
            found += [(machine, source) for machine in self._discover(source, path)]
        names = [machine.name for machine, _source in found]
        self.inventory.add_group(MACHINES_GROUP)
        for machine, source in found:
            unique = names.count(machine.name) == 1 and machine.name not in self.inventory.hosts
            self._add(machine, source, inventory_name(machine.platform, machine.id, machine.name, unique))

    def _discover(self, source: Dict[str, Any], path: str) -> List[Machine]:
        try:
            connection = {**(source.get("connection") or {}), **(source.get("discovery_connection") or {})}
            return registry.discover(source.get("platform", "libvirt"), connection)
        except SendenseError as error:
            raise AnsibleParserError(f"{path}: {error.msg} [{error.error_code}]") from error

    def _add(self, machine: Machine, source: Dict[str, Any], host: str) -> None:
        self.inventory.add_host(host, group=MACHINES_GROUP)
        variables = {
            "ansible_connection": "local",
            "ansible_python_interpreter": sys.executable,
            "sendense_machine_name": machine.name,
            "sendense_machine_id": machine.id,
            "sendense_machine_key": machine.key,
            "sendense_policy": machine.policy,
            "sendense_tags": list(machine.tags),
            "sendense_power": machine.power,
            "sendense_source": {
                "platform": machine.platform,
                "machine_id": machine.id,
                "connection": dict(source.get("connection") or {}),
                "node": source.get("node", "") or "",
            },
        }
        for name, value in variables.items():
            self.inventory.set_variable(host, name, value)
        for group in groups_of(machine):
            self.inventory.add_group(group)
            self.inventory.add_host(host, group=group)


def groups_of(machine: Machine) -> List[str]:
    """The machine's groups: what a platform calls its tags is reduced to letters, digits and underscores."""
    groups = [f"platform_{machine.platform}", f"power_{machine.power}"]
    groups += [f"tag_{_group_part(tag)}" for tag in machine.tags]
    if machine.policy:
        groups.append(f"policy_{_group_part(machine.policy)}")
    return sorted(set(groups))


def _group_part(text: str) -> str:
    return re.sub(r"[^A-Za-z0-9_]", "_", text)[:63]
