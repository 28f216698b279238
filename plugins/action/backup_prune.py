# Copyright: (c) 2026, Sendense contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Start the merger and the checker of one merge after another, follow them, collect what became of every backup."""

from __future__ import annotations

import uuid
from typing import Any, Dict

from ansible_collections.sendense.platform.plugins.modules.backup_prune import main
from ansible_collections.sendense.platform.plugins.plugin_utils.place_action import PlaceAction


class ActionModule(PlaceAction):
    """Follows the children of one merge after another, so that hours of merging show their progress."""

    module_main = staticmethod(main)

    def perform(self, arguments: Dict[str, Any], task_vars: Dict[str, Any]) -> Dict[str, Any]:
        """Prune to the end; the job id ties the calls of the module together."""
        return self.run_followed(dict(arguments, job_id=uuid.uuid4().hex), task_vars)
