# Copyright: (c) 2026, Sendense contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Booted guests, BIOS and UEFI, backed up twice and restored: to machines that boot, to files, one disk alone."""

from __future__ import annotations

import secrets
from dataclasses import dataclass
from pathlib import Path
from typing import Dict

import pytest

from tests.lab import disks
from tests.lab.counters import one_instant
from tests.lab.disks import ImageFile
from tests.lab.domainxml import firmware_files
from tests.lab.guest import Guest

from .history import Entry, History, Order
from .site import Run

SUFFIX = "-restored"


@dataclass
class Restored:
    """A machine as it was defined, before it ran for the first time."""

    original: Guest
    entry: Entry
    guest: Guest
    differing: "list[str]"
    nvram: bytes


@pytest.fixture(scope="module")
def nonces(booted):
    return {guest.name: secrets.token_hex(16) for guest in (booted.bios, booted.uefi)}


@pytest.fixture(scope="module")
def history(e2e_site, booted, module_directory, nonces):
    """A full of both guests, and an incremental after each has written its nonce and more counters."""
    done = History(e2e_site, module_directory / "references")
    guests = (booted.bios, booted.uefi)
    done.back_up([Order(guest, e2e_site.repository, "booting") for guest in guests])
    for guest in guests:
        guest.resume()
    for guest in guests:
        guest.agent.write_file("/data/nonce", nonces[guest.name].encode())
        guest.wait_counter(guest.counters()[0] + 3)
        guest.suspend()
    done.back_up([Order(guest, e2e_site.repository, "writing the nonce") for guest in guests])
    return done


@pytest.fixture(scope="module")
def restore(e2e_site, history):
    """Run the restore playbook for both guests; texts of the arguments may name them as ``{{ inventory_hostname }}``."""

    def run(limit: str = "", **extra: object) -> Run:
        return e2e_site.play("restore", limit or ",".join(history.entries), extra)

    return run


@pytest.fixture(scope="module")
def to_machines(module_directory):
    """The arguments that restore each guest to a new machine."""
    (module_directory / "disks").mkdir()
    return {"restore_vm_name": "{{ inventory_hostname }}" + SUFFIX, "restore_vm_storage": str(module_directory / "disks")}


@pytest.fixture(scope="module")
def restored(e2e_host, booted, history, restore, to_machines) -> Dict[str, Restored]:
    """Both machines restored, switched off, and compared before anything in them runs."""
    restore(restore_vm_power_on=False, **to_machines)
    found = {}
    for original in (booted.bios, booted.uefi):
        entry = history.entries[original.name][-1]
        guest = Guest.adopt(e2e_host, original.name + SUFFIX)
        assert not guest.active
        differing = [
            target
            for target, disk in guest.disks.items()
            if not disks.identical(disk.image, entry.point.image(target))
            or not disks.identical(disk.image, ImageFile(str(entry.references[target]), "raw"))
        ]
        stored = list(Path(to_machines["restore_vm_storage"]).glob("*nvram.fd")) if original is booted.uefi else []
        found[original.name] = Restored(original, entry, guest, differing, stored[0].read_bytes() if stored else b"")
    yield found
    for machine in found.values():
        machine.guest.remove()


@pytest.fixture(scope="module")
def running(restored, restore, to_machines) -> Run:
    """The same restore again: the machines are there, so it only switches them on."""
    return restore(restore_vm_power_on=True, **to_machines)


def test_both_guests_were_backed_up_whole_and_then_changes_alone(history):
    for name, (first, second) in history.entries.items():
        assert set(first.levels().values()) == {"full"}
        assert second.levels() == {"vda": "incremental", "vdb": "incremental", "vdc": "full"}
        assert history.differing(name) == []


def test_every_restored_disk_is_identical_with_the_point_and_with_the_source(restored):
    for machine in restored.values():
        assert list(machine.guest.disks) == ["vda", "vdb", "vdc"]
        assert machine.differing == []


def test_a_uefi_machine_is_restored_with_its_firmware_variables(restored, booted):
    machine = restored[booted.uefi.name]
    stored = (machine.entry.point.directory / machine.entry.point.manifest["nvram"]["file"]).read_bytes()
    assert stored == (booted.uefi.dir / "nvram.fd").read_bytes()
    assert stored != firmware_files()[1].read_bytes(), "the guest has not changed its variables, so this proves nothing"
    assert machine.nvram == stored


def test_a_second_restore_copies_nothing_and_switches_the_machines_on(restored, running):
    for name, machine in restored.items():
        assert machine.guest.active
        assert running.report(name)["disks"] == []
        assert running.report(name)["machine_id"] == machine.guest.uuid


def test_restored_machines_boot_from_their_own_disks_with_the_state_of_the_point(restored, running, nonces):
    firmware = {"e2e-bios": "bios", "e2e-uefi": "uefi"}
    for name, machine in restored.items():
        assert machine.guest.wait_ready() == nonces[name]
        console = machine.guest.console
        counters = machine.entry.point.counters()
        assert one_instant(counters)
        assert console.values("LAB COUNTERS ") == [" ".join(str(counter) for counter in counters)]
        assert console.values("LAB FIRMWARE ") == [firmware[name]]
        assert console.values("LAB FILES ")[0].startswith("ok ")
        assert machine.guest.wait_counter() > counters[0]


def test_disks_are_restored_to_raw_and_qcow2_files(history, restore, module_directory):
    formats = {"e2e-bios": "qcow2", "e2e-uefi": "raw"}
    restore(
        restore_vm_directory=str(module_directory / "files-{{ inventory_hostname }}"),
        restore_vm_format="{{ e2e_formats[inventory_hostname] }}",
        e2e_formats=formats,
    )
    for name, (_first, second) in history.entries.items():
        directory = module_directory / f"files-{name}"
        assert sorted(path.name for path in directory.iterdir()) == [f"disk{number}.{formats[name]}" for number in range(3)]
        for number, target in enumerate(("vda", "vdb", "vdc")):
            made = ImageFile(str(directory / f"disk{number}.{formats[name]}"), formats[name])
            assert disks.identical(made, second.point.image(target)), (name, target)
            assert "backing-filename" not in disks.info(made)


def test_one_disk_of_an_older_point_is_restored_alone(history, restore, module_directory):
    first, second = history.entries["e2e-bios"]
    directory = module_directory / "one"
    options = {"restore_vm_disks": ["disk1"], "restore_vm_point_id": first.point.directory.name}
    restore("e2e-bios", restore_vm_directory=str(directory), restore_vm_format="raw", **options)
    assert [path.name for path in directory.iterdir()] == ["disk1.raw"]
    made = ImageFile(str(directory / "disk1.raw"), "raw")
    assert disks.identical(made, first.point.image("vdb"))
    assert not disks.identical(made, second.point.image("vdb"))


def test_one_disk_is_restored_to_a_machine_of_its_own(e2e_host, history, restore, to_machines):
    restore("e2e-bios", restore_vm_disks=["disk1"], restore_vm_power_on=False, **dict(to_machines, restore_vm_name="e2e-single"))
    guest = Guest.adopt(e2e_host, "e2e-single")
    try:
        (disk,) = guest.disks.values()
        assert disks.identical(disk.image, history.entries["e2e-bios"][-1].point.image("vdb"))
    finally:
        guest.remove()
