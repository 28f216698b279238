# Copyright: (c) 2026, Sendense contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""All families, in the order in which a campaign runs them: one file each, one line here."""

from __future__ import annotations

from typing import List

from ._base import Family
from .backing import Backing
from .cancel import Cancel
from .clock import Clock
from .enospc import Enospc
from .flip import Flip
from .hang import Hang
from .hung_storage import HungStorage
from .io_error import IoError
from .kill_prune import KillPrune
from .kill_random import KillRandom
from .kill_step import KillStep
from .lying_bitmap import LyingBitmap
from .merge_kill import MergeKill
from .places import PlacesFamily
from .power_cut import PowerCut
from .prune_race import PruneRace
from .repository_gone import RepositoryGone

FAMILIES: List[Family] = [
    KillStep(),
    KillRandom(),
    Hang(),
    Clock(),
    Flip(),
    PowerCut(),
    Enospc(),
    IoError(),
    RepositoryGone(),
    HungStorage(),
    Backing(),
    LyingBitmap(),
    KillPrune(),
    PruneRace(),
    MergeKill(),
    Cancel(),
    PlacesFamily(),
]


def family(name: str) -> Family:
    """A family by name. KeyError if there is none."""
    return {one.NAME: one for one in FAMILIES}[name]
