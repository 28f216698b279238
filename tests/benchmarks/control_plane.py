# Copyright: (c) 2026, Sendense contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a backup costs when there is nothing to copy: Ansible, modules, keepers, servers and re-reads of unchanged machines.

    python -m tests.benchmarks.control_plane [MACHINES [FORKS...]]

prints ``unchanged_wall_s`` and ``unchanged_cpu_s`` (one machine, the whole playbook) and ``batch_cpu_s_per_vm``
(MACHINES in one play, and once more with each number of FORKS). libvirtd and qemu are the platform's and not counted.
"""

from __future__ import annotations

import json
import shutil
import statistics
import sys
import tempfile
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Dict, Iterator, List, Sequence

from tests.e2e.site import ROOT, Site
from tests.lab.disks import MIB, DiskSpec
from tests.lab.guest import Guest
from tests.lab.host import LibvirtHost

from .accounting import Cost, measure
from .footprint import Footprint

#: Machines of the batch.
MACHINES = 50
#: Machines at work at the same time.
FORKS = 10
#: Runs of the single machine; the median counts.
RUNS = 3


def disks() -> List[DiskSpec]:
    """Two disks, as most machines have."""
    return [DiskSpec("vda", 8 * MIB), DiskSpec("vdb", 8 * MIB)]


@contextmanager
def machines(count: int) -> Iterator[Site]:
    """A site with this many suspended machines, ``m00`` and so on; nothing of it is left afterwards."""
    directory = Path(tempfile.mkdtemp(prefix="sb-"))
    host = LibvirtHost("bench", directory)
    try:
        host.start()
        for number in range(count):
            guest = Guest.create(host, f"m{number:02d}", disks(), memory_mib=32, agent=False).start(paused=True)
            guest.write("vda", 1 + number % 255, 0, MIB)
        site = Site(directory / "s", [host.uri])
        site.initialise()
        yield site
    finally:
        host.stop()
        shutil.rmtree(directory)


def backup(site: Site, limit: str, forks: int = FORKS) -> Cost:
    """One run of the backup playbook. AssertionError with its output if it fails or backs up nothing."""
    log, reports = site.directory / "run.log", site.directory / "reports"
    environ = dict(site.environ(), ANSIBLE_STDOUT_CALLBACK="ansible.builtin.default", ANSIBLE_FORKS=str(forks))
    argv = site.argv("backup", limit, {"backup_vm_report_dir": str(reports)})
    cost = measure(argv, cwd=str(ROOT), env=environ, log=str(log))
    assert cost.returncode == 0, log.read_text(errors="replace")
    written = [json.loads(path.read_text()) for path in reports.iterdir()]
    assert written and all(report.get("point") for report in written), written
    shutil.rmtree(reports)
    return cost


def run(count: int = MACHINES, others: Sequence[int] = ()) -> Dict[str, Any]:
    """The keys of this benchmark; ``others``: numbers of forks with which the batch runs once more."""
    with machines(count) as site:
        backup(site, "sendense_machines")  # the fulls
        single = [backup(site, "m00") for _number in range(RUNS)]
        with Footprint(site) as memory:
            batch = backup(site, "sendense_machines")
        repeated = {f"batch_forks_{forks}": _repeated(site, count, forks) for forks in others}
    return {
        **repeated,
        "unchanged_wall_s": round(statistics.median(cost.wall_s for cost in single), 2),
        "unchanged_cpu_s": round(statistics.median(cost.cpu_s for cost in single), 2),
        "unchanged_keepers_cpu_s": round(statistics.median(cost.detached_cpu_s for cost in single), 2),
        "batch_machines": count,
        "batch_wall_s": round(batch.wall_s, 2),
        "batch_cpu_s_per_vm": round(batch.cpu_s / count, 3),
        "batch_keepers_cpu_s_per_vm": round(batch.detached_cpu_s / count, 3),
        "batch_forks": FORKS,
        "batch_memory_mib": memory.peak_mib,
    }


def _repeated(site: Site, count: int, forks: int) -> Dict[str, float]:
    with Footprint(site) as memory:
        cost = backup(site, "sendense_machines", forks)
    return {"wall_s": round(cost.wall_s, 2), "cpu_s_per_vm": round(cost.cpu_s / count, 3), "memory_mib": memory.peak_mib}


def main(argv: List[str]) -> int:
    """Print the keys as JSON."""
    numbers = [int(word) for word in argv] or [MACHINES]
    print(json.dumps(run(numbers[0], numbers[1:]), indent=2))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
