# Copyright: (c) 2026, Sendense contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""By what two processes find out whether they see the same machine and the same loopback."""

from __future__ import annotations

import os


def boot_id() -> str:
    """Of this kernel since it started; containers share it."""
    with open("/proc/sys/kernel/random/boot_id", encoding="ascii") as stream:
        return stream.read().strip()


def network() -> str:
    """``<boot id>:<inode of the network namespace>``: equal for two processes exactly if 127.0.0.1 is the same for both."""
    return f"{boot_id()}:{os.stat('/proc/self/ns/net').st_ino}"
