# Copyright: (c) 2026, Sendense contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A password of a connection is seen by nobody: not in outputs, results, command lines, reports or stored files."""

from __future__ import annotations

import os
import secrets
from pathlib import Path
from typing import List

import yaml

from tests.lab.host import LibvirtHost

from .site import Site

CANARY = f"canary{secrets.token_hex(12)}"


def with_password(site: Site) -> None:
    """Give the inventory's connection a password (its transport never asks for it)."""
    path = site.directory / "inventory" / "machines.sendense.yml"
    inventory = yaml.safe_load(path.read_text())
    inventory["sources"][0]["connection"].update(username="backup", password=CANARY)
    path.write_text(yaml.safe_dump(inventory))


def command_lines_with_canary() -> List[str]:
    """Every process whose arguments or environment hold the secret."""
    found = []
    for process in Path("/proc").iterdir():
        if not process.name.isdigit() or int(process.name) == os.getpid():
            continue
        for name in ("cmdline", "environ"):
            try:
                content = (process / name).read_bytes()
            except OSError:
                continue
            if CANARY.encode() in content:
                found.append(f"{name}: {content!r}")
    return found


def files_with_canary(directory: Path) -> List[str]:
    """Every file below that holds the secret, but for the inventory that brings it."""
    found = []
    for path in directory.rglob("*"):
        if path.is_file() and not path.is_symlink() and "inventory" not in path.parts and CANARY.encode() in path.read_bytes():
            found.append(str(path))
    return found


def test_a_connections_password_stays_secret(libvirt_host: LibvirtHost, guest_factory, module_directory: Path) -> None:
    guest_factory("secretive").start(paused=True)
    site = Site(module_directory / "s", [libvirt_host.uri])
    with_password(site)
    site.initialise()
    seen: List[str] = []
    for playbook, extra in (
        ("backup", {"backup_vm_report_dir": str(site.directory / "reports")}),
        ("cleanup", {}),
        ("restore", {"restore_vm_name": "copy", "restore_vm_storage": str(module_directory), "restore_vm_power_on": False}),
        ("restore", {"restore_vm_name": "nowhere", "restore_vm_storage": "/does/not/exist"}),
    ):
        run = site.start(playbook, "secretive", extra, ["-vvv"])
        while run.process.poll() is None:
            seen += command_lines_with_canary()
        done = run.wait()
        assert (done.returncode == 0) == (extra.get("restore_vm_name") != "nowhere"), done.output
    assert seen == []
    assert files_with_canary(site.directory) == []


def test_the_search_finds_a_planted_secret(module_directory: Path) -> None:
    (module_directory / "planted").write_text(f"x{CANARY}")
    assert files_with_canary(module_directory) == [str(module_directory / "planted")]
    (module_directory / "planted").unlink()
