# Copyright: (c) 2026, Sendense contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Rounds of random writes with an incremental backup each, and the bytes of every point compared at the end.

Guests of several purposes share the plays, because most of a play's time is its start:

    still      suspended, random writes; every play
    busy       booted, never stops writing; every play
    twin       suspended, two repositories in turn
    powered    now off, now on
    bulk       one full disk, then 5 % of it changed
"""

from __future__ import annotations

import dataclasses
import random

import pytest

from tests.lab.counters import one_instant
from tests.lab.disks import MIB, DiskSpec
from tests.lab.guest import Guest

from .history import History, Order
from .points import copied, plant
from .scribble import BLOCK, KINDS, Scribbler

#: Incremental backups that are compared: half of a guest that stands still, half of one that goes on writing.
ROUNDS = 30
TURNS = 10
POWER = ("off", "off", "on", "on", "off", "on")
SEED = 20261120
BULK_BYTES = 64 * MIB
CHANGED = 0.05


@pytest.fixture(scope="module")
def other_repository(e2e_site):
    """A second repository beside the site's own."""
    path = str(e2e_site.directory / "repo2")
    dataclasses.replace(e2e_site, repository=path).initialise()
    return path


@pytest.fixture(scope="module")
def scribblers(e2e_host):
    """The guests that never run an instruction, each with its source of random writes."""
    made = {name: Scribbler(Guest.create(e2e_host, name), SEED) for name in ("still", "twin", "powered")}
    bulk = Guest.create(e2e_host, "bulk", [DiskSpec("vda", BULK_BYTES)])
    yield dict(made, bulk=Scribbler(bulk, SEED))
    for guest in (*(scribbler.guest for scribbler in made.values()), bulk):
        guest.remove()


@pytest.fixture(scope="module")
def history(e2e_site, other_repository, scribblers, booted, module_directory):
    """All plays: the first makes fulls, each one after it two of the rounds."""
    done = History(e2e_site, module_directory / "references")
    repositories = (e2e_site.repository, other_repository)
    scribblers["still"].guest.start(paused=True)
    scribblers["twin"].guest.start(paused=True)
    booted.bios.resume()
    try:
        for number in range(ROUNDS // 2 + 1):
            orders = [Order(scribblers["still"].guest, repositories[0], scribbled(scribblers["still"], number))]
            orders.append(Order(booted.bios, repositories[0], still=False))
            if number < TURNS:
                orders.append(Order(scribblers["twin"].guest, repositories[number % 2], scribbled(scribblers["twin"], number)))
            if number < len(POWER):
                what = switched(scribblers["powered"], number)
                orders.append(Order(scribblers["powered"].guest, repositories[0], what))
            if number < 2:
                orders.append(Order(scribblers["bulk"].guest, repositories[0], bulky(scribblers["bulk"].guest, number)))
            done.back_up(orders)
    finally:
        booted.bios.suspend()
    return done


def scribbled(scribbler, number):
    """Content before the first play, a round of writes before every other one."""
    if number:
        return scribbler.scribble()
    scribbler.fill()
    return "the first content"


def switched(scribbler, number):
    """Write while on, then leave the guest on or off as this play wants it."""
    guest = scribbler.guest
    if not guest.active:
        guest.start(paused=True)
    what = scribbled(scribbler, number)
    if POWER[number] == "off":
        guest.destroy()
    return f"{what}, {POWER[number]}"


def bulky(guest, number):
    """Fill the whole disk, or change one block in twenty."""
    if not number:
        guest.start(paused=True)
        for offset in range(0, BULK_BYTES, 8 * MIB):
            guest.write("vda", 1 + offset // (8 * MIB), offset, 8 * MIB)
        return "filling"
    blocks = random.Random(SEED).sample(range(BULK_BYTES // BLOCK), int(BULK_BYTES // BLOCK * CHANGED))
    for block in blocks:
        guest.write("vda", 99, block * BLOCK, BLOCK)
    return f"changing {len(blocks)} blocks"


def test_every_disk_of_every_point_of_a_suspended_machine_is_identical(history):
    entries = history.entries["still"]
    assert len(entries) == ROUNDS // 2 + 1
    assert {entry.what for entry in entries[1:]} == set(KINDS)
    assert history.differing("still") == []


def test_every_point_of_a_writing_machine_is_of_one_instant(history):
    entries = history.entries["e2e-bios"]
    counters = [entry.point.counters() for entry in entries]
    assert len(counters) == ROUNDS // 2 + 1
    assert [found for found in counters if not one_instant(found)] == []
    firsts = [found[0] for found in counters]
    assert firsts == sorted(set(firsts)), "the machine did not go on writing between the points"


def test_all_but_the_first_point_are_incremental_except_for_raw_disks(history):
    for name in ("still", "e2e-bios", "powered"):
        first, *others = history.entries[name]
        assert set(first.levels().values()) == {"full"}
        assert set(first.reasons().values()) == {"no_previous_backup"}
        for entry in others:
            assert entry.levels() == {"vda": "incremental", "vdb": "incremental", "vdc": "full"}, entry.name
            assert entry.reasons() == {"vda": "change_tracking", "vdb": "change_tracking", "vdc": "tracking_unsupported"}


def test_two_repositories_in_turn_stay_incremental_and_identical(history, e2e_site, other_repository):
    entries = history.entries["twin"]
    assert len(entries) == TURNS
    for repository in (e2e_site.repository, other_repository):
        mine = [entry for entry in entries if str(entry.point.directory).startswith(f"{repository}/")]
        assert [entry.levels()["vda"] for entry in mine] == ["full"] + ["incremental"] * (TURNS // 2 - 1)
        assert [entry.levels()["vdb"] for entry in mine] == ["full"] + ["incremental"] * (TURNS // 2 - 1)
    assert history.differing("twin") == []


def test_a_machine_stays_incremental_and_identical_whether_it_is_off_or_on(history):
    entries = history.entries["powered"]
    assert [entry.what.rpartition(", ")[2] for entry in entries] == list(POWER)
    assert history.differing("powered") == []


def test_only_the_change_tracking_that_the_next_backup_needs_is_kept(history, scribblers):
    expected = {"still": 1, "twin": 2, "powered": 1, "bulk": 1}
    kept = {name: len(scribblers[name].guest.domain.listAllCheckpoints()) for name in expected}
    assert kept == expected


def test_an_incremental_of_5_percent_reads_sends_and_stores_a_tenth_of_a_full_at_most(history):
    full, changed = history.entries["bulk"]
    assert history.differing("bulk") == []
    assert full.levels() == {"vda": "full"} and changed.levels() == {"vda": "incremental"}
    assert full.moved("vda")["bytes_read"] == BULK_BYTES
    for name in ("bytes_read", "bytes_written"):
        assert 0 < changed.moved("vda")[name] <= 0.1 * full.moved("vda")[name], name
    stored, stored_changed = full.point.allocated_bytes("vda"), changed.point.allocated_bytes("vda")
    assert stored >= BULK_BYTES
    assert 0 < stored_changed <= 0.1 * stored


@pytest.mark.parametrize("target", ["vda", "vdb", "vdc"])
def test_a_disk_of_a_later_instant_breaks_the_one_instant_check(history, tmp_path, target):
    early, late = history.entries["e2e-bios"][1:3]
    planted = copied(early.point, tmp_path / "points")
    assert one_instant(planted.counters())
    plant(planted, target, late.point)
    assert not one_instant(planted.counters())


@pytest.mark.parametrize("target", ["vda", "vdb", "vdc"])
def test_a_disk_of_a_later_instant_breaks_the_comparison(history, tmp_path, target):
    entries = history.entries["still"]
    contents = [entry.references[target].read_bytes() for entry in entries]
    position = next(number for number in range(1, len(entries) - 1) if contents[number] != contents[number + 1])
    early, late = entries[position], entries[position + 1]
    planted = copied(early.point, tmp_path / "points")
    assert planted.differing(early.references) == []
    plant(planted, target, late.point)
    assert planted.differing(early.references) == [target]
