#!/usr/bin/python
# Copyright: (c) 2026, Sendense contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Copy the disks of a machine between NBD exports."""

from __future__ import annotations

DOCUMENTATION = r"""
---
module: nbd_copy
short_description: Copy the disks of a machine between NBD exports
version_added: 0.1.0
author:
  - Sendense contributors (@sendense)
description:
  - Runs the mover over all disks at once - reads, hashes every 64 KiB block, skips holes, writes zeros, flushes.
  - A failure of one disk fails the task; the result always has one entry per disk.
extends_documentation_fragment:
  - sendense.platform.attributes
  - sendense.platform.place
  - sendense.platform.following
  - sendense.platform.heartbeats
  - sendense.platform.bandwidth
options:
  job_id:
    description: The job.
    type: str
    required: true
  sources:
    description: Where each disk is read, as M(sendense.platform.vm_export) or M(sendense.platform.nbd_export) returned it.
    type: list
    elements: dict
    required: true
    suboptions:
      key:
        description: C(disk0), C(disk1) and so on.
        type: str
        required: true
      id:
        description: The disk's stable id.
        type: str
      uri:
        description: NBD URI of the export to read.
        type: str
        required: true
      size_bytes:
        description: Virtual size; must be that of both exports.
        type: int
        required: true
      level:
        description: Full or incremental.
        type: str
        default: full
        choices: [full, incremental]
      changed_context:
        description: NBD meta context that marks what has changed (incremental only).
        type: str
        default: ''
      changed_flag:
        description: The bit of that context's status that means changed.
        type: int
        default: 1
      port:
        description: Port of the export; not used.
        type: int
      export:
        description: Name of the export; not used.
        type: str
  nbd_targets:
    description: Where each disk is written, in the form of RV(sendense.platform.nbd_export#module:nbd_targets_string).
    type: str
    required: true
  hash_algorithm:
    description: Algorithm of the block hashes.
    type: str
    default: xxh3_128
    choices: [xxh3_128, sha256]
  role:
    description: At which half of the job the mover runs; V(hub) for a restore to files.
    type: str
    default: node
    choices: [node, hub]
  at_hub:
    description: Which side of the copy the hub serves. If the job has a tunnel to it, the copy goes through that.
    type: str
    default: targets
    choices: [targets, sources]
  expected_roots:
    description: Per disk key, the root that the blocks read must have; a restore gives those of the manifest.
    type: dict
    default: {}
  audit:
    description:
      - The C(audit) that M(sendense.platform.nbd_export) returned for a backup, with C(host), the inventory name of that hub, and
        C(folder), the job's directory at this place. The action plugin brings the files.
      - Blocks that are in them and not among the changes are read and compared before anything is copied; a difference is C(TRACKING_LIED).
    type: dict
    default: {}
  stall_seconds:
    description: Give up when no byte has moved for so long.
    type: int
    default: 60
"""

EXAMPLES = r"""
- name: Copy all disks
  sendense.platform.nbd_copy:
    job_id: "{{ opened.job.id }}"
    sources: "{{ served.sources }}"
    nbd_targets: "{{ targets.nbd_targets_string }}"
    audit: "{{ targets.audit | combine({'host': 'hub01', 'folder': snapped.job.path}) }}"
    heartbeats:
      - host: hub01
        path: "{{ opened.job.heartbeat }}"
  delegate_to: node01
  register: copied

- name: Copy a served backup to the disks of a new machine
  sendense.platform.nbd_copy:
    job_id: "{{ restore_sources.job.id }}"
    sources: "{{ restore_sources.exports }}"
    at_hub: sources
    nbd_targets: "{{ prepared.nbd_targets_string }}"
    expected_roots: "{{ restore_sources.roots }}"
    heartbeats:
      - host: hub01
        path: "{{ restore_sources.job.heartbeat }}"
  delegate_to: node01
"""

RETURN = r"""
disks:
  description: One result per disk, also when the task fails (then in C(details.disks)).
  returned: always
  type: list
  elements: dict
  sample: [{key: disk0, state: done, bytes_read: 1048576, bytes_written: 1048576, bytes_zeroed: 0, seconds: 0.1, error: null}]
totals:
  description: Bytes read, written and zeroed, seconds and rate (bytes per second) of the whole machine.
  returned: success
  type: dict
details:
  description: Facts of a failure, with one result per disk in C(disks), and in C(lies) the disks about which change tracking lied.
  returned: failure
  type: dict
"""

from typing import Any, Dict

from ansible_collections.sendense.platform.plugins.module_utils.arg_specs import bandwidth_spec, following_spec, place_spec
from ansible_collections.sendense.platform.plugins.module_utils.jobs import copying
from ansible_collections.sendense.platform.plugins.module_utils.module import run_module


def argument_spec() -> Dict[str, Any]:
    """The module's arguments."""
    source = {
        "key": {"type": "str", "required": True, "no_log": False},
        "id": {"type": "str"},
        "uri": {"type": "str", "required": True},
        "size_bytes": {"type": "int", "required": True},
        "level": {"type": "str", "default": "full", "choices": ["full", "incremental"]},
        "changed_context": {"type": "str", "default": ""},
        "changed_flag": {"type": "int", "default": 1},
        "port": {"type": "int"},
        "export": {"type": "str"},
    }
    return dict(
        place_spec(),
        **following_spec(),
        **bandwidth_spec(),
        job_id={"type": "str", "required": True},
        sources={"type": "list", "elements": "dict", "required": True, "options": source},
        nbd_targets={"type": "str", "required": True},
        hash_algorithm={"type": "str", "default": "xxh3_128", "choices": ["xxh3_128", "sha256"]},
        role={"type": "str", "default": "node", "choices": ["node", "hub"]},
        at_hub={"type": "str", "default": "targets", "choices": ["targets", "sources"]},
        expected_roots={"type": "dict", "default": {}},
        audit={"type": "dict", "default": {}},
        stall_seconds={"type": "int", "default": 60},
    )


def run(params: Dict[str, Any], check_mode: bool) -> Dict[str, Any]:
    """Copy."""
    return copying.copy_disks(params, check_mode)


def main() -> None:
    """Run the module."""
    run_module(run, argument_spec(), supports_check_mode=True)


if __name__ == "__main__":
    main()
