# Copyright: (c) 2026, Sendense contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Whether the process that wanted a job still lives, as far as this machine can know.

A keeper that runs on the controller itself need not wait for a heartbeat to stop: it looks whether ansible-playbook lives.
That needs no clean exit, so it is the same for Ctrl-C, SIGTERM, a cancelled runner and kill -9. At any other machine the
process cannot be seen, and the heartbeat decides.
"""

from __future__ import annotations

import os
from typing import Any, Dict

from .machine import boot_id
from .processes import is_alive, start_time


def identify(pid: int) -> Dict[str, Any]:
    """What names a process of this machine for good: pid, starttime (clock ticks since boot), boot and pid namespace."""
    return {"pid": pid, "starttime": start_time(pid), "boot_id": boot_id(), "namespace": _namespace()}


def is_gone(controller: Dict[str, Any]) -> bool:
    """Whether the identified process provably ended. False for one that this process could not see, and for nobody."""
    if not controller.get("pid") or controller.get("boot_id") != boot_id() or controller.get("namespace") != _namespace():
        return False
    return not is_alive(int(controller["pid"]), controller.get("starttime"))


def _namespace() -> int:
    return os.stat("/proc/self/ns/pid").st_ino
