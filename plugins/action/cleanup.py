# Copyright: (c) 2026, Sendense contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Undoing what a dead job left needs the agent that the job had."""

from __future__ import annotations

from ansible_collections.sendense.platform.plugins.modules.cleanup import main
from ansible_collections.sendense.platform.plugins.plugin_utils.place_action import PlaceAction


class ActionModule(PlaceAction):
    """Store the agent at the place, then run the module there."""

    module_main = staticmethod(main)
