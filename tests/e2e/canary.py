# Copyright: (c) 2026, Sendense contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A secret that must be seen by nobody, and the search for it."""

from __future__ import annotations

import os
import secrets
from pathlib import Path
from typing import List

import yaml

from .site import Site


def new_canary() -> str:
    """A word that occurs nowhere else."""
    return f"canary{secrets.token_hex(12)}"


def plant(site: Site, canary: str) -> None:
    """Make it the password of the inventory's connection (its transport never asks for it)."""
    path = site.directory / "inventory" / "machines.sendense.yml"
    inventory = yaml.safe_load(path.read_text())
    for source in inventory["sources"]:
        source["connection"].update(username="backup", password=canary)
    path.write_text(yaml.safe_dump(inventory))


def processes_with(canary: str) -> List[str]:
    """Every process whose arguments or environment hold the secret."""
    found = []
    for process in os.listdir("/proc"):
        if not process.isdigit() or int(process) == os.getpid():
            continue
        for name in ("cmdline", "environ"):
            try:
                content = Path("/proc", process, name).read_bytes()
            except OSError:
                continue
            if canary.encode() in content:
                found.append(f"{name}: {content!r}")
    return found


def files_with(canary: str, directory: Path) -> List[str]:
    """Every file below that holds the secret, but for the inventory that brings it."""
    found = []
    for path in directory.rglob("*"):
        if "inventory" in path.parts or path.is_symlink() or not path.is_file():
            continue
        try:
            if canary.encode() in path.read_bytes():
                found.append(str(path))
        except FileNotFoundError:
            continue
    return found
