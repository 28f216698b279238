# Copyright: (c) 2026, Sendense contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The lab's sshd is a real one, lets in whom it is told to, and leaves nothing."""

from __future__ import annotations

import subprocess
from pathlib import Path
from typing import List

import pytest

from tests.lab.paths import LabError
from tests.lab.processes import wait_gone
from tests.lab.sshd import Sshd, make_key


def ssh(sshd: Sshd, key: Path, known_hosts: Path, *command: str) -> List[str]:
    argv = ["ssh", "-F", "/dev/null", "-T", "-p", str(sshd.port), "-i", str(key), "-o", "BatchMode=yes", "-o", "IdentitiesOnly=yes"]
    argv += ["-o", f"UserKnownHostsFile={known_hosts}", "-o", "GlobalKnownHostsFile=/dev/null", "-o", "StrictHostKeyChecking=yes"]
    return [*argv, f"root@{sshd.address}", *command]


def test_it_lets_in_only_its_keys_and_can_cut_every_connection(tmp_path: Path) -> None:
    key, stranger = tmp_path / "id", tmp_path / "stranger"
    make_key(stranger)
    with Sshd(tmp_path / "sshd", keys=[make_key(key)]) as sshd:
        known = sshd.known_hosts(tmp_path / "known")
        done = subprocess.run(ssh(sshd, key, known, "id", "-un"), capture_output=True, text=True, timeout=30, check=False)
        assert (done.returncode, done.stdout) == (0, "root\n"), done.stderr + sshd.log.read_text()
        done = subprocess.run(ssh(sshd, stranger, known, "true"), capture_output=True, text=True, timeout=30, check=False)
        assert done.returncode == 255 and "Permission denied" in done.stderr
        cut = subprocess.Popen(
            ssh(sshd, key, known, "echo on; exec sleep 60"), stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
        )
        assert cut.stdout is not None and cut.stdout.readline() == "on\n"
        sshd.cut()
        assert cut.wait(10) == 255
        cut.stdout.close()
        assert subprocess.run(ssh(sshd, key, known, "true"), timeout=30, check=False).returncode == 0
    assert wait_gone(lambda: not sshd.processes(), 5.0)


def test_an_option_that_sshd_does_not_know_is_reported_in_its_words(tmp_path: Path) -> None:
    with pytest.raises(LabError, match="Bad configuration option"):
        Sshd(tmp_path / "sshd", options=["Nonsense yes"]).start()
