# Copyright: (c) 2026, Sendense contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A mover of many disks, or of a very large one, stays small: libnbd's binding keeps every buffer that it was ever given."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path

from ansible_collections.sendense.platform.plugins.module_utils.datapath.nbd_handle import NbdConnection
from ansible_collections.sendense.platform.plugins.module_utils.datapath.slots import SlotPool
from ansible_collections.sendense.platform.plugins.module_utils.datapath.targets import parse_uri
from tests.integration.datapath.servers import BLOCK, MIB, raw_file
from tests.integration.datapath.test_cli import command


def mib(status, field):
    """A field of a process's status."""
    return next(int(line.split()[1]) for line in status.splitlines() if line.startswith(field)) // 1024


def resident_mib():
    return mib(Path("/proc/self/status").read_text(encoding="ascii"), "VmRSS:")


def test_large_reads_give_their_memory_back(tmp_path, servers):
    raw_file(tmp_path / "source", 16 * MIB, seed=1, share=1.0)
    connection = NbdConnection.open(parse_uri(servers.kit("source", "file", str(tmp_path / "source"))))
    try:
        connection.read_discard(0, 16 * MIB)
        before = resident_mib()
        for _one in range(10):
            assert connection.read_discard(0, 16 * MIB) == 0
        assert resident_mib() - before < 16
    finally:
        connection.close()


def test_the_parts_of_a_slot_are_made_once():
    slot = SlotPool(1, MIB).take()
    assert slot.buffer(MIB) is slot.buffer(MIB)
    assert slot.buffer(BLOCK, BLOCK) is slot.buffer(BLOCK, BLOCK)
    assert slot.buffer(BLOCK, BLOCK) is not slot.buffer(BLOCK, 2 * BLOCK)


def test_a_mover_of_eight_disks_needs_little_memory(tmp_path, servers):
    """All of them are measured, primed and copied at once, over lines with latency."""
    raw_file(tmp_path / "source", 64 * MIB, seed=1, share=1.0)
    source = servers.kit("source", "-r", "--filter=delay", "file", str(tmp_path / "source"), "rdelay=10ms")
    disks = []
    for number in range(8):
        target = servers.kit(f"t{number}", "null", str(64 * MIB))
        disks.append({"key": f"disk{number}", "source_uri": source, "target_uri": target, "hashes_path": str(tmp_path / f"h{number}")})
    (tmp_path / "plan").write_text(json.dumps({"disks": disks, "options": {}}))
    environment = {**os.environ, "PYTHONPATH": "collections"}
    code = "import atexit, sys; atexit.register(lambda: sys.stderr.write(open('/proc/self/status').read()));"
    words = command("mover", "--plan", tmp_path / "plan")
    words[2] = code + words[2]
    done = subprocess.run(words, capture_output=True, text=True, env=environment, timeout=120)
    assert done.returncode == 0, done.stdout + done.stderr
    assert mib(done.stderr, "VmHWM:") <= 120
