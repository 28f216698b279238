# Copyright: (c) 2026, Sendense contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""By what a later snapshot tells that the host or the machine was restarted meanwhile, on a real libvirt."""

from __future__ import annotations

from pathlib import Path

import libvirt

from ansible_collections.sendense.platform.plugins.module_utils.platforms._base import Source
from ansible_collections.sendense.platform.plugins.module_utils.platforms.libvirt.client import Client
from ansible_collections.sendense.platform.plugins.module_utils.platforms.libvirt.incarnation import incarnation_of
from tests.contract.libvirt_lab import LibvirtSourceLab
from tests.contract.source_contract import Runner


def test_a_snapshot_says_this_boot_of_the_host_and_this_run_of_the_machine(lab: LibvirtSourceLab, source: Source, runner: Runner) -> None:
    domain = lab.guest.domain
    snapshot = runner.backup(source)
    assert snapshot.incarnation == {"host": boot_id(), "run": str(domain.ID()), "began": ""}
    assert runner.backup(source).incarnation == snapshot.incarnation
    lab.power("off")
    assert runner.backup(source).incarnation == {"host": boot_id(), "run": "", "began": ""}
    lab.power("on")
    again = runner.backup(source).incarnation
    assert again["run"] not in ("", snapshot.incarnation["run"]) and again["began"] == ""


def test_a_machine_that_runs_from_a_saved_state_says_so(lab: LibvirtSourceLab) -> None:
    domain, client = lab.guest.domain, Client({})
    before = incarnation_of(client, domain)
    domain.managedSave(libvirt.VIR_DOMAIN_SAVE_RUNNING)
    assert incarnation_of(client, domain)["run"] == ""
    domain.create()
    try:
        after = incarnation_of(client, domain)
        assert after["began"] == "restored" and after["run"] not in ("", before["run"])
    finally:
        domain.suspend()
    assert incarnation_of(client, domain) == {**after, "began": ""}


def boot_id() -> str:
    return Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
