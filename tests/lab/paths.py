# Copyright: (c) 2026, Sendense contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Where the lab keeps what it builds; nothing of it is outside the checkout except what a caller names."""

from __future__ import annotations

from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
BUILD = ROOT / "build" / "lab"
#: Kernel package of the distribution, unpacked by scripts/bootstrap.sh.
KERNEL = BUILD / "kernel"
#: Packages of which single files go into the guest, unpacked by scripts/bootstrap.sh.
PARTS = BUILD / "parts"
#: Guest images, keyed by a digest of everything that went into them.
IMAGES = BUILD / "images"
#: libvirt's own record of what the installed qemu can do; probing for it takes seconds.
CAPABILITIES = BUILD / "capabilities"
#: What ``lab up`` started.
UP = BUILD / "up.json"


class LabError(Exception):
    """The lab could not do what was asked; the text says what to do."""
