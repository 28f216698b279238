# Copyright: (c) 2026, Sendense contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

import shutil
import tempfile

import pytest

from ansible_collections.sendense.platform.plugins.module_utils.hubstate.statedir import StateDir


@pytest.fixture
def state():
    """A state directory with a short path, as socket names need it."""
    path = tempfile.mkdtemp(prefix="sds")
    yield StateDir(path).create()
    shutil.rmtree(path)
