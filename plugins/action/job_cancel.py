# Copyright: (c) 2026, Sendense contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Cancel jobs: their keepers do the work, so no agent is needed."""

from __future__ import annotations

from ansible_collections.sendense.platform.plugins.modules.job_cancel import main
from ansible_collections.sendense.platform.plugins.plugin_utils.place_action import PlaceAction


class ActionModule(PlaceAction):
    """Run the module at the place."""

    needs_agent = False
    module_main = staticmethod(main)
