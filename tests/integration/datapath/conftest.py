# Copyright: (c) 2026, Sendense contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Fixtures of the data path tests."""

from __future__ import annotations

import threading

import pytest

from tests.integration.datapath.servers import Servers


@pytest.fixture
def servers(tmp_path):
    """Servers that end with the test, however it ends; no thread of the mover is left either."""
    before = set(threading.enumerate())
    running = Servers(tmp_path)
    yield running
    running.close()
    assert set(threading.enumerate()) <= before
