# Copyright: (c) 2026, Sendense contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Start the mover, follow it, collect one result per disk."""

from __future__ import annotations

import os
from typing import Any, Dict

from ansible_collections.sendense.platform.plugins.module_utils.errors import InvalidInputError
from ansible_collections.sendense.platform.plugins.modules.nbd_copy import main
from ansible_collections.sendense.platform.plugins.plugin_utils.place_action import PlaceAction
from ansible_collections.sendense.platform.plugins.plugin_utils.places import Place, relay_file


class ActionModule(PlaceAction):
    """Follows the mover, so that hours of copying show their progress."""

    module_main = staticmethod(main)

    def perform(self, arguments: Dict[str, Any], task_vars: Dict[str, Any]) -> Dict[str, Any]:
        """Run the mover to its end."""
        if not self._task.check_mode:
            arguments["audit"] = self._bring_audit(arguments.get("audit") or {}, task_vars)
        return self.run_followed(arguments, task_vars)

    def _bring_audit(self, audit: Dict[str, Any], task_vars: Dict[str, Any]) -> Dict[str, Any]:
        """Copy the blocks to audit, as the hub has chosen them, into the job's directory at this place."""
        files: Dict[str, str] = {}
        if not audit.get("files"):
            return {"files": files}
        if not (audit.get("host") and audit.get("folder") and all(name.isalnum() for name in audit["files"])):
            raise InvalidInputError("The audit needs the hub that wrote its files (host) and the job's directory here (folder).")
        hub = Place(str(audit["host"]), task_vars, self._play_context)
        try:
            for name, remote in sorted(audit["files"].items()):
                files[name] = os.path.join(str(audit["folder"]), f"audit-{name}.hashes.file")
                relay_file(hub, str(remote), self._connection.put_file, files[name])
        finally:
            hub.close()
        return {"files": files}
