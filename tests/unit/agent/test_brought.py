# Copyright: (c) 2026, Sendense contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What controllers lay beside the agent goes a day after the link died over which they would have removed it."""

from __future__ import annotations

import os
import shutil
import tempfile
import time
from typing import Iterator

import pytest

from ansible_collections.sendense.platform.plugins.module_utils.agent.cleanup import BROUGHT_SECONDS, cleanup_dead_jobs
from ansible_collections.sendense.platform.plugins.module_utils.hubstate.statedir import StateDir

AGENT = "a" * 64 + ".pyz"
BROUGHT = ["nvram-17.fd", f"{AGENT}.17.tmp"]
KEPT = [AGENT, "a" * 64 + ".cpython-311.pyz", "nvram-x.fd"]


@pytest.fixture
def lab_state() -> Iterator[StateDir]:
    """A state directory with a short path, as socket names need it."""
    path = tempfile.mkdtemp(prefix="sds")
    yield StateDir(path).create()
    shutil.rmtree(path)


def test_only_what_no_task_needs_any_more_is_removed(lab_state: StateDir) -> None:
    for name in BROUGHT + KEPT:
        path = os.path.join(lab_state.agent, name)
        with open(path, "wb") as stream:
            stream.write(b"x")
    cleanup_dead_jobs(lab_state)
    assert sorted(os.listdir(lab_state.agent)) == sorted(BROUGHT + KEPT)
    before = time.time() - BROUGHT_SECONDS - 60
    for name in BROUGHT + KEPT:
        os.utime(os.path.join(lab_state.agent, name), (before, before))
    assert cleanup_dead_jobs(lab_state) == []
    assert sorted(os.listdir(lab_state.agent)) == sorted(KEPT)
