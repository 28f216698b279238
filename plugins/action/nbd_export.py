# Copyright: (c) 2026, Sendense contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Export servers are children of the hub's keeper; while ports are scarce, the job stays alive at its node."""

from __future__ import annotations

import math
import time
from typing import Any, Dict

from ansible_collections.sendense.platform.plugins.module_utils.errors import PortsExhaustedError
from ansible_collections.sendense.platform.plugins.modules.nbd_export import main
from ansible_collections.sendense.platform.plugins.plugin_utils.place_action import PlaceAction
from ansible_collections.sendense.platform.plugins.plugin_utils.places import Hearts

#: Seconds that one call of the module waits for ports: far below the 30 s after which a keeper misses its heartbeat.
TURN_SECONDS = 8
DEFAULT_WAIT_SECONDS = 300


class ActionModule(PlaceAction):
    """Waits for ports in turns."""

    module_main = staticmethod(main)

    def perform(self, arguments: Dict[str, Any], task_vars: Dict[str, Any]) -> Dict[str, Any]:
        """Run the module until it has its ports, has failed otherwise, or the wait is over."""
        given = arguments.get("port_wait")
        wait_s = float(DEFAULT_WAIT_SECONDS if given is None else given)
        deadline = time.monotonic() + wait_s
        hearts = Hearts(arguments.get("heartbeats") or [], task_vars, self._play_context)
        try:
            while True:
                turn_s = math.ceil(min(max(0.0, deadline - time.monotonic()), TURN_SECONDS))
                result = self.module(dict(arguments, port_wait=turn_s), task_vars)
                if result.get("error_code") != PortsExhaustedError.error_code:
                    return result
                if time.monotonic() >= deadline:
                    return of_the_whole_wait(result, turn_s, wait_s)
                hearts.beat()
        finally:
            hearts.close()


def of_the_whole_wait(result: Dict[str, Any], turn_s: float, wait_s: float) -> Dict[str, Any]:
    """The error of the last turn, saying how long all turns waited together, in seconds."""
    message = str(result.get("msg", "")).replace(f"within {turn_s:g} s", f"within {wait_s:g} s")
    return dict(result, msg=message, details=dict(result.get("details") or {}, wait_s=wait_s))
