# Copyright: (c) 2026, Sendense contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""101 disks of three machines at once, one for every port of a hub: the memory of all servers and movers, and the time.

    python -m tests.benchmarks.many [MIB OF RANDOM DATA PER DISK]

The first backup is held at three steps to look at its processes, the second one runs without a look. A key with ``idle`` is of
servers that wait, with ``writers`` of those that have stored everything, with ``readers`` of those that have read it back.
"""

from __future__ import annotations

import json
import shutil
import sys
import tempfile
from pathlib import Path
from typing import Any, Dict, List

from tests.e2e.crowd import DISKS, Crowd, Held, Memory, crowd, leased, memory_of, servers
from tests.e2e.site import ROOT
from tests.lab.disks import MIB
from tests.lab.host import LibvirtHost

from .accounting import Cost, measure

#: Random data of each disk of 64 MiB, as in the reference measurements.
DATA_MIB = 45
_SERVING, _COPIED, _REREADING = "export:checked", "copy:started", "commit:reread-started"


def run(data_mib: int = DATA_MIB) -> Dict[str, Any]:
    """The keys of this benchmark."""
    directory = Path(tempfile.mkdtemp(prefix="sb-"))
    host = LibvirtHost("many", directory)
    try:
        host.start()
        with crowd(directory, host, data_mib * MIB) as found:
            keys = _look(found)
            cost = _backup(found)
    finally:
        host.stop()
        shutil.rmtree(directory)
    moved_gib = sum(DISKS.values()) * data_mib / 1024
    keys.update(many_moved_gib=round(moved_gib, 2), many_wall_s=round(cost.wall_s, 2), many_cpu_s=round(cost.cpu_s, 2))
    return keys


def _look(found: Crowd) -> Dict[str, Any]:
    """What the processes of a backup hold, all machines being at the same step."""
    with Held(found, _SERVING) as held:
        stopped = held.await_all(_SERVING)
        ports = leased(found.site)
        idle = memory_of(servers(found.site))
        held.let_on(stopped, until=_COPIED)
        stopped = held.await_all(_COPIED)
        held.await_done(found.site.node_state, "copy")
        writers = memory_of(servers(found.site))
        held.let_on(stopped, until=_REREADING)
        stopped = held.await_all(_REREADING)
        held.await_done(found.site.hub_state, "verify")
        readers = memory_of(servers(found.site))
        held.let_on(stopped)
        found.points(held.started.wait())
        movers = [size / MIB for size in held.movers.values()]
    keys = {"many_machines": len(DISKS), "many_disks": sum(DISKS.values()), "many_ports": ports}
    keys.update(_sizes("idle", idle), **_sizes("writers", writers), **_sizes("readers", readers))
    return dict(keys, many_mover_rss_mib=round(max(movers), 1), many_movers_rss_mib=round(sum(movers), 1))


def _sizes(name: str, memory: Memory) -> Dict[str, float]:
    return {f"many_{name}_pss_mib": memory.total_mib, f"many_{name}_largest_pss_mib": memory.largest_mib}


def _backup(found: Crowd) -> Cost:
    log = found.site.directory / "run.log"
    environ = dict(found.site.environ(), ANSIBLE_STDOUT_CALLBACK="ansible.builtin.default")
    cost = measure(found.site.argv("backup", found.limit, {"backup_vm_full": True}), cwd=str(ROOT), env=environ, log=str(log))
    assert cost.returncode == 0, log.read_text(errors="replace")
    return cost


def main(argv: List[str]) -> int:
    """Print the keys as JSON."""
    print(json.dumps(run(int(argv[0]) if argv else DATA_MIB), indent=2))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
