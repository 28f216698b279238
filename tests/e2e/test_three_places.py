# Copyright: (c) 2026, Sendense contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Controller, hub and node on three machines that share no file and no process: every operation, and every byte compared."""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Dict, List, Set

import pytest

from tests.lab import disks
from tests.lab.disks import MIB, ODD_BYTES, DiskSpec, ImageFile
from tests.lab.guest import Guest
from tests.lab.paths import ROOT
from tests.lab.places import SSH_PORT

from .canary import files_with, new_canary, plant, processes_with
from .estate import Estate, changed_anywhere
from .points import leftovers, references, stored_point
from .remote_site import RemoteSite, three_places
from .site import Run, Started
from .sockets import listeners, strangers

NAME = "apart"
CANARY = new_canary()
#: Slow enough for the lines of a copy to be seen.
SLOW = {"backup_vm_max_bytes_per_second": 256 * 1024, "restore_vm_max_bytes_per_second": 512 * 1024}
POLICY = {"sendense_retention": {"keep_last": 2, "timezone": "Europe/Berlin"}}


@dataclass
class Seen:
    """What was to be seen while plays ran."""

    carriers: Set[str] = field(default_factory=set)
    strangers: Set[str] = field(default_factory=set)
    listeners: Set[str] = field(default_factory=set)
    secrets: List[str] = field(default_factory=list)


@dataclass
class Story:
    """An installation, its machine, and what happened: ``held`` are raw copies of the disks by point, ``runs`` the plays by name."""

    site: RemoteSite
    guest: Guest
    seen: Seen = field(default_factory=Seen)
    held: Dict[str, Dict[str, Path]] = field(default_factory=dict)
    runs: Dict[str, Run] = field(default_factory=dict)
    untouched: bool = False

    def play(self, name: str, playbook: str, extra: "Dict[str, Any] | None" = None, options: "List[str] | None" = None) -> Run:
        """Run a playbook and look at the machines all the time."""
        started = self.site.start(playbook, NAME, extra, options or [])
        while started.process.poll() is None:
            self.look()
            time.sleep(0.2)
        run = self.runs[name] = started.wait()
        assert run.returncode == 0, run.output
        return run

    def look(self) -> None:
        """Who listens, who is connected with the hub's exports, and whether a secret shows."""
        for place in self.site.places.all.values():
            self.seen.listeners |= {f"{place.name}: {one}" for one in listeners(place)}
        carriers, others = strangers(self.site.places.hub)
        self.seen.carriers |= carriers
        self.seen.strangers |= others
        self.seen.secrets += processes_with(CANARY)

    def back_up(self, name: str, extra: "Dict[str, Any] | None" = None) -> None:
        """Keep what the disks hold, then back them up."""
        held = references(self.guest, self.site.directory / f"held-{name}")
        self.held[self.play(name, "backup", extra).report(NAME)["point"]["id"]] = held

    def state(self) -> Dict[str, Any]:
        """Everything that hub, node and platform hold."""
        return Estate(self.site, [self.guest.host]).changeable()


@pytest.fixture(scope="module")
def story(e2e_host):
    """All plays in their order."""
    guest = Guest.create(e2e_host, NAME, [DiskSpec("vda", 16 * MIB + ODD_BYTES), DiskSpec("vdb", 2 * MIB, "raw")], firmware="uefi")
    guest.start(paused=True)
    guest.write("vda", 0x5A, 0, MIB)
    guest.write("vdb", 0x5B, 0, MIB)
    try:
        with three_places(e2e_host) as site:
            plant(site, CANARY)
            yield told(Story(site, guest))
            assert idle(site) == []
    finally:
        guest.remove()


def told(story: Story) -> Story:
    """Back up thrice, look, restore, prune."""
    before = story.state()
    story.play("check", "backup", options=["--check", "--diff"])
    story.untouched = story.state() == before
    story.back_up("full", SLOW)
    for number in (1, 2):
        story.guest.write("vda", 0x60 + number, number * MIB + 512, 64 * 1024)
        story.guest.write("vdb", 0x70 + number, number * 65536, 4096)
        story.guest.zero("vda", number * 65536, 4096)
        story.back_up(f"incremental {number}")
    story.play("verify", "verify", {"verify_vm_all_points": True})
    machine = {"restore_vm_name": f"{NAME}-restored", "restore_vm_storage": str(story.site.storage), "restore_vm_power_on": False}
    story.play("restore", "restore", {**SLOW, **machine})
    story.play("restore again", "restore", machine)
    story.play("files", "restore", {"restore_vm_directory": str(story.site.files / "one"), "restore_vm_format": "raw"})
    story.play("prune", "prune", POLICY)
    story.play("prune again", "prune", POLICY)
    story.play("list", "list")
    story.play("doctor", "doctor")
    return story


def idle(site: RemoteSite) -> List[str]:
    """What runs at hub and node beside the machine's own two processes and connections of ssh, and files outside of what they keep."""
    found = []
    for place in site.machines:
        for pid in place.processes():
            line = Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
            if not line.startswith(("sshd: ", "/usr/bin/python3 -I")):
                found.append(f"{place.name}: {line}")
        kept = {path.parts[2] for path in (*place.keep, ROOT) if path.parts[1] == "tmp"}
        found += [f"{place.name}: /tmp/{name}" for name in place.run("ls", "-A", "/tmp").split() if name not in kept]
        found += [f"{place.name}: {path}" for path in place.run("find", "/root", "-mindepth", "3").split()]
    return found


def test_check_mode_says_what_would_be_done_and_touches_nothing(story):
    assert story.untouched
    assert story.runs["check"].report(NAME)["planned"] is True


def test_every_point_is_what_the_disks_held_at_its_instant(story):
    levels = [[disk["level"] for disk in story.runs[name].report(NAME)["disks"]] for name in ("full", "incremental 1", "incremental 2")]
    assert levels == [["full", "full"], ["incremental", "full"], ["incremental", "full"]]
    kept = [row["point_id"] for row in story.runs["prune"].report(NAME)["kept"]]
    assert kept == list(story.held)[1:]
    for point_id in kept:
        assert stored_point(story.site.repository, story.guest, point_id).differing(story.held[point_id]) == []
    assert story.runs["verify"].report(NAME)["ok"] is True


def test_a_machine_is_restored_at_the_node_with_its_firmware_variables(story, e2e_host):
    restored = Guest.adopt(e2e_host, f"{NAME}-restored")
    try:
        held = list(story.held.values())[-1]
        assert list(restored.disks) == list(held)
        for target, disk in restored.disks.items():
            assert disks.identical(disk.image, ImageFile(str(held[target]), "raw")), target
        (nvram,) = story.site.storage.glob("*nvram.fd")
        assert nvram.read_bytes() == (story.guest.dir / "nvram.fd").read_bytes()
    finally:
        restored.remove()
    assert story.runs["restore again"].report(NAME)["disks"] == []
    assert changed_anywhere(story.runs["restore again"]) == {}


def test_files_are_restored_at_the_hub(story):
    for number, reference in enumerate(list(story.held.values())[-1].values()):
        made = ImageFile(str(story.site.files / "one" / f"disk{number}.raw"), "raw")
        assert disks.identical(made, ImageFile(str(reference), "raw"))


def test_a_second_prune_changes_nothing_and_the_doctor_finds_nothing(story):
    assert len(story.runs["prune"].report(NAME)["merged"]) == 1
    for name in ("prune again", "list", "doctor"):
        assert changed_anywhere(story.runs[name]) == {}, name
    assert story.runs["doctor"].report(NAME)["findings"] == []
    assert [point["point_id"] for point in story.runs["list"].report(NAME)["points"]] == list(story.held)[1:]


def test_data_comes_to_the_hub_through_its_sshd_alone_and_nobody_else_could_connect(story):
    # The hub looks at its own servers once they are up; what moves data is sshd.
    assert "sshd" in story.seen.carriers <= {"sshd", "python3"}
    assert story.seen.strangers == set()
    outside = {one for one in story.seen.listeners if not one.split(": ")[1].startswith(("127.", "[::1]"))}
    assert outside == {f"{name}: 0.0.0.0:{SSH_PORT}" for name in story.site.places.all}


def test_no_secret_shows_anywhere(story):
    assert story.seen.secrets == []
    keys = [place.key.read_text().splitlines()[2] for place in story.site.places.all.values()]
    for secret in (CANARY, *keys):
        assert files_with(secret, story.site.directory) == []
        assert [path for path in files_with(secret, story.site.places.directory) if not path.endswith("/id")] == []


def copying(story: Story, bytes_per_second: int) -> Started:
    """A slow full backup that has begun to copy."""
    started = story.site.start("backup", NAME, {"backup_vm_max_bytes_per_second": bytes_per_second, "backup_vm_full": True})
    deadline = time.monotonic() + 90
    while "SENDENSE-PROGRESS" not in started.log.read_text():
        assert started.process.poll() is None and time.monotonic() < deadline, started.log.read_text()
        time.sleep(0.1)
    return started


def test_links_that_come_back_soon_are_waited_for(story):
    network = story.site.places.network
    held = references(story.guest, story.site.directory / "held-shaken")
    started = copying(story, 192 * 1024)
    for cable in network.cables:
        network.cut(*cable)
    time.sleep(6)
    for cable in network.cables:
        network.mend(*cable)
    run = started.wait()
    assert run.returncode == 0, run.output
    point = stored_point(story.site.repository, story.guest, run.report(NAME)["point"]["id"])
    assert point.differing(held) == []


def test_a_cancel_reaches_a_job_at_both_machines(story):
    started = copying(story, 16 * 1024)  # two plays begin and end meanwhile, on a busy machine
    would = story.site.play("cancel", NAME, options=["--check"])
    assert would.changed(NAME) > 0 and f"{NAME}: would cancel backup " in would.output
    assert f"{NAME}: cancelled backup " in story.site.play("cancel", NAME).output
    assert leftovers(story.site, story.guest.host) == []
    assert started.wait().error(NAME)["error_code"] == "JOB_CANCELLED"
    assert idle(story.site) == []
