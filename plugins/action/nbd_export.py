# Copyright: (c) 2026, Sendense contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Export servers are children of the hub's keeper; while ports are scarce, the job stays alive at its node."""

from __future__ import annotations

import time
from typing import Any, Dict

from ansible_collections.sendense.platform.plugins.module_utils.errors import PortsExhaustedError
from ansible_collections.sendense.platform.plugins.plugin_utils.place_action import PlaceAction
from ansible_collections.sendense.platform.plugins.plugin_utils.places import Hearts

#: Seconds that one call of the module waits for ports: far below the 30 s after which a keeper misses its heartbeat.
TURN_SECONDS = 8
DEFAULT_WAIT_SECONDS = 300


class ActionModule(PlaceAction):
    """Waits for ports in turns."""

    def perform(self, arguments: Dict[str, Any], task_vars: Dict[str, Any]) -> Dict[str, Any]:
        """Run the module until it has its ports, has failed otherwise, or the wait is over."""
        deadline = time.monotonic() + float(arguments.get("port_wait") or DEFAULT_WAIT_SECONDS)
        hearts = Hearts(arguments.get("heartbeats") or [], task_vars, self._play_context)
        try:
            while True:
                left = max(0.0, deadline - time.monotonic())
                result = self.module(dict(arguments, port_wait=int(min(left, TURN_SECONDS))), task_vars)
                if result.get("error_code") != PortsExhaustedError.error_code or left <= TURN_SECONDS:
                    return result
                hearts.beat()
        finally:
            hearts.close()
