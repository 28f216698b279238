# Copyright: (c) 2026, Sendense contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The option of every module during which a job has to stay alive at its other places."""

from __future__ import annotations


class ModuleDocFragment:
    """Heartbeats."""

    DOCUMENTATION = r"""
options:
  heartbeats:
    description: Heartbeat files of the same job at other places, which the action plugin keeps fresh meanwhile.
    type: list
    elements: dict
    default: []
    suboptions:
      host:
        description: Inventory name of the place.
        type: str
        required: true
      path:
        description: The file, as C(job.heartbeat) of an earlier task named it.
        type: path
        required: true
"""
