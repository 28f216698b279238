# Copyright: (c) 2026, Sendense contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Restore a machine at its node; the firmware variables of the backup are brought from the hub."""

from __future__ import annotations

import os
import shlex
from typing import Any, Dict

from ansible_collections.sendense.platform.plugins.module_utils.hubstate.statedir import DEFAULT_STATE_DIR
from ansible_collections.sendense.platform.plugins.modules.vm import main
from ansible_collections.sendense.platform.plugins.plugin_utils.place_action import PlaceAction
from ansible_collections.sendense.platform.plugins.plugin_utils.places import Place, relay_file


class ActionModule(PlaceAction):
    """The controller's part: files travel over the connections, never in a task result."""

    module_main = staticmethod(main)

    def perform(self, arguments: Dict[str, Any], task_vars: Dict[str, Any]) -> Dict[str, Any]:
        """Run the state that was asked for."""
        nvram = arguments.pop("nvram", None)
        if not nvram or not nvram.get("path") or arguments.get("state") not in ("prepared", "present") or self._task.check_mode:
            return self.module(arguments, task_vars)
        folder = os.path.join(arguments.get("state_dir") or DEFAULT_STATE_DIR, "agent")
        local = os.path.join(folder, f"nvram-{os.getpid()}.fd")
        hub = Place(str(nvram["host"]), task_vars, self._play_context)
        try:
            relay_file(hub, str(nvram["path"]), self._connection.put_file, local)
            return self.module(dict(arguments, nvram_path=local), task_vars)
        finally:
            hub.close()
            self._low_level_execute_command(f"rm -f {shlex.quote(local)}", sudoable=False)
