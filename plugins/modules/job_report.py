#!/usr/bin/python
# Copyright: (c) 2026, Sendense contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Say how the job of one machine ended."""

from __future__ import annotations

DOCUMENTATION = r"""
---
module: job_report
short_description: Say how the job of one machine ended
version_added: 0.1.0
author:
  - Sendense contributors (@sendense)
description:
  - Shows a few lines on the controller and, on request, writes them as JSON.
  - Given a failure, it fails with that failure's own message, code and details, once the job has been taken back.
extends_documentation_fragment:
  - sendense.platform.attributes
options:
  job:
    description: What kind of job.
    type: str
    required: true
    choices: [backup, verify, restore, doctor, prune, list]
  failure:
    description: The result of the task that failed.
    type: dict
  opened:
    description: Result of M(sendense.platform.backup) with O(sendense.platform.backup#module:state=open).
    type: dict
  snapped:
    description: Result of M(sendense.platform.vm_snapshot).
    type: dict
  copied:
    description: Result of M(sendense.platform.nbd_copy).
    type: dict
  committed:
    description: Result of M(sendense.platform.backup) with O(sendense.platform.backup#module:state=committed).
    type: dict
  aborted:
    description:
      - Result of M(sendense.platform.backup) with O(sendense.platform.backup#module:state=aborted), which knows whether the backup had been
        published before the failure.
    type: dict
  lie:
    description: What RV(sendense.platform.backup#module:lie) says of a backup that had to be made again in full.
    type: dict
    default: {}
  verified:
    description: Result of M(sendense.platform.backup_verify).
    type: dict
  served:
    description: Result of M(sendense.platform.nbd_export) that served the backup of a restore.
    type: dict
  restored:
    description: Result of M(sendense.platform.vm), or of M(sendense.platform.nbd_export) for files.
    type: dict
  examined:
    description: Results of M(sendense.platform.backup_doctor), of the hub and of all nodes.
    type: list
    elements: dict
  machine_id:
    description: The machine whose findings are reported.
    type: str
  machine_ids:
    description: All machines of the play.
    type: list
    elements: str
  rest:
    description: Whether to report the findings that concern none of O(machine_ids), too. One host of the play does.
    type: bool
  pruned:
    description: Result of M(sendense.platform.backup_prune).
    type: dict
  listed:
    description: Result of M(sendense.platform.backup_info).
    type: dict
  destination:
    description: Where a restore goes, in words for the report.
    type: str
  report_dir:
    description: Directory on the controller for C(JOB-MACHINE.json); nothing is written without it.
    type: path
"""

EXAMPLES = r"""
- name: Report the backup
  sendense.platform.job_report:
    job: backup
    opened: "{{ opened }}"
    snapped: "{{ snapped }}"
    copied: "{{ copied }}"
    committed: "{{ committed }}"
    report_dir: reports
"""

RETURN = r"""
report:
  description:
    - The report as data.
    - Of a failed task it has no lists and no dictionaries but C(events), unless Ansible runs with C(-v); the file in O(report_dir), which
      C(file) names, has everything.
  returned: always
  type: dict
  sample: {job: backup, machine: web01, point: {id: 20261120T120000Z-1a2b3c4d, level: full}}
"""

# The work is done on the controller, by the action plugin of the same name.
