# Copyright: (c) 2026, Sendense contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""``python -m tests.benchmarks [NAME...]``: run the benchmarks, all of them without a name, and write their keys.

``build/bench/report.json`` keeps what other benchmarks found before. Nothing else should run on the machine meanwhile.
"""

from __future__ import annotations

import json
import sys
import time
from typing import Any, Callable, Dict, List

from tests.e2e.site import ROOT

from . import control_plane, data_path, latency, many, merge, tunnels

BENCHMARKS: Dict[str, Callable[[], Dict[str, Any]]] = {
    "data_path": data_path.run,
    "tunnels": tunnels.run,
    "latency": latency.run,
    "control_plane": control_plane.run,
    "many": many.run,
    "merge": merge.run,
}
REPORT = ROOT / "build" / "bench" / "report.json"


def main(names: List[str]) -> int:
    """Run them one after another; 2 for a name that there is not."""
    unknown = sorted(set(names) - set(BENCHMARKS))
    if unknown:
        sys.stderr.write(f"bench: there is no benchmark {', '.join(unknown)}; there are: {', '.join(BENCHMARKS)}\n")
        return 2
    REPORT.parent.mkdir(parents=True, exist_ok=True)
    report: Dict[str, Any] = json.loads(REPORT.read_text()) if REPORT.exists() else {}
    for name in names or list(BENCHMARKS):
        began = time.monotonic()
        report.update(BENCHMARKS[name]())
        report.setdefault("bench_seconds", {})[name] = round(time.monotonic() - began)
        sys.stderr.write(f"bench: {name} took {report['bench_seconds'][name]} s\n")
        REPORT.write_text(json.dumps(report, indent=2) + "\n")
    print(json.dumps(report, indent=2))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
