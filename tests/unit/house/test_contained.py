# Copyright: (c) 2026, Sendense contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The supervisor of the test run notices what a command leaves running."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

from tests.unit.house.rules import ROOT


def contained(*command: str) -> subprocess.CompletedProcess[str]:
    argv = [sys.executable, str(ROOT / "scripts/contained.py"), *command]
    return subprocess.run(argv, capture_output=True, text=True, timeout=60)


def test_exit_status_is_the_commands_own() -> None:
    assert contained("sh", "-c", "exit 7").returncode == 7
    assert contained("true").returncode == 0


def test_a_daemon_left_behind_is_named_killed_and_fails_the_run(tmp_path: Path) -> None:
    pid_file = tmp_path / "pid"
    done = contained("sh", "-c", f"(setsid sh -c 'echo $$ >{pid_file}; exec sleep 600' &) ; while [ ! -s {pid_file} ]; do sleep 0.05; done")
    assert done.returncode == 1
    assert "was left running: sleep 600" in done.stderr
    assert not os.path.exists(f"/proc/{pid_file.read_text().strip()}")


def test_an_orphan_that_ends_by_itself_is_no_finding() -> None:
    assert contained("sh", "-c", "(setsid sleep 0.3 &)").returncode == 0


def test_no_command_is_wrong_usage() -> None:
    assert contained().returncode == 2


def test_a_stop_request_reaches_the_command() -> None:
    script = "trap 'exit 5' TERM; echo ready; while :; do sleep 0.05; done"
    process = subprocess.Popen([sys.executable, str(ROOT / "scripts/contained.py"), "sh", "-c", script], stdout=subprocess.PIPE, text=True)
    try:
        assert process.stdout is not None
        with process.stdout:
            assert process.stdout.readline() == "ready\n"
            process.send_signal(signal.SIGTERM)
            assert process.wait(timeout=30) == 5
    finally:
        process.kill()
        process.wait()
