#!/usr/bin/python
# Copyright: (c) 2026, Sendense contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Open, commit or abort the backup of a machine at its hub."""

from __future__ import annotations

DOCUMENTATION = r"""
---
module: backup
short_description: Open, commit or abort the backup of a machine at its hub
version_added: 0.1.0
author:
  - Sendense contributors (@sendense)
description:
  - V(open) takes the machine's lease, raises its generation and returns what an incremental can stand on.
  - V(committed) stops the export servers, makes all files durable, re-reads every block past the page cache, compares it with the hashes
  - taken while reading the source, writes the manifest and publishes the backup by one rename.
  - V(aborted) takes an uncommitted backup back and says whether it had been committed after all.
extends_documentation_fragment:
  - sendense.platform.attributes
  - sendense.platform.repository
  - sendense.platform.repository.required
  - sendense.platform.place
  - sendense.platform.following
  - sendense.platform.heartbeats
options:
  state:
    description: The step.
    type: str
    required: true
    choices: [open, committed, aborted]
  platform:
    description: The platform of the machine.
    type: str
    default: libvirt
    choices: [libvirt]
  machine_id:
    description: The machine, by the platform's own id.
    type: str
    required: true
  job_id:
    description: The id of the new job (V(open) only); made up if it is not given.
    type: str
  full:
    description: Ask for a full backup (V(open) only).
    type: bool
    default: false
  max_chain_depth:
    description: Longest chain of incrementals before the next full (V(open) only).
    type: int
    default: 30
  job:
    description: The job, as V(open) returned it.
    type: dict
  snapshot:
    description: The snapshot that was read, as M(sendense.platform.vm_snapshot) returned it (V(committed) only).
    type: dict
  copy:
    description: The result of M(sendense.platform.nbd_copy) (V(committed) only).
    type: dict
  parent_id:
    description: The backup that the job stood on (V(aborted) with O(lies) only).
    type: str
    default: ''
  lies:
    description:
      - What an audit found about change tracking, as M(sendense.platform.nbd_copy) says in C(details.lies) (V(aborted) only).
      - No incremental is built on O(parent_id) any more, and every backup that has a wrong block is marked as damaged.
    type: list
    elements: dict
    default: []
  node:
    description: Inventory name of the node, from which the action plugin brings the block hashes (V(committed) only).
    type: str
  files:
    description: Files of the job at this hub; set by the action plugin.
    type: dict
    default: {}
"""

EXAMPLES = r"""
- name: Open the backup
  sendense.platform.backup:
    state: open
    repository:
      path: /srv/backups
    machine_id: "{{ sendense_machine_id }}"
  delegate_to: hub01
  register: opened

- name: Commit it
  sendense.platform.backup:
    state: committed
    repository:
      path: /srv/backups
    machine_id: "{{ sendense_machine_id }}"
    job: "{{ opened.job }}"
    snapshot: "{{ snapped.snapshot }}"
    copy: "{{ copied }}"
    node: node01
  delegate_to: hub01
  register: committed
"""

RETURN = r"""
job:
  description: The job with its heartbeat file and its generation.
  returned: when state is open
  type: dict
previous:
  description: Disks of the backup that an incremental can stand on.
  returned: when state is open
  type: list
  elements: dict
parent_id:
  description: That backup.
  returned: when state is open
  type: str
full_reason:
  description: Why there is none.
  returned: when state is open
  type: str
room_bytes:
  description: Bytes that the backup may use.
  returned: when state is open
  type: int
point:
  description: The committed backup.
  returned: when state is committed
  type: dict
  sample: {id: 20261120T120000Z-1a2b3c4d, level: incremental, parent_id: 20261119T120000Z-5e6f7a8b}
disks:
  description: One entry per disk of the committed backup.
  returned: when state is committed
  type: list
  elements: dict
known_change_ids:
  description: Change ids that the machine's next incremental needs.
  returned: success
  type: list
  elements: str
committed:
  description: Whether the backup was in fact committed.
  returned: when state is aborted
  type: bool
lie:
  description: What became of O(lies), with the backups newly C(marked) as damaged; empty without them.
  returned: when state is aborted
  type: dict
audit:
  description: How many blocks that were not copied were compared with the source, whether that was all of them and why, and what failed.
  returned: when state is committed
  type: dict
  sample: {in_full: false, reason: '', blocks_checked: 4096, failed: []}
"""

from typing import Any, Dict

from ansible_collections.sendense.platform.plugins.module_utils.arg_specs import following_spec, machine_spec, place_spec, repository_spec
from ansible_collections.sendense.platform.plugins.module_utils.errors import InvalidInputError
from ansible_collections.sendense.platform.plugins.module_utils.jobs import backup
from ansible_collections.sendense.platform.plugins.module_utils.module import run_module


def argument_spec() -> Dict[str, Any]:
    """The module's arguments."""
    return dict(
        repository_spec(),
        **machine_spec(),
        **place_spec(),
        **following_spec(),
        state={"type": "str", "required": True, "choices": ["open", "committed", "aborted"]},
        platform={"type": "str", "default": "libvirt", "choices": ["libvirt"]},
        job_id={"type": "str"},
        full={"type": "bool", "default": False},
        max_chain_depth={"type": "int", "default": 30},
        job={"type": "dict"},
        snapshot={"type": "dict"},
        copy={"type": "dict"},
        parent_id={"type": "str", "default": ""},
        lies={"type": "list", "elements": "dict", "default": []},
        node={"type": "str"},
        files={"type": "dict", "default": {}},
    )


_STEPS = {"open": backup.open_backup, "committed": backup.commit_backup, "aborted": backup.abort_backup}
_NEEDS = {"open": (), "committed": ("job", "snapshot", "copy", "files"), "aborted": ("job",)}


def run(params: Dict[str, Any], check_mode: bool) -> Dict[str, Any]:
    """Run one step."""
    missing = [name for name in _NEEDS[params["state"]] if not params[name] and not check_mode]
    if missing:
        raise InvalidInputError(f"backup state={params['state']} needs {', '.join(missing)}.")
    return _STEPS[params["state"]](params, check_mode)


def main() -> None:
    """Run the module."""
    run_module(run, argument_spec(), supports_check_mode=True)


if __name__ == "__main__":
    main()
