# Copyright: (c) 2026, Sendense contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Which UEFI firmware of this host fits a machine: by qemu's own descriptor files, which every distribution ships."""

from __future__ import annotations

import fnmatch
import json
import os
from dataclasses import dataclass
from typing import Any, Dict, Iterator, Optional, Sequence

from ...errors import DependencyMissingError

#: Where descriptors lie; an earlier directory wins, as for qemu's other users.
DIRECTORIES = ("/etc/qemu/firmware", "/usr/share/qemu/firmware")


@dataclass(frozen=True)
class Firmware:
    """A code image, the template of its variables, and whether it boots only signed code (which needs SMM)."""

    loader: str
    template: str
    secure_boot: bool


def choose(
    architecture: str,
    machine_type: str,
    secure_boot: bool,
    nvram_bytes: Optional[int] = None,
    directories: Sequence[str] = DIRECTORIES,
) -> Firmware:
    """The firmware for a machine; ``nvram_bytes`` is the size of variables that it must be able to take over.

    DependencyMissingError if none is installed.
    """
    for descriptor in _descriptors(directories):
        firmware = _read(descriptor)
        if firmware is None or firmware.secure_boot != secure_boot or not _fits(descriptor, architecture, machine_type):
            continue
        if nvram_bytes is None or os.path.getsize(firmware.template) == nvram_bytes:
            return firmware
    kind = "UEFI firmware with secure boot" if secure_boot else "UEFI firmware"
    size = "" if nvram_bytes is None else f" whose variables take {nvram_bytes} bytes"
    raise DependencyMissingError(
        f"No {kind}{size} for {machine_type} is installed at this place; install the package ovmf.",
        details={"architecture": architecture, "machine_type": machine_type, "nvram_bytes": nvram_bytes},
    )


def _descriptors(directories: Sequence[str]) -> Iterator[Dict[str, Any]]:
    """All descriptors in the order of their file names, in which the distribution states its preference."""
    files: Dict[str, str] = {}
    for directory in reversed(directories):
        if os.path.isdir(directory):
            files.update({name: os.path.join(directory, name) for name in os.listdir(directory) if name.endswith(".json")})
    for name in sorted(files):
        try:
            with open(files[name], encoding="utf-8") as stream:
                descriptor = json.load(stream)
        except (OSError, ValueError):
            continue
        if isinstance(descriptor, dict):
            yield descriptor


def _read(descriptor: Dict[str, Any]) -> Optional[Firmware]:
    mapping = descriptor.get("mapping", {})
    if "uefi" not in descriptor.get("interface-types", []) or mapping.get("device") != "flash":
        return None
    loader = mapping.get("executable", {}).get("filename", "")
    template = mapping.get("nvram-template", {}).get("filename", "")
    if not os.path.isfile(loader) or not os.path.isfile(template):
        return None
    return Firmware(loader, template, "requires-smm" in descriptor.get("features", []))


def _fits(descriptor: Dict[str, Any], architecture: str, machine_type: str) -> bool:
    return any(
        target.get("architecture") == architecture
        and any(fnmatch.fnmatchcase(machine_type, pattern) for pattern in target.get("machines", []))
        for target in descriptor.get("targets", [])
    )
