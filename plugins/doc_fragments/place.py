# Copyright: (c) 2026, Sendense contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Options of every module that starts or finds a job at a place."""

from __future__ import annotations

from typing import ClassVar


class ModuleDocFragment:
    """The state directory and the agent."""

    STATE = r"""
options:
  state_dir:
    description: State directory of this place (hub or node), which holds its jobs, leases and ports.
    type: path
    default: /var/lib/sendense
"""
    # Annotated, because ansible-test reads plain assignments only where a text stands there as it is.
    DOCUMENTATION: ClassVar[str] = (
        STATE
        + r"""
  agent_path:
    description: The agent at this place. The action plugin of this module stores it there and sets this option.
    type: path
  heartbeat_timeout:
    description:
      - Seconds without a sign of life after which the keeper of a job that this module begins gives the job up.
      - Whatever runs the play must then have lost contact for longer than a task takes.
    type: int
    default: 30
  controller:
    description:
      - The process whose end also ends the job, if it runs on the same machine as the place. Set by the action plugin of this module.
    type: dict
    default: {}
"""
    )
