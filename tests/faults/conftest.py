# Copyright: (c) 2026, Sendense contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Fixtures of the fault round: a fleet per test, with a seed that is printed and can be set by SENDENSE_SEED."""

from __future__ import annotations

import itertools
import os
import random
from pathlib import Path
from typing import Iterator

import pytest

from tests.lab.fixtures import lab_base

from .fleet import Fleet, open_fleet

__all__ = ["lab_base"]

_numbers = itertools.count(1)


@pytest.fixture
def fleet(lab_base: Path) -> Iterator[Fleet]:
    """An empty fleet on a libvirt host of its own."""
    seed = int(os.environ.get("SENDENSE_SEED") or random.SystemRandom().randrange(1 << 32))
    print(f"SENDENSE_SEED={seed}")
    yield from open_fleet(lab_base, f"f{next(_numbers)}", seed)
