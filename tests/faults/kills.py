# Copyright: (c) 2026, Sendense contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What may happen to one machine's job at one step of it, and the signals that make it happen."""

from __future__ import annotations

import os
import signal
from dataclasses import dataclass
from pathlib import Path
from typing import Callable, Optional

#: Names of victims that are children of a keeper; any other child is "<role> <name of the child>".
CHILDREN = {
    "export": "hub target-disk0",
    "export of the second disk": "hub target-disk1",
    "mover": "node copy",
    "checker": "hub verify",
    "reader": "hub reread-disk0",
}


@dataclass(frozen=True)
class Fault:
    """Kill ``victim`` when the machine's job has reached ``step``; ``copied``: not before the mover has moved some bytes.

    Victims: module (the process that reached the step), hub keeper, node keeper, one of ``CHILDREN`` or "hub NAME" or
    "node NAME" for another child, qemu, libvirtd (restarted at once), ansible (the whole run), ansible and module; act:
    call ``act`` instead of a kill. ``anyone``: whichever machine the step is about, for tasks that look after all of them.
    ``number`` is the signal that the victim gets.
    """

    victim: str
    step: str
    copied: bool = False
    act: Optional[Callable[[], None]] = None
    anyone: bool = False
    number: int = signal.SIGKILL

    def __str__(self) -> str:
        return f"{self.victim} at {self.step}" + (" (copied)" if self.copied else "")


@dataclass(frozen=True)
class Strike:
    """A fault that happened: to which machine, to which process, when (monotonic seconds)."""

    name: str
    fault: Fault
    pid: Optional[int]
    at: float


def process_state(pid: int) -> str:
    """The state letter of a process; empty if it is gone."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0]
    except (FileNotFoundError, ProcessLookupError):
        return ""


def resume(pid: int) -> None:
    """Continue a process that is stopped."""
    if process_state(pid) == "T":
        send(pid, signal.SIGCONT)


def send(pid: int, number: int = signal.SIGKILL) -> bool:
    """Send a signal; False if there is no such process any more, or only its remains."""
    if process_state(pid) in ("", "Z", "X"):
        return False
    try:
        os.kill(pid, number)
    except ProcessLookupError:
        return False
    return True
