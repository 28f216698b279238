# Copyright: (c) 2026, Sendense contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The memory of everything that a run of a site has started, in the background as well, at its peak.

A page that several processes share counts once (PSS). Processes are told by what every one of them inherits: the environment of
ansible-playbook names a directory of this site. So libvirtd and qemu, which ran before, are not counted.
"""

from __future__ import annotations

import os
import threading
from pathlib import Path
from typing import List

from tests.e2e.crowd import proportional_size
from tests.e2e.site import Site

#: Seconds between two looks; each reads the maps of all processes, and may itself be felt.
PAUSE_SECONDS = 0.5


class Footprint:
    """Looks from a thread as long as the block lasts."""

    def __init__(self, site: Site) -> None:
        self._mark = f"ANSIBLE_LOCAL_TEMP={site.directory / 'tmp'}\0".encode()
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._look, daemon=True)
        self._peak = 0

    @property
    def peak_mib(self) -> float:
        """The most that was seen at one time."""
        return round(self._peak / (1 << 20), 1)

    def __enter__(self) -> "Footprint":
        self._thread.start()
        return self

    def __exit__(self, *exc: object) -> None:
        self._ended.set()
        self._thread.join()
        assert self._peak or exc[0], "no process of the run was seen"

    def _look(self) -> None:
        while not self._ended.wait(PAUSE_SECONDS):
            self._peak = max(self._peak, sum(proportional_size(pid) for pid in self._processes()))

    def _processes(self) -> List[int]:
        pids = (int(name) for name in os.listdir("/proc") if name.isdigit())
        return [pid for pid in pids if self._mark in _environment(pid)]


def _environment(pid: int) -> bytes:
    try:
        return Path(f"/proc/{pid}/environ").read_bytes()
    except (FileNotFoundError, ProcessLookupError, PermissionError):  # the last: of the machine's own, which nobody may read
        return b""
