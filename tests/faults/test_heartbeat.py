# Copyright: (c) 2026, Sendense contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""ansible-playbook is killed and nobody helps: the keepers see it, thaw the guest, end the snapshot and go. No heartbeat is waited for."""

from __future__ import annotations

import time
from typing import Any, Dict

from tests.lab.guest import Guest

from .cancelling import LEFT_NOTHING_SECONDS
from .fleet import Fleet
from .kills import Fault
from .oracle import backup_xml

#: A heartbeat timeout that would end nothing here, and the seconds in which everything has to end without it on a busy machine.
PATIENT: Dict[str, Any] = {"backup_vm_heartbeat_timeout": 600}
LIMIT_SECONDS = 4 * LEFT_NOTHING_SECONDS


def test_a_frozen_guest_is_thawed_and_an_open_snapshot_ended_when_nobody_is_left(fleet: Fleet) -> None:
    guest = Guest.bootable(fleet.host, "m00", quiet=True, odd_mib=8, raw_mib=4)
    fleet.adopt(guest.start())
    guest.wait_ready()
    guest.agent.wait()
    fleet.remember()

    fleet.backup({"m00": Fault("ansible and module", "libvirt:frozen")}, ok=False, **PATIENT)
    killed = time.monotonic()
    assert fleet.hit == ["m00"]
    while guest.agent.freeze_status() == "frozen":
        assert time.monotonic() - killed < LIMIT_SECONDS
        time.sleep(0.2)
    print(f"thawed {time.monotonic() - killed:.1f} s after the kill")
    fleet.settle(LIMIT_SECONDS)
    assert fleet.oracle.check(fleet.before) == []  # without any clean-up

    fleet.backup({"m00": Fault("ansible and module", "serve:checked")}, ok=False, **PATIENT)
    killed = time.monotonic()
    assert fleet.hit == ["m00"]
    fleet.settle(LIMIT_SECONDS)
    print(f"snapshot ended {time.monotonic() - killed:.1f} s after the kill")
    assert not backup_xml(guest.domain)
    assert guest.agent.freeze_status() == "thawed"
    assert fleet.oracle.check(fleet.before) == []  # the checkpoint, too: the node could ask the repository

    run = fleet.backup()
    assert fleet.oracle.next_backup(run, ["m00"], {"no_previous_backup"}) == []
    assert run.result("m00", "Snapshot all disks at one instant")["snapshot"]["consistency"] == "filesystem"
    assert fleet.oracle.check(fleet.before) == []
