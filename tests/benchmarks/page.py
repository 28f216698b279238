# Copyright: (c) 2026, Sendense contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""``python -m tests.benchmarks.page``: write the numbers of ``build/bench/report.json`` into ``docs/reference/performance.md``.

Only what lies between the two marks of the page is replaced.
"""

from __future__ import annotations

import json
import statistics
import sys
from typing import Any, Dict, List

from tests.e2e.site import ROOT

from .__main__ import REPORT
from .rows import BenchmarkError

PAGE = ROOT / "docs" / "reference" / "performance.md"
BEGIN, END = "<!-- numbers: begin -->\n", "<!-- numbers: end -->\n"

#: Key of the report: what is wanted of it, and what it says.
KEYS = {
    "full_vs_nbdcopy": ("at least 1.2", "a full, by the time of nbdcopy into a default qemu-nbd"),
    "full_vs_virtnbdbackup": ("at least 5", "a full, by the time of virtnbdbackup"),
    "incremental_vs_virtnbdbackup": ("at least 2", "an incremental of 5 % scattered changes, by the time of virtnbdbackup"),
    "full_vs_limit": ("at least 0.45", "a full, by the time of receiving alone"),
    "limit_vs_virtnbdbackup": ("", "receiving alone, by the time of virtnbdbackup: what no reader of this export can exceed"),
    "committed_vs_nbdcopy": ("stated", "a full that was flushed, read back and compared, by the time of nbdcopy"),
    "full_cpu_s_per_gib": ("below the next", "CPU seconds of all processes per GiB of data: a full"),
    "nbdcopy_cpu_s_per_gib": ("", "the same: nbdcopy"),
    "mover_rss_mib": ("at most 120", "memory of a mover of 8 disks, MiB"),
    "tunnel_vs_plain": ("stated", "rate of a copy through the tunnel, by that of plain TCP"),
    "unchanged_wall_s": ("at most 10", "an unchanged machine, whole playbook, seconds"),
    "unchanged_cpu_s": ("at most 5", "the same, CPU seconds"),
    "batch_cpu_s_per_vm": ("at most 2", "unchanged machines in one play, CPU seconds each"),
}


def text(report: Dict[str, Any]) -> str:
    """The part of the page that follows from a report. BenchmarkError if a key is missing."""
    missing = [name for name in [*KEYS, "data_path_rows", "data_path_versions"] if name not in report]
    if missing:
        raise BenchmarkError(f"the report has no {', '.join(missing)}: run make bench first")
    versions = ", ".join(f"{name} {version}" for name, version in report["data_path_versions"].items())
    lines = [f"Measured with: {versions}.", "", "| key | value | wanted | what |", "|---|---|---|---|"]
    lines += [f"| `{name}` | {report[name]:g} | {wanted} | {what} |" for name, (wanted, what) in KEYS.items()]
    gib = report["data_path_gib"]
    lines += ["", f"Medians at each place, {gib:g} GiB of data:", "", "| place | run | seconds (least-most) | GiB/s | CPU s/GiB |"]
    lines += ["|---|---|---|---|---|", *_rows(report["data_path_rows"], gib)]
    return "\n".join(lines) + "\n"


def _rows(rows: List[Dict[str, Any]], gib: float) -> List[str]:
    found: Dict[Any, List[Dict[str, Any]]] = {}
    for row in rows:
        found.setdefault((row["place"], row["name"]), []).append(row)
    lines = []
    for (place, name), group in found.items():
        walls = [row["wall_s"] for row in group]
        wall = statistics.median(walls)
        used = {who: statistics.median(row["cpu"][who] for row in group) / gib for who in group[0]["cpu"]}
        cpu = f"{sum(used.values()):.2f} ({', '.join(f'{who} {seconds:.2f}' for who, seconds in used.items())})" if used else ""
        rate = "" if "incremental" in name else f"{gib / wall:.2f}"
        lines.append(f"| {place} | {name} | {wall:.2f} ({min(walls):.2f}-{max(walls):.2f}) | {rate} | {'' if not rate else cpu} |")
    return lines


def replaced(page: str, numbers: str) -> str:
    """The page with other numbers. BenchmarkError if its marks are gone."""
    before, begin, rest = page.partition(BEGIN)
    _old, end, after = rest.partition(END)
    if not begin or not end:
        raise BenchmarkError(f"{PAGE.name} has lost its marks {BEGIN.strip()} and {END.strip()}")
    return before + BEGIN + numbers + END + after


def main() -> int:
    """Rewrite the page."""
    if not REPORT.exists():
        raise BenchmarkError(f"there is no {REPORT.name}: run make bench first")
    PAGE.write_text(replaced(PAGE.read_text(), text(json.loads(REPORT.read_text()))))
    return 0


if __name__ == "__main__":
    sys.exit(main())
