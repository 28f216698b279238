# Copyright: (c) 2026, Sendense contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Every process that runs tests does so in a network namespace of its own, with the sysfs that shows it.

Files of tests run side by side, and so may several checkouts on one machine: with a loopback of its own none of them meets the
ports of another, and nothing outside can reach the servers of a test.
"""

from __future__ import annotations

import ctypes
import os
import subprocess

import pytest

_CLONE_NEWNS = 0x00020000
_CLONE_NEWNET = 0x40000000


def pytest_configure(config: pytest.Config) -> None:
    """Leave the machine's network. Without root only tests that need none can run, and they stay where they are."""
    del config
    if os.geteuid() != 0:
        return
    libc = ctypes.CDLL(None, use_errno=True)  # os.unshare came with Python 3.12
    if libc.unshare(_CLONE_NEWNS | _CLONE_NEWNET) != 0:
        raise pytest.UsageError(f"Cannot make namespaces: {os.strerror(ctypes.get_errno())}; tests need root with CAP_SYS_ADMIN.")
    subprocess.run(["mount", "--make-rslave", "/"], check=True)
    subprocess.run(["mount", "-t", "sysfs", "sysfs", "/sys"], check=True)
    subprocess.run(["ip", "link", "set", "lo", "up"], check=True)
