# Copyright: (c) 2026, Sendense contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Looking needs no agent; undoing what a dead job left needs the agent that the job had."""

from __future__ import annotations

from typing import Any, Dict, Optional

from ansible_collections.sendense.platform.plugins.module_utils.errors import InvalidInputError
from ansible_collections.sendense.platform.plugins.module_utils.jobs.doctor.kinds import kinds_to_mend
from ansible_collections.sendense.platform.plugins.modules.backup_doctor import main
from ansible_collections.sendense.platform.plugins.plugin_utils.place_action import PlaceAction


class ActionModule(PlaceAction):
    """Store the agent at the place if something is to be mended, then run the module there."""

    module_main = staticmethod(main)

    def run(self, tmp: Optional[str] = None, task_vars: Optional[Dict[str, Any]] = None) -> Dict[str, Any]:
        """Looking must leave a place as it is, also one that has no state directory."""
        try:
            self.needs_agent = bool(kinds_to_mend(self._task.args.get("mend")))
        except InvalidInputError as error:
            return dict(error.as_result(), failed=True)
        return super().run(tmp, task_vars)
