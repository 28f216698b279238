#!/usr/bin/python
# Copyright: (c) 2026, Sendense contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Let the backups of a machine expire by a policy."""

from __future__ import annotations

DOCUMENTATION = r"""
---
module: backup_prune
short_description: Let the backups of a machine expire, by a policy or by choice
version_added: 0.2.0
author:
  - Sendense contributors (@sendense)
description:
  - Judges every backup of a machine by a policy, or takes the operator's choice. An expired one that nothing stands on is deleted;
    one that others stand on is merged into the next of them, with all its disks, and every other backup stays byte for byte what it is.
  - Immutable backups, those that immutable ones stand on, and those in use (verified, restored) stay, and RV(left) says why.
  - An interrupted merge is finished by the next run. While it is open, the expired backups in it are no longer offered.
  - In check mode, nothing is touched; the difference shows what would go, and why.
extends_documentation_fragment:
  - sendense.platform.attributes
  - sendense.platform.repository
  - sendense.platform.repository.required
  - sendense.platform.any_machine
  - sendense.platform.place
  - sendense.platform.following
  - sendense.platform.heartbeats
attributes:
  diff_mode:
    support: full
options:
  policy:
    description:
      - What to keep. A rule keeps the newest backup of each of its most recent periods that have backups; V(0) switches it off.
      - A backup goes when no rule keeps it. A policy without any rule is refused.
      - Required unless O(point_ids) is given, for which it does not count.
    type: dict
    suboptions:
      keep_last:
        description: The newest so many backups.
        type: int
        default: 0
      keep_hourly:
        description: The newest backup of each of so many hours.
        type: int
        default: 0
      keep_daily:
        description: The newest backup of each of so many days.
        type: int
        default: 0
      keep_weekly:
        description: The newest backup of each of so many ISO weeks, which begin on Mondays.
        type: int
        default: 0
      keep_monthly:
        description: The newest backup of each of so many months.
        type: int
        default: 0
      keep_yearly:
        description: The newest backup of each of so many years.
        type: int
        default: 0
      keep_within_days:
        description: All backups that are not older than so many days.
        type: int
        default: 0
      maximum_age_days:
        description: What is older than so many days goes, even if a rule would keep it. V(0) for no limit.
        type: int
        default: 0
      minimum_sound:
        description: The newest so many sound backups stay, whatever else is said.
        type: int
        default: 1
      timezone:
        description: The time zone of the calendar, for example V(Europe/Berlin).
        type: str
        default: UTC
      maximum_expiry_share:
        description:
          - Refuse to let more than this share of the machine's backups go at once, from V(0) to V(1).
          - Three may always go, and as many as were made in the last 36 hours.
        type: float
        default: 0.2
  point_ids:
    description:
      - Let exactly these backups go, instead of what a policy says. What others stand on is merged into the next of them.
      - All of them or none - the run is refused with the reasons if one is immutable, in use, damaged below others, or not there.
    type: list
    elements: str
    default: []
  confirm_expiry:
    description:
      - Let go what the policy or O(point_ids) says, even if it is more than O(policy.maximum_expiry_share), looks like a wrong clock, or
        leaves no sound backup.
    type: bool
    default: false
  synthetic_full:
    description: Write the newest sound backup anew as a full one, from what it stands on, unless it is one.
    type: bool
    default: false
  job_id:
    description: The id of the job; set by the action plugin.
    type: str
"""

EXAMPLES = r"""
- name: Keep 7 days, 4 weeks and 12 months of a machine
  sendense.platform.backup_prune:
    repository:
      path: /srv/backups
    machine_id: "{{ sendense_machine_id }}"
    policy:
      keep_daily: 7
      keep_weekly: 4
      keep_monthly: 12
      timezone: Europe/Berlin
  delegate_to: hub01
  register: pruned
"""

RETURN = r"""
kept:
  description: Backups that the policy keeps, oldest first, with the reasons.
  returned: success
  type: list
  elements: dict
  sample: [{point_id: 20261120T120000Z-1a2b3c4d, created_at: '2026-11-20T12:00:00Z', level: full, status: ok, stored_bytes: 1073741824,
            into: '', reasons: [newest of day 2026-11-20 (keep_daily)]}]
deleted:
  description: Backups that were deleted, or in check mode would be.
  returned: success
  type: list
  elements: dict
merged:
  description: Backups that were merged, each with the backup that has taken them in (C(into)), or in check mode would be.
  returned: success
  type: list
  elements: dict
left:
  description: Expired backups that stay for now, with the reasons.
  returned: success
  type: list
  elements: dict
  sample: [{point_id: 20261120T120000Z-1a2b3c4d, reasons: [no rule keeps it, 'but it is immutable until 2027-01-01T00:00:00Z']}]
damaged:
  description: Backups that turned out to be damaged, because what was merged is not what was backed up; they are marked.
  returned: success
  type: list
  elements: str
synthetic_full:
  description: The backup that was written anew as a full one; empty if none was.
  returned: success
  type: str
bytes_freed:
  description: How much smaller the image files of the machine's backups are now.
  returned: success
  type: int
refused:
  description: Why the run itself would be refused without O(confirm_expiry), in check mode; empty if it would not.
  returned: success
  type: str
"""

from typing import Any, Dict

from ansible_collections.sendense.platform.plugins.module_utils.arg_specs import (
    any_machine_spec,
    following_spec,
    place_spec,
    repository_spec,
    retention_spec,
)
from ansible_collections.sendense.platform.plugins.module_utils.jobs import prune
from ansible_collections.sendense.platform.plugins.module_utils.module import run_module


def argument_spec() -> Dict[str, Any]:
    """The module's arguments."""
    return dict(
        repository_spec(),
        **any_machine_spec(),
        **place_spec(),
        **following_spec(),
        policy={"type": "dict", "options": retention_spec()},
        point_ids={"type": "list", "elements": "str", "default": []},
        confirm_expiry={"type": "bool", "default": False},
        synthetic_full={"type": "bool", "default": False},
        job_id={"type": "str"},
    )


def main() -> None:
    """Run the module."""
    run_module(prune.prune_points, argument_spec(), supports_check_mode=True)


if __name__ == "__main__":
    main()
