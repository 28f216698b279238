# Copyright: (c) 2026, Sendense contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What the chosen depth gains over the fixed depth of 4, by the latency of the source, side by side in alternated pairs.

    python -m tests.benchmarks.latency [PAIRS]

The source is nbdkit with its delay filter, the target nbdkit into memory. A ratio is the rate of the chosen depth, measuring and priming
included, by that of depth 4: at 0 ms it should be 1, at 20 ms at least 2.
"""

from __future__ import annotations

import json
import statistics
import sys
import tempfile
import time
from contextlib import closing
from pathlib import Path
from typing import Any, Dict, List

from ansible_collections.sendense.platform.plugins.module_utils.datapath.mover import move
from ansible_collections.sendense.platform.plugins.module_utils.datapath.mover_plan import DiskJob, MoverOptions
from tests.integration.datapath.servers import MIB, Servers, raw_file

SIZE = 384 * MIB
PAIRS = 3
LATENCIES_MS = (0, 5, 20, 80)


def run(pairs: int = PAIRS) -> Dict[str, Any]:
    """The keys ``latency_<ms>ms_vs_depth_4``."""
    with tempfile.TemporaryDirectory(prefix="sendense-bench-", dir="/dev/shm") as directory, closing(Servers(Path(directory))) as servers:
        raw_file(Path(directory) / "source", SIZE, seed=1, share=1.0)
        target = servers.kit("target", "memory", str(SIZE))
        report: Dict[str, Any] = {}
        for latency in LATENCIES_MS:
            words = ["--filter=delay", "file", f"{directory}/source", f"rdelay={latency}ms"]
            source = servers.kit(f"source{latency}", "--readonly", *words)
            _once(source, target, 0)  # fills the target's memory
            report.update(_compare(source, target, latency, pairs))
        return report


def _compare(source: str, target: str, latency: int, pairs: int) -> Dict[str, Any]:
    ratios: List[float] = []
    for pair in range(pairs):
        order = (0, 4) if pair % 2 else (4, 0)
        found = {depth: _once(source, target, depth) for depth in order}
        ratios.append(found[4]["seconds"] / found[0]["seconds"])
        print(f"latency {latency} ms: {json.dumps(found)}", file=sys.stderr)
    return {f"latency_{latency}ms_vs_depth_4": round(statistics.median(ratios), 2)}


def _once(source: str, target: str, depth: int) -> Dict[str, Any]:
    begun = time.monotonic()
    result = move([DiskJob("disk0", source, target)], MoverOptions(depth=depth))
    seconds = time.monotonic() - begun
    if result.state != "done":
        raise SystemExit(f"bench: the copy failed: {result.error}")
    disk = result.disks["disk0"]
    return {
        "seconds": round(seconds, 3),
        "mib_per_s": round(SIZE / MIB / seconds),
        "depth": disk["depth"],
        "latency_ms": disk["latency_ms"],
    }


if __name__ == "__main__":
    print(json.dumps(run(int(sys.argv[1]) if len(sys.argv) > 1 else PAIRS), indent=2))
