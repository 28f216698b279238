# Copyright: (c) 2026, Sendense contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""ansible-playbook is killed and nobody helps: the keepers thaw the guest, end the snapshot and go, within the heartbeat timeout."""

from __future__ import annotations

import time

from tests.lab.guest import Guest

from .fleet import HEARTBEAT_SECONDS, Fleet
from .kills import Fault
from .oracle import backup_xml

#: Seconds that a keeper may need beyond its timeout: to notice, to stop servers, to run its undo commands on a busy machine.
SLACK_SECONDS = 20


def test_a_frozen_guest_is_thawed_and_an_open_snapshot_ended_when_nobody_is_left(fleet: Fleet) -> None:
    guest = Guest.bootable(fleet.host, "m00", quiet=True, odd_mib=8, raw_mib=4)
    fleet.adopt(guest.start())
    guest.wait_ready()
    guest.agent.wait()
    fleet.remember()

    fleet.backup({"m00": Fault("ansible and module", "libvirt:frozen")}, ok=False)
    killed = time.monotonic()
    assert fleet.hit == ["m00"]
    assert guest.agent.freeze_status() == "frozen"
    while guest.agent.freeze_status() == "frozen":
        assert time.monotonic() - killed < HEARTBEAT_SECONDS + SLACK_SECONDS
        time.sleep(0.2)
    print(f"thawed {time.monotonic() - killed:.1f} s after the kill, with a heartbeat timeout of {HEARTBEAT_SECONDS} s")
    fleet.settle(HEARTBEAT_SECONDS + SLACK_SECONDS)
    assert fleet.oracle.check(fleet.before) == []  # without any clean-up

    fleet.backup({"m00": Fault("ansible and module", "serve:checked")}, ok=False)
    killed = time.monotonic()
    assert fleet.hit == ["m00"]
    assert backup_xml(guest.domain)
    fleet.settle(HEARTBEAT_SECONDS + SLACK_SECONDS)
    print(f"snapshot ended {time.monotonic() - killed:.1f} s after the kill")
    assert not backup_xml(guest.domain)
    assert guest.agent.freeze_status() == "thawed"
    # Whether the backup was committed only the repository knows, so its checkpoint stays for the clean-up.
    assert [text for text in fleet.oracle.check(fleet.before) if "checkpoint or bitmap" not in text] == []
    assert fleet.recover() == []

    run = fleet.backup()
    assert fleet.oracle.next_backup(run, ["m00"], {"no_previous_backup"}) == []
    assert run.result("m00", "Snapshot all disks at one instant")["snapshot"]["consistency"] == "filesystem"
    assert fleet.oracle.check(fleet.before) == []
