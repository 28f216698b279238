# Copyright: (c) 2026, Sendense contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Freezing and thawing a guest by its agent, and what consistency that reaches.

The freeze lasts only for the instant of the snapshot. Whoever froze always thaws, also when the freeze itself failed:
an agent that answered too late may still carry it out.
"""

from __future__ import annotations

from typing import Any, Tuple

from ...errors import QuiesceFailedError
from ...model import Machine
from .._base import CRASH, FILE_SYSTEM
from .client import libvirt

_THAW_ATTEMPTS = 3


def expected_consistency(machine: Machine, wanted: str) -> Tuple[str, str]:
    """The level that a snapshot now would reach, and why it is less than wanted (empty if it is not)."""
    if wanted == CRASH:
        return CRASH, ""
    if machine.power == "off":
        # Whether it was shut down cleanly or switched off is not recorded anywhere that survives.
        return CRASH, "powered_off"
    if machine.power != "running":
        return CRASH, "paused"
    if not machine.guest_agent:
        return CRASH, "agent_not_connected"
    return FILE_SYSTEM, "" if wanted == FILE_SYSTEM else "application_hooks_unknown"


class Quiescer:
    """One freeze and its thaw. ``reached`` and ``reason`` say what the snapshot between them is."""

    def __init__(self, domain: Any, machine: Machine, wanted: str, allow_downgrade: bool, timeout_s: int) -> None:
        self._domain = domain
        self._machine = machine
        self._allow_downgrade = allow_downgrade
        self._timeout_s = timeout_s
        self._asked = False
        self._doubtful = False
        self._frozen = 0
        self.reached, self.reason = expected_consistency(machine, wanted)
        if self.reason in ("paused", "agent_not_connected") and not allow_downgrade:
            raise self._failure(self.reason)

    def freeze(self) -> None:
        """Freeze if the level asks for it. QuiesceFailedError only where the policy refuses a downgrade; then it is thawed."""
        if self.reached == CRASH:
            return
        self._asked = True
        try:
            self._domain.agentSetResponseTimeout(self._timeout_s, 0)
            self._frozen = int(self._domain.fsFreeze())
        except libvirt.libvirtError as exc:
            self.reached, self.reason = CRASH, f"agent_error: {exc}"
            # It may be freezing still, and then thaws only after that: what is asked of it now waits, too.
            self._doubtful = exc.get_error_code() == libvirt.VIR_ERR_AGENT_UNRESPONSIVE
            if not self._allow_downgrade:
                self.thaw()
                raise self._failure(str(exc)) from exc

    def thaw(self) -> None:
        """Thaw if a freeze was asked for; repetition is a no-op.

        QuiesceFailedError if a frozen guest stays frozen, or was thawed too early and the policy refuses a downgrade.
        """
        if not self._asked:
            return
        last = ""
        for _attempt in range(_THAW_ATTEMPTS if self._frozen or self._doubtful else 1):
            try:
                thawed = int(self._domain.fsThaw())
                if thawed < self._frozen:
                    # Somebody, or the guest's own time limit, thawed before the snapshot: it may hold half-written files.
                    self.reached, self.reason = CRASH, "thawed_early"
                self._asked, self._doubtful, self._frozen = False, False, 0
                break
            except libvirt.libvirtError as exc:
                last = str(exc)
        if self._frozen:
            raise QuiesceFailedError(
                f"Machine {self._machine.id} may still be FROZEN: its agent does not thaw ({last}). "
                f"Run 'virsh domfsthaw {self._machine.id}' or reset the machine.",
                details={"machine_id": self._machine.id, "frozen": True},
            )
        if self.reason == "thawed_early" and not self._allow_downgrade:
            raise self._failure("it was thawed before its snapshot was made")

    def _failure(self, why: str) -> QuiesceFailedError:
        return QuiesceFailedError(
            f"Cannot quiesce machine {self._machine.id}: {why}. Start its guest agent, or allow crash-consistent points.",
            details={"machine_id": self._machine.id, "reason": why},
        )


def thaw_leftover(domain: Any, machine: Machine, timeout_s: int) -> int:
    """Thaw a guest that a dead job may have left frozen; returns the number of thawed file systems.

    A guest without a connected agent, or whose agent does not answer, cannot be thawed: 0.
    """
    if machine.power != "running" or not machine.guest_agent:
        return 0
    try:
        domain.agentSetResponseTimeout(timeout_s, 0)
        return int(domain.fsThaw())
    except libvirt.libvirtError:
        return 0
