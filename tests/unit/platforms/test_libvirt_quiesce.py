# Copyright: (c) 2026, Sendense contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A freeze that outlasts its time limit: a guest that freezes late is thawed as often as one that froze in time."""

from __future__ import annotations

import libvirt
import pytest

from ansible_collections.sendense.platform.plugins.module_utils.model import Machine
from ansible_collections.sendense.platform.plugins.module_utils.platforms._base import CRASH, FILE_SYSTEM
from ansible_collections.sendense.platform.plugins.module_utils.platforms.libvirt.quiesce import Quiescer


def agent_error(code: int) -> libvirt.libvirtError:
    error = libvirt.libvirtError("the agent said so")
    error.err = (code, libvirt.VIR_FROM_QEMU, "the agent said so", 0, "", None, None, -1, -1)
    return error


class SlowGuest:
    """A domain whose agent answers the freeze with an error, and the first thaws not at all."""

    def __init__(self, code: int, silent: int) -> None:
        self.code, self.silent, self.thaws = code, silent, 0

    def agentSetResponseTimeout(self, _seconds: int, _flags: int) -> None:
        return None

    def fsFreeze(self) -> int:
        raise agent_error(self.code)

    def fsThaw(self) -> int:
        self.thaws += 1
        if self.thaws <= self.silent:
            raise agent_error(libvirt.VIR_ERR_AGENT_UNRESPONSIVE)
        return 1


@pytest.mark.parametrize(
    ("code", "silent", "thaws"),
    [(libvirt.VIR_ERR_AGENT_UNRESPONSIVE, 2, 3), (libvirt.VIR_ERR_AGENT_UNRESPONSIVE, 9, 3), (libvirt.VIR_ERR_INTERNAL_ERROR, 9, 1)],
    ids=["freezes late", "hangs", "refuses"],
)
def test_a_freeze_of_unknown_outcome_is_thawed_again_and_again(code: int, silent: int, thaws: int) -> None:
    guest = SlowGuest(code, silent)
    machine = Machine(platform="libvirt", id="1", name="slow", power="running", guest_agent=True)
    quiescer = Quiescer(guest, machine, FILE_SYSTEM, allow_downgrade=True, timeout_s=1)
    quiescer.freeze()
    quiescer.thaw()
    assert (guest.thaws, quiescer.reached) == (thaws, CRASH)
