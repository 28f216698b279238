# Copyright: (c) 2026, Sendense contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Change tracking that is missing, broken or somebody else's."""

from __future__ import annotations

import json
import time
from typing import Any, Dict

import libvirt_qemu

from .fleet import Fleet
from .oracle import backup_xml, block_nodes

FOREIGN = "nightly-of-another-product"


def test_a_missing_bitmap_makes_a_full_backup_without_help(fleet: Fleet) -> None:
    fleet.add("m00").backup()
    fleet.scribble()
    fleet.remember()
    domain = fleet.guests["m00"].domain
    for node in block_nodes(domain):
        for bitmap in node.get("dirty-bitmaps", []):
            _monitor(domain, "block-dirty-bitmap-remove", node=node["node-name"], name=bitmap["name"])
    run = fleet.backup()
    disks = run.result("m00", "Snapshot all disks at one instant")["disks"]
    assert (disks[0]["level"], disks[0]["reason"]) in (("full", "tracking_missing"), ("full", "tracking_inconsistent"))
    assert fleet.oracle.check(fleet.before) == []
    fleet.scribble()
    assert fleet.oracle.next_backup(fleet.backup(), ["m00"], set()) == []


def test_a_foreign_checkpoint_and_a_foreign_job_are_never_touched(fleet: Fleet) -> None:
    fleet.add("m00").backup()
    domain = fleet.guests["m00"].domain
    xml = f"<domaincheckpoint><name>{FOREIGN}</name><disks><disk name='vda' checkpoint='bitmap'/></disks></domaincheckpoint>"
    domain.checkpointCreateXML(xml, 0)
    fleet.scribble()
    assert fleet.oracle.next_backup(fleet.backup(), ["m00"], set()) == []

    socket = f"<server transport='unix' socket='{fleet.directory}/foreign'/>"
    scratch = f"<scratch file='{fleet.directory}/scratch'/>"
    disks = f"<disk name='vda' backup='yes' type='file'>{scratch}</disk><disk name='vdb' backup='no'/>"
    domain.backupBegin(f"<domainbackup mode='pull'>{socket}<disks>{disks}</disks></domainbackup>", None, 0)
    job = backup_xml(domain)
    fleet.remember()
    run = fleet.backup(ok=False)
    assert run.error("m00")["error_code"] == "FOREIGN_JOB"
    fleet.site.play("cleanup", "m00")
    assert backup_xml(domain) == job
    assert [text for text in fleet.oracle.check(fleet.before) if "a backup job runs" not in text and "bitmap backup-" not in text] == []

    domain.abortJob()
    deadline = time.monotonic() + 10
    while backup_xml(domain) and time.monotonic() < deadline:
        time.sleep(0.02)
    assert fleet.oracle.next_backup(fleet.backup(), ["m00"], set()) == []
    fleet.site.play("cleanup", "m00")
    assert FOREIGN in [checkpoint.getName() for checkpoint in domain.listAllCheckpoints()]
    assert fleet.oracle.check(fleet.before) == []


def _monitor(domain: Any, command: str, **arguments: Any) -> Dict[str, Any]:
    question = json.dumps({"execute": command, "arguments": arguments})
    answer = json.loads(libvirt_qemu.qemuMonitorCommand(domain, question, 0))
    assert "error" not in answer, answer
    return dict(answer)
