# Copyright: (c) 2026, Sendense contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Damage to stored files, and cheap copies of a repository to damage: hard links to everything but the damaged file."""

from __future__ import annotations

import os
import random
import shutil
from pathlib import Path

from tests.faults.oracle import sha256


def linked_copy(repository: Path, copy: Path) -> None:
    """The same tree, every file a hard link. What is about to be changed needs :func:`detach` first."""
    shutil.copytree(repository, copy, copy_function=os.link)


def detach(path: Path) -> None:
    """Make a hard link a file of its own."""
    own = path.with_name(f".{path.name}.own")
    shutil.copy2(path, own)
    own.replace(path)


def damage(path: Path, how: str, source: random.Random) -> None:
    """``flip`` one random bit, ``cut N`` bytes off the end, ``append N`` zeros, or ``empty`` it; the file is then another one."""
    before, size = sha256(path), path.stat().st_size
    action, _space, count = how.partition(" ")
    if action == "flip":
        with open(path, "r+b") as stream:
            offset = source.randrange(size)
            stream.seek(offset)
            value = stream.read(1)[0]
            stream.seek(offset)
            stream.write(bytes([value ^ (1 << source.randrange(8))]))
    elif action in ("cut", "empty"):
        os.truncate(path, max(0, size - int(count)) if action == "cut" else 0)
    else:
        with open(path, "ab") as stream:
            stream.write(bytes(int(count)))
    assert sha256(path) != before, f"{how} did not change {path}"
