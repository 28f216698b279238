#!/usr/bin/python
# Copyright: (c) 2026, Sendense contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Open or end the snapshot that a backup reads."""

from __future__ import annotations

DOCUMENTATION = r"""
---
module: vm_snapshot
short_description: Open or end the snapshot that a backup reads
version_added: 0.1.0
author:
  - Sendense contributors (@sendense)
description:
  - V(present) decides full or incremental for every disk, with the reason, and freezes all disks of the machine at one instant.
  - V(absent) ends it. With O(committed) the change tracking advances, otherwise the earlier change ids stay valid.
  - In check mode V(present) returns the decision and touches nothing.
extends_documentation_fragment:
  - sendense.platform.attributes
  - sendense.platform.platform
  - sendense.platform.place
  - sendense.platform.heartbeats
  - sendense.platform.repository
  - sendense.platform.tunnel
  - sendense.platform.bandwidth
attributes:
  diff_mode:
    support: full
options:
  state:
    description: Whether the snapshot of this job shall be open.
    type: str
    default: present
    choices: [present, absent]
  machine_id:
    description: The machine, by the platform's own id.
    type: str
    required: true
  job_id:
    description: The job, as M(sendense.platform.backup) returned it.
    type: str
    required: true
  owner:
    description: The chain owner, the first 8 hex digits of the repository's id.
    type: str
    required: true
  previous:
    description: The disks of the backup that an incremental can stand on; none means full.
    type: list
    elements: dict
    suboptions:
      id:
        description: The disk's stable id.
        type: str
        required: true
      size_bytes:
        description: Its size in that backup.
        type: int
        required: true
      change_id:
        description: The platform's token of that backup for this disk.
        type: str
        default: ''
  full_reason:
    description: Why there is no previous backup to stand on.
    type: str
    default: no_previous_backup
  known_change_ids:
    description: Change ids that committed backups of this owner still need.
    type: list
    elements: str
    default: []
  consistency:
    description: The consistency wanted.
    type: str
    default: filesystem
    choices: [crash, filesystem, application]
  allow_downgrade:
    description: Whether a crash-consistent backup is acceptable where the guest cannot be frozen. The downgrade is recorded.
    type: bool
    default: true
  skip_excluded_disks:
    description: Whether disks that the platform cannot snapshot are left out (and recorded) instead of failing the task.
    type: bool
    default: false
  max_bytes:
    description: Refuse before anything is touched if the backup may need more bytes than this.
    type: int
  repository:
    description:
      - The repository that the backup goes to. If the job is given up and this node can reach it, the node asks it whether the backup was
        committed and tidies the change tracking at once; otherwise the next backup or clean-up does.
    required: false
  committed:
    description: Whether the backup that read this snapshot was committed (V(absent) only).
    type: bool
    default: false
"""

EXAMPLES = r"""
- name: Open a snapshot of all disks
  sendense.platform.vm_snapshot:
    machine_id: "{{ sendense_machine_id }}"
    connection: "{{ sendense_source.connection }}"
    job_id: "{{ opened.job.id }}"
    owner: "{{ opened.repository.owner }}"
    hub_network: "{{ opened.job.network }}"
    tunnel: "{{ hostvars['hub01'].sendense_tunnel | default({}) }}"
    previous: "{{ opened.previous }}"
    full_reason: "{{ opened.full_reason }}"
  delegate_to: node01
  register: snapped

- name: End it after the commit
  sendense.platform.vm_snapshot:
    state: absent
    machine_id: "{{ sendense_machine_id }}"
    connection: "{{ sendense_source.connection }}"
    job_id: "{{ opened.job.id }}"
    owner: "{{ opened.repository.owner }}"
    committed: true
    known_change_ids: "{{ committed.known_change_ids }}"
  delegate_to: node01
"""

RETURN = r"""
snapshot:
  description: The open snapshot, as O(state=present) of later tasks and the commit need it.
  returned: when state is present, outside of check mode
  type: dict
plan:
  description: Level, reason and expected bytes of each disk.
  returned: when state is present
  type: dict
  sample: {expected_bytes: 1048576, disks: [{key: disk0, device: vda, level: incremental, reason: change_tracking}]}
disks:
  description: One entry per disk, in the form that M(sendense.platform.nbd_export) takes.
  returned: when state is present, outside of check mode
  type: list
  elements: dict
job:
  description: The job at this node, with the heartbeat file that keeps it alive.
  returned: when state is present, outside of check mode
  type: dict
tunnel:
  description:
    - The tunnel to the hub, with host, port, user and cipher; empty where none is needed.
    - In check mode it was made, proven and ended.
  returned: when state is present
  type: dict
  sample: {host: hub01.example.com, port: 443, user: sendense, cipher: aes128-gcm@openssh.com}
removed:
  description: What was removed at the source.
  returned: when state is absent
  type: list
  elements: str
"""

from typing import Any, Dict

from ansible_collections.sendense.platform.plugins.module_utils.arg_specs import (
    bandwidth_spec,
    heartbeats_spec,
    machine_spec,
    place_spec,
    platform_spec,
    repository_spec,
    tunnel_spec,
)
from ansible_collections.sendense.platform.plugins.module_utils.jobs import snapshot
from ansible_collections.sendense.platform.plugins.module_utils.module import run_module


def argument_spec() -> Dict[str, Any]:
    """The module's arguments."""
    previous = {
        "id": {"type": "str", "required": True},
        "size_bytes": {"type": "int", "required": True},
        "change_id": {"type": "str", "default": ""},
    }
    return dict(
        machine_spec(),
        **platform_spec(),
        **place_spec(),
        **repository_spec(required=False),
        **tunnel_spec(),
        **bandwidth_spec(),
        state={"type": "str", "default": "present", "choices": ["present", "absent"]},
        job_id={"type": "str", "required": True},
        owner={"type": "str", "required": True},
        previous={"type": "list", "elements": "dict", "options": previous},
        full_reason={"type": "str", "default": "no_previous_backup"},
        known_change_ids={"type": "list", "elements": "str", "default": []},
        consistency={"type": "str", "default": "filesystem", "choices": ["crash", "filesystem", "application"]},
        allow_downgrade={"type": "bool", "default": True},
        skip_excluded_disks={"type": "bool", "default": False},
        max_bytes={"type": "int"},
        committed={"type": "bool", "default": False},
        **heartbeats_spec(),
    )


def run(params: Dict[str, Any], check_mode: bool) -> Dict[str, Any]:
    """Open or end the snapshot."""
    if params["state"] == "absent":
        return snapshot.close_snapshot(params, check_mode)
    result = snapshot.open_snapshot(params, check_mode)
    header = f"backup of {params['platform']} machine {params['machine_id']}"
    lines = "".join(_diff_line(disk) for disk in result["plan"]["disks"])
    result["diff"] = {"before": "", "after": lines, "before_header": header, "after_header": header}
    return result


def _diff_line(disk: Dict[str, Any]) -> str:
    bound = "" if disk["expected_exact"] else "about "
    return f"{disk['key']}: {disk['level']} ({disk['reason']}), {bound}{disk['expected_bytes']} bytes to read\n"


def main() -> None:
    """Run the module."""
    run_module(run, argument_spec(), supports_check_mode=True)


if __name__ == "__main__":
    main()
