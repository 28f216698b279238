# Copyright: (c) 2026, Sendense contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Snapshots need the node's agent: its keeper thaws and ends what a dead controller left open."""

from __future__ import annotations

from ansible_collections.sendense.platform.plugins.modules.vm_snapshot import main
from ansible_collections.sendense.platform.plugins.plugin_utils.place_action import PlaceAction


class ActionModule(PlaceAction):
    """Store the agent at the place, then run the module there."""

    module_main = staticmethod(main)
