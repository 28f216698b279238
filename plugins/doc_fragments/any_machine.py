# Copyright: (c) 2026, Sendense contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Options of every module that works for one machine, also for one that is gone from its platform."""

from __future__ import annotations


class ModuleDocFragment:
    """Which machine."""

    DOCUMENTATION = r"""
options:
  platform:
    description: The platform of O(machine_id).
    type: str
    default: libvirt
    choices: [libvirt]
  machine_id:
    description: The machine, by the platform's own id. This or O(machine_key).
    type: str
  machine_key:
    description: The machine's key in the repository, also of a machine that is gone from its platform.
    type: str
"""
