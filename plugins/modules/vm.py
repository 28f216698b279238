#!/usr/bin/python
# Copyright: (c) 2026, Sendense contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Create a machine from a backup, or switch one on or off."""

from __future__ import annotations

DOCUMENTATION = r"""
---
module: vm
short_description: Create a machine from a backup, or switch one on or off
version_added: 0.1.0
author:
  - Sendense contributors (@sendense)
description:
  - V(prepared) creates the disks and serves them for writing, V(present) defines the machine once they are written.
  - A machine, disk or file that is not the result of this very restore is never overwritten.
extends_documentation_fragment:
  - sendense.platform.attributes
  - sendense.platform.platform
  - sendense.platform.place
  - sendense.platform.heartbeats
  - sendense.platform.tunnel
  - sendense.platform.bandwidth
options:
  state:
    description: The step of a restore, or the power state wanted.
    type: str
    required: true
    choices: [prepared, present, absent, started, stopped]
  machine_id:
    description: The machine to switch on or off (V(started) and V(stopped) only).
    type: str
  job_id:
    description: The job of the restore.
    type: str
  manifest:
    description: The manifest of the point, as M(sendense.platform.nbd_export) returned it.
    type: dict
    default: {}
  name:
    description: Name of the new machine.
    type: str
  storage:
    description: Directory at the node in which the disks are created.
    type: path
  disks:
    description: Keys of the disks to restore; all without it.
    type: list
    elements: str
    default: []
  networks:
    description: Network of the backup to network of the target; the key C(*) stands for all others.
    type: dict
    default: {}
  keep_mac:
    description: Keep the MAC addresses of the backup instead of making new ones.
    type: bool
    default: false
  nvram_path:
    description: Firmware variables of the backup at this place; set by the action plugin.
    type: path
  nvram:
    description: Firmware variables of the backup at the hub, which the action plugin brings.
    type: dict
    suboptions:
      host:
        description: Inventory name of the hub.
        type: str
        required: true
      path:
        description: The file there.
        type: path
        required: true
  format:
    description: Format of the new disks.
    type: str
    default: qcow2
    choices: [qcow2, raw]
  power_on:
    description: Start the machine once it is defined (V(present) only).
    type: bool
    default: false
"""

EXAMPLES = r"""
- name: Create the disks of the restored machine
  sendense.platform.vm:
    state: prepared
    job_id: "{{ restore_sources.job.id }}"
    manifest: "{{ restore_sources.manifest }}"
    name: web01-restored
    storage: /var/lib/libvirt/images
    hub_network: "{{ restore_sources.job.network }}"
    tunnel: "{{ hostvars['hub01'].sendense_tunnel | default({}) }}"
  delegate_to: node01
  register: prepared

- name: Define and start it
  sendense.platform.vm:
    state: present
    job_id: "{{ restore_sources.job.id }}"
    manifest: "{{ restore_sources.manifest }}"
    name: web01-restored
    storage: /var/lib/libvirt/images
    power_on: true
  delegate_to: node01
"""

RETURN = r"""
existing_id:
  description: The machine that this very restore already made; then there is nothing to copy.
  returned: when state is prepared
  type: str
machine_id:
  description: The machine.
  returned: success
  type: str
nbd_targets_string:
  description: The new disks in the form that M(sendense.platform.nbd_copy) takes.
  returned: when state is prepared
  type: str
disks:
  description: The new disks.
  returned: when state is prepared
  type: list
  elements: dict
job:
  description: The job at this node.
  returned: when state is prepared
  type: dict
tunnel:
  description:
    - The tunnel to the hub, with host, port, user and cipher; empty where none is needed.
    - In check mode it was made, proven and ended.
  returned: when state is prepared
  type: dict
  sample: {host: hub01.example.com, port: 443, user: sendense, cipher: aes128-gcm@openssh.com}
machine:
  description: The machine as its platform describes it now.
  returned: when state is present
  type: dict
"""

from typing import Any, Dict

from ansible_collections.sendense.platform.plugins.module_utils.arg_specs import (
    bandwidth_spec,
    heartbeats_spec,
    machine_spec,
    place_spec,
    platform_spec,
    tunnel_spec,
)
from ansible_collections.sendense.platform.plugins.module_utils.errors import InvalidInputError
from ansible_collections.sendense.platform.plugins.module_utils.jobs import restore
from ansible_collections.sendense.platform.plugins.module_utils.module import run_module


def argument_spec() -> Dict[str, Any]:
    """The module's arguments."""
    nvram = {"host": {"type": "str", "required": True}, "path": {"type": "path", "required": True}}
    return dict(
        machine_spec(required=False),
        **platform_spec(),
        **place_spec(),
        **heartbeats_spec(),
        **tunnel_spec(),
        **bandwidth_spec(),
        state={"type": "str", "required": True, "choices": ["prepared", "present", "absent", "started", "stopped"]},
        job_id={"type": "str"},
        manifest={"type": "dict", "default": {}},
        name={"type": "str"},
        storage={"type": "path"},
        disks={"type": "list", "elements": "str", "default": []},
        networks={"type": "dict", "default": {}},
        keep_mac={"type": "bool", "default": False},
        nvram_path={"type": "path"},
        nvram={"type": "dict", "options": nvram},
        format={"type": "str", "default": "qcow2", "choices": ["qcow2", "raw"]},
        power_on={"type": "bool", "default": False},
    )


_RESTORE = ("job_id", "manifest", "name", "storage")
_NEEDS = {"prepared": _RESTORE, "present": _RESTORE, "absent": ("job_id",), "started": ("machine_id",), "stopped": ("machine_id",)}
_STEPS = {
    "prepared": restore.prepare,
    "present": restore.finish,
    "absent": restore.discard_restore,
    "started": restore.power,
    "stopped": restore.power,
}


def run(params: Dict[str, Any], check_mode: bool) -> Dict[str, Any]:
    """Run one step."""
    missing = [name for name in _NEEDS[params["state"]] if not params[name]]
    if missing:
        raise InvalidInputError(f"vm state={params['state']} needs {', '.join(missing)}.")
    return _STEPS[params["state"]](params, check_mode)


def main() -> None:
    """Run the module."""
    run_module(run, argument_spec(), supports_check_mode=True)


if __name__ == "__main__":
    main()
