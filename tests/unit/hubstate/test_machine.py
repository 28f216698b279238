# Copyright: (c) 2026, Sendense contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Two processes say the same network exactly if they share their loopback."""

from __future__ import annotations

import re
import subprocess
import sys

from ansible_collections.sendense.platform.plugins.module_utils.hubstate import machine


def _elsewhere(*prefix: str) -> str:
    code = f"import runpy; print(runpy.run_path({machine.__file__!r})['network']())"
    return subprocess.run([*prefix, sys.executable, "-I", "-c", code], capture_output=True, text=True, check=True).stdout.strip()


def test_another_process_of_this_network_says_the_same() -> None:
    assert re.fullmatch(r"[0-9a-f-]{36}:[0-9]+", machine.network())
    assert _elsewhere() == machine.network()


def test_a_process_in_another_network_namespace_says_something_else() -> None:
    other = _elsewhere("unshare", "--net")
    assert other != machine.network() and other.split(":")[0] == machine.boot_id()
