# Copyright: (c) 2026, Sendense contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Open, commit or abort a backup at its hub; a commit brings the node's files along and follows the re-read."""

from __future__ import annotations

import os
import shlex
from typing import Any, Dict

from ansible_collections.sendense.platform.plugins.module_utils.errors import InvalidInputError
from ansible_collections.sendense.platform.plugins.modules.backup import main
from ansible_collections.sendense.platform.plugins.plugin_utils.place_action import PlaceAction
from ansible_collections.sendense.platform.plugins.plugin_utils.places import Place, relay_file


class ActionModule(PlaceAction):
    """The controller's part: files travel over the connections, never in a task result."""

    module_main = staticmethod(main)

    def perform(self, arguments: Dict[str, Any], task_vars: Dict[str, Any]) -> Dict[str, Any]:
        """Run the state that was asked for."""
        if arguments.get("state") != "committed" or self._task.check_mode:
            return self.module(arguments, task_vars)
        arguments["files"] = self._bring_files(arguments, task_vars)
        return self.run_followed(arguments, task_vars)

    def _bring_files(self, arguments: Dict[str, Any], task_vars: Dict[str, Any]) -> Dict[str, str]:
        """Copy the block hashes and the firmware variables from the node into the job's directory at the hub."""
        job_dir = str((arguments.get("job") or {}).get("path") or "")
        if not job_dir:
            raise InvalidInputError("backup state=committed needs the job that state=open returned (job.path is missing).")
        wanted = {disk["key"]: disk.get("hashes", "") for disk in (arguments.get("copy") or {}).get("disks", [])}
        nvram = (arguments.get("snapshot") or {}).get("nvram_path")
        if nvram:
            wanted["nvram"] = nvram
        node = Place(str(arguments.get("node")), task_vars, self._play_context)
        inbox = os.path.join(job_dir, "inbox")
        brought = {}
        try:
            # Not mkdir -p of the whole path: the directory of a job that has ended must not come back.
            self._command(f"umask 077 && cd {shlex.quote(job_dir)} && mkdir -p inbox")
            for name, remote in sorted(wanted.items()):
                if not remote or not name.isalnum():
                    raise InvalidInputError(f"The copy of disk {name!r} has no block hash file; run nbd_copy before the commit.")
                brought[name] = os.path.join(inbox, f"{name}.file")
                relay_file(node, remote, self._connection.put_file, brought[name])
        finally:
            node.close()
        return brought
