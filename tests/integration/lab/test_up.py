# Copyright: (c) 2026, Sendense contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""``python -m tests.lab``: the lab by hand."""

from __future__ import annotations

import json
import subprocess
import sys

from tests.lab.paths import ROOT


def lab(directory, action):
    argv = [sys.executable, "-m", "tests.lab", "--directory", str(directory), action]
    done = subprocess.run(argv, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_the_lab_goes_up_and_down_twice(lab_base):
    directory = lab_base / "cli"
    try:
        assert lab(directory, "status") == "the lab is down\n"
        text = lab(directory, "up")
        assert "lab-bios" in text and "lab-uefi" in text
        state = json.loads((directory / "up.json").read_text())
        assert [guest["firmware"] for guest in state["guests"]] == ["bios", "uefi"]
        assert [disk["format"] for disk in state["guests"][0]["disks"]] == ["qcow2", "qcow2", "raw"]
        lab(directory, "up")
        again = json.loads((directory / "up.json").read_text())
        assert [guest["uuid"] for guest in again["guests"]] == [guest["uuid"] for guest in state["guests"]]
        assert again["guests"][0]["counter"] >= state["guests"][0]["counter"]
        assert "running" in lab(directory, "status")
    finally:
        assert lab(directory, "down") == "stopped: up\n"
    assert lab(directory, "down") == "nothing was running\n"
    assert sorted(path.name for path in directory.rglob("*")) == ["hosts", "up.lock"]
