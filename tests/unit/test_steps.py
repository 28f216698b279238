# Copyright: (c) 2026, Sendense contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The step hook: it notes, kills or stops its own process, and does nothing unless it was set."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Dict

from ansible_collections.sendense.platform.plugins.module_utils import steps

_CODE = (
    "import sys; from ansible_collections.sendense.platform.plugins.module_utils import steps; "
    "steps.about('m1'); steps.reached('a:b'); sys.exit(7)"
)


def _run(environ: Dict[str, str]) -> "subprocess.Popen[bytes]":
    return subprocess.Popen([sys.executable, "-c", _CODE], env=dict(os.environ, PYTHONPATH=os.pathsep.join(sys.path), **environ))


def test_without_the_variable_nothing_happens() -> None:
    assert steps.HOOK_VARIABLE not in os.environ
    steps.about("m1")
    steps.reached("a:b")
    assert steps.SUBJECT_VARIABLE not in os.environ


def test_a_step_is_noted_with_machine_and_pid(tmp_path: Path) -> None:
    hook = tmp_path / "hook"
    hook.touch()
    process = _run({"SENDENSE_STEP_HOOK": str(hook)})
    assert process.wait() == 7
    assert hook.read_text() == f"a:b m1 {process.pid}\n"


def test_only_the_named_step_of_the_named_machine_is_killed(tmp_path: Path) -> None:
    hook = tmp_path / "hook"
    hook.touch()
    for text, code in (("a:b m2\na:c m1\n", 7), ("a:b m1\n", -signal.SIGKILL), ("a:b\n", -signal.SIGKILL)):
        (tmp_path / "hook.kill").write_text(text)
        assert _run({"SENDENSE_STEP_HOOK": str(hook)}).wait() == code


def test_a_process_stops_at_a_step_and_goes_on(tmp_path: Path) -> None:
    hook = tmp_path / "hook"
    hook.touch()
    (tmp_path / "hook.stop").write_text("a:b m1\n")
    process = _run({"SENDENSE_STEP_HOOK": str(hook)})
    _pid, status = os.waitpid(process.pid, os.WUNTRACED)
    assert os.WIFSTOPPED(status)
    os.kill(process.pid, signal.SIGCONT)
    assert process.wait() == 7
