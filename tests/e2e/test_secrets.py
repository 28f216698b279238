# Copyright: (c) 2026, Sendense contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A password of a connection is seen by nobody: not in outputs, results, command lines, reports or stored files."""

from __future__ import annotations

from pathlib import Path
from typing import List

from tests.lab.host import LibvirtHost

from .canary import files_with, new_canary, plant, processes_with
from .site import Site

CANARY = new_canary()


def test_a_connections_password_stays_secret(libvirt_host: LibvirtHost, guest_factory, module_directory: Path) -> None:
    guest_factory("secretive").start(paused=True)
    site = Site(module_directory / "s", [libvirt_host.uri])
    plant(site, CANARY)
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
            seen += processes_with(CANARY)
        done = run.wait()
        assert (done.returncode == 0) == (extra.get("restore_vm_name") != "nowhere"), done.output
    assert seen == []
    assert files_with(CANARY, site.directory) == []


def test_the_search_finds_a_planted_secret(module_directory: Path) -> None:
    (module_directory / "planted").write_text(f"x{CANARY}")
    assert files_with(CANARY, module_directory) == [str(module_directory / "planted")]
    (module_directory / "planted").unlink()
