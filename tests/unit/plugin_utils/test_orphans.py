# Copyright: (c) 2026, Sendense contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A worker whose ansible-playbook was killed ends, even where it waits to write to it."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

from tests.lab.processes import alive, start_ticks

_CODE = """
import multiprocessing, os, sys, time
from ansible_collections.sendense.platform.plugins.plugin_utils.orphans import end_with_parent

def worker(reading, writing):
    print(os.getpid(), flush=True)
    if len(sys.argv) > 1:
        time.sleep(1)  # its parent is killed meanwhile
    end_with_parent()
    while True:
        os.write(writing, b"x" * 65536)

multiprocessing.get_context("fork").Process(target=worker, args=os.pipe()).start()
time.sleep(60)
"""


def _orphan(*arguments: str) -> int:
    """The pid of a worker whose parent was killed while it waited."""
    environ = dict(os.environ, PYTHONPATH=os.pathsep.join(sys.path))
    parent = subprocess.Popen([sys.executable, "-c", _CODE, *arguments], env=environ, stdout=subprocess.PIPE, text=True)
    assert parent.stdout is not None
    worker = int(parent.stdout.readline())
    if not arguments:
        deadline = time.monotonic() + 10
        while "pipe" not in Path(f"/proc/{worker}/wchan").read_text() and time.monotonic() < deadline:
            time.sleep(0.01)
    parent.kill()
    parent.wait()
    parent.stdout.close()
    return worker


def _ends(worker: int) -> bool:
    started, deadline = start_ticks(worker), time.monotonic() + 10
    while alive(worker, started) and time.monotonic() < deadline:
        time.sleep(0.01)
    if not alive(worker, started):
        return True
    os.kill(worker, signal.SIGKILL)
    return False


def test_a_worker_that_waits_to_write_ends_with_its_parent() -> None:
    assert _ends(_orphan())


def test_a_worker_that_lost_its_parent_before_ends_at_once() -> None:
    assert _ends(_orphan("late"))
