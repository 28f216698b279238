# Copyright: (c) 2026, Sendense contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Start the mover, follow it, collect one result per disk."""

from __future__ import annotations

from typing import Any, Dict

from ansible_collections.sendense.platform.plugins.modules.nbd_copy import main
from ansible_collections.sendense.platform.plugins.plugin_utils.place_action import PlaceAction


class ActionModule(PlaceAction):
    """Follows the mover, so that hours of copying show their progress."""

    module_main = staticmethod(main)

    def perform(self, arguments: Dict[str, Any], task_vars: Dict[str, Any]) -> Dict[str, Any]:
        """Run the mover to its end."""
        return self.run_followed(arguments, task_vars)
