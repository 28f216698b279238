# Copyright: (c) 2026, Sendense contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Planted: a product that forgets to make directories durable, for the test that the family ``power-cut`` finds it."""

from __future__ import annotations

from pathlib import Path
from typing import List, Tuple

from ansible_collections.sendense.platform.plugins.module_utils.repositories import local_files

from .campaign._base import Outcome
from .campaign.power_cut import PowerCut, Promise
from .campaign.recording import RecordedDisk
from .campaign.workbench import Workbench


class Careless(PowerCut):
    """Runs in a process of its own, so that what it breaks is broken nowhere else."""

    def inside(self, base: Path, seed: int, count: int) -> Outcome:
        """As of the family itself."""
        local_files.sync_directory = lambda path: None
        return super().inside(base, seed, count)

    def record(self, bench: Workbench, disk: RecordedDisk) -> Tuple[int, List[Promise]]:
        """One backup is enough."""
        bench.initialise()
        begin = disk.position()
        return begin, [Promise(bench.backup().point_id, disk.position())]
