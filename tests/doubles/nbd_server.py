# Copyright: (c) 2026, Sendense contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Starting and stopping an NBD server on a unix socket without racing it."""

from __future__ import annotations

import os
import socket
import subprocess
import time
from typing import Any

_START_S, _STOP_S = 30.0, 10.0


def await_greeting(process: "subprocess.Popen[Any]", path: str) -> None:
    """Wait until the server greets: it binds before it listens, and loses a TERM that comes before its main loop runs."""
    deadline = time.monotonic() + _START_S
    while not _greets(path):
        assert process.poll() is None and time.monotonic() < deadline, f"the NBD server on {path} did not start"
        time.sleep(0.01)


def stop(process: "subprocess.Popen[Any]", path: str) -> str:
    """TERM, and KILL what does not end; returns what it wrote to stderr, if that is a pipe."""
    process.terminate()
    try:
        _out, errors = process.communicate(timeout=_STOP_S)
    except subprocess.TimeoutExpired:
        process.kill()
        _out, errors = process.communicate()
    if os.path.lexists(path):
        os.unlink(path)
    return errors or ""


def _greets(path: str) -> bool:
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as client:
        client.settimeout(5)
        try:
            client.connect(path)
            return client.recv(8) == b"NBDMAGIC"
        except OSError:
            return False
