#!/usr/bin/python
# Copyright: (c) 2026, Sendense contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Serve disks at a hub as NBD exports on leased ports."""

from __future__ import annotations

DOCUMENTATION = r"""
---
module: nbd_export
short_description: Serve disks at a hub as NBD exports on leased ports
version_added: 0.1.0
author:
  - Sendense contributors (@sendense)
description:
  - One export server per disk, on a port of the pool 10100 to 10200 on loopback. Ports are leased all or nothing.
  - For a V(backup) the partial point is created and served for writing, for a V(restore) a committed point is served read-only,
  - for V(files) new image files are created and served for writing.
extends_documentation_fragment:
  - sendense.platform.attributes
  - sendense.platform.place
  - sendense.platform.repository
  - sendense.platform.heartbeats
options:
  state:
    description:
      - Whether the exports shall be served. V(stopped) takes O(port) or O(job_id).
      - V(aborted) takes O(job_id), and also removes what the job had begun to write.
    type: str
    default: started
    choices: [started, stopped, aborted]
  purpose:
    description: What is served.
    type: str
    default: backup
    choices: [backup, restore, files]
  job_id:
    description: The job. Required except for V(restore), which begins one.
    type: str
  port:
    description: Stop only the export on this port.
    type: int
  repository:
    description: The repository (V(restore) only; an open backup knows its own).
  machine_key:
    description: The machine in the repository (V(restore) only).
    type: str
  point_id:
    description: The backup to serve; the newest sound one without it (V(restore) only).
    type: str
  parent_id:
    description: The backup that incremental disks stand on (V(backup) only).
    type: str
    default: ''
  created_at:
    description: The instant of the snapshot, UTC in ISO 8601 (V(backup) only).
    type: str
  directory:
    description: Where the files are created, named after the disk keys (V(files) only).
    type: path
  format:
    description: Format of the files (V(files) only).
    type: str
    default: qcow2
    choices: [qcow2, raw]
  manifest:
    description: The manifest of the point whose disks are restored (V(files) only).
    type: dict
    default: {}
  disks:
    description: The disks (V(backup) only).
    type: list
    elements: dict
    default: []
    suboptions:
      key:
        description: C(disk0), C(disk1) and so on.
        type: str
        required: true
      id:
        description: The disk's stable id.
        type: str
        default: ''
      size_bytes:
        description: Virtual size.
        type: int
        default: 0
      level:
        description: Full or incremental.
        type: str
        default: full
        choices: [full, incremental]
      reason:
        description: Why that level.
        type: str
        default: ''
      change_id:
        description: The platform's token of the snapshot for this disk.
        type: str
        default: ''
      expected_bytes:
        description: Upper bound of the data to come, for the check of free space.
        type: int
        default: 0
  audit:
    description:
      - How much of what an incremental does not copy is compared with the source, to find a lie of change tracking (V(backup) only).
      - After a restart of the host, a restore of the machine or a change of its disks, all of it is.
    type: dict
    default: {}
    suboptions:
      share:
        description: Percent of the blocks of each disk, at least 64 blocks; V(0) for none, V(100) for all.
        type: float
        default: 1
      max_bytes:
        description: Most bytes that the sample of one machine may read; an audit of all blocks reads what it must.
        type: int
        default: 268435456
      after_events:
        description: Whether risky events are followed by an audit of all blocks.
        type: bool
        default: true
  incarnation:
    description: RV(sendense.platform.vm_snapshot#module:snapshot) says it; by it events since the parent are noticed (V(backup) only).
    type: dict
    default: {}
  only:
    description: Keys of the disks; all without it (V(restore) and V(files)).
    type: list
    elements: str
    default: []
  node:
    description: Inventory name of the node that will connect, recorded with the port.
    type: str
    default: ''
  port_wait:
    description:
      - Seconds to wait for free ports, then the task fails with C(PORTS_EXHAUSTED), which may be tried again.
      - The action plugin waits in short turns, and keeps the job alive at the places of O(heartbeats) meanwhile.
    type: int
    default: 300
"""

EXAMPLES = r"""
- name: Serve the images of an open backup
  sendense.platform.nbd_export:
    job_id: "{{ opened.job.id }}"
    parent_id: "{{ opened.parent_id }}"
    created_at: "{{ snapped.snapshot.created_at }}"
    disks: "{{ snapped.disks }}"
  delegate_to: hub01
  register: targets

- name: Serve a committed backup
  sendense.platform.nbd_export:
    purpose: restore
    repository:
      path: /srv/backups
    machine_key: libvirt-6c9ce2d5-4f5e-4b7f-9a49-8c6f0ab1a001
    point_id: 20261120T120000Z-1a2b3c4d
  delegate_to: hub01
  register: restore_sources

- name: Stop all exports of a job
  sendense.platform.nbd_export:
    state: stopped
    job_id: "{{ restore_sources.job.id }}"
  delegate_to: hub01
"""

RETURN = r"""
exports:
  description: One entry per disk.
  returned: when state is started
  type: list
  elements: dict
  sample: [{key: disk0, port: 10100, export: libvirt-6c9c-disk0, uri: 'nbd://127.0.0.1:10100/libvirt-6c9c-disk0'}]
nbd_targets_string:
  description: The exports in the form that M(sendense.platform.nbd_copy) takes.
  returned: when state is started
  type: str
  sample: disk0:nbd://127.0.0.1:10100/vm-disk0,disk1:nbd://127.0.0.1:10101/vm-disk1
point:
  description: The partial point (V(backup) only).
  returned: when purpose is backup
  type: dict
audit:
  description: What M(sendense.platform.nbd_copy) has to audit, with a file at this hub per disk, and why all blocks if it is all.
  returned: when purpose is backup
  type: dict
  sample: {in_full: false, reason: '', files: {disk0: /var/lib/sendense/jobs/6c9c-hub/audit-disk0.hashes}}
manifest:
  description: The manifest of the point (V(restore) only).
  returned: when purpose is restore
  type: dict
roots:
  description: Root of each disk's block hashes (V(restore) only).
  returned: when purpose is restore
  type: dict
nvram_path:
  description: File of the firmware variables in the repository, empty if the machine has none (V(restore) only).
  returned: when purpose is restore
  type: str
job:
  description: The job at this hub.
  returned: when purpose is restore or files
  type: dict
paths:
  description: The files by disk key (V(files) only).
  returned: when purpose is files
  type: dict
"""

from typing import Any, Dict

from ansible_collections.sendense.platform.plugins.module_utils.arg_specs import heartbeats_spec, place_spec, repository_spec
from ansible_collections.sendense.platform.plugins.module_utils.errors import InvalidInputError
from ansible_collections.sendense.platform.plugins.module_utils.jobs import exports
from ansible_collections.sendense.platform.plugins.module_utils.module import run_module


def argument_spec() -> Dict[str, Any]:
    """The module's arguments."""
    disk = {
        "key": {"type": "str", "required": True, "no_log": False},
        "id": {"type": "str", "default": ""},
        "size_bytes": {"type": "int", "default": 0},
        "level": {"type": "str", "default": "full", "choices": ["full", "incremental"]},
        "reason": {"type": "str", "default": ""},
        "change_id": {"type": "str", "default": ""},
        "expected_bytes": {"type": "int", "default": 0},
    }
    audit = {
        "share": {"type": "float", "default": 1.0},
        "max_bytes": {"type": "int", "default": 256 << 20},
        "after_events": {"type": "bool", "default": True},
    }
    return dict(
        place_spec(),
        **repository_spec(required=False),
        state={"type": "str", "default": "started", "choices": ["started", "stopped", "aborted"]},
        purpose={"type": "str", "default": "backup", "choices": ["backup", "restore", "files"]},
        job_id={"type": "str"},
        port={"type": "int"},
        machine_key={"type": "str", "no_log": False},
        point_id={"type": "str"},
        parent_id={"type": "str", "default": ""},
        created_at={"type": "str"},
        directory={"type": "path"},
        format={"type": "str", "default": "qcow2", "choices": ["qcow2", "raw"]},
        disks={"type": "list", "elements": "dict", "default": [], "options": disk},
        manifest={"type": "dict", "default": {}},
        audit={"type": "dict", "default": {}, "options": audit},
        incarnation={"type": "dict", "default": {}},
        only={"type": "list", "elements": "str", "default": []},
        node={"type": "str", "default": ""},
        port_wait={"type": "int", "default": 300},
        **heartbeats_spec(),
    )


_NEEDS = {
    "backup": ("job_id", "created_at", "disks"),
    "restore": ("repository", "machine_key"),
    "files": ("job_id", "directory", "manifest"),
}


def run(params: Dict[str, Any], check_mode: bool) -> Dict[str, Any]:
    """Serve or stop."""
    if params["state"] != "started":
        if not (params["port"] or params["job_id"]):
            raise InvalidInputError(f"nbd_export state={params['state']} needs port or job_id.")
        return {"changed": True} if check_mode else exports.stop(params)
    missing = [name for name in _NEEDS[params["purpose"]] if not params[name]]
    if missing:
        raise InvalidInputError(f"nbd_export purpose={params['purpose']} needs {', '.join(missing)}.")
    if params["purpose"] == "restore":
        return exports.start_for_restore(params, check_mode)
    if check_mode:
        return {"changed": True, "exports": [], "nbd_targets_string": ""}
    return exports.start_for_backup(params) if params["purpose"] == "backup" else exports.start_for_files(params)


def main() -> None:
    """Run the module."""
    run_module(run, argument_spec(), supports_check_mode=True)


if __name__ == "__main__":
    main()
