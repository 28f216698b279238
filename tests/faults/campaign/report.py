# Copyright: (c) 2026, Sendense contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""``build/faults/report.json``: what every family has hit and found, written anew after each of them."""

from __future__ import annotations

import json
import os
import subprocess
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Dict

from tests.lab.paths import ROOT

from ._base import TOTALS, Outcome

REPORT = ROOT / "build" / "faults" / "report.json"
SCHEMA = 1


@dataclass
class Report:
    """Entries by family. The totals are sums over all entries, so a family that is run alone replaces only its own share."""

    path: Path = REPORT
    families: Dict[str, Dict[str, Any]] = field(default_factory=dict)

    @classmethod
    def load(cls, path: Path = REPORT) -> "Report":
        """What an earlier campaign wrote there; an empty report if there is none or it has another schema."""
        try:
            data = json.loads(path.read_text())
        except (FileNotFoundError, ValueError):
            return cls(path)
        return cls(path, data["families"] if data.get("schema") == SCHEMA else {})

    def put(self, name: str, outcome: Outcome, seed: int, required: int) -> None:
        """Add or replace the entry of a family and write the file."""
        self.families[name] = dict(asdict(outcome), seed=seed, required=required, faults=outcome.faults(required))
        self.write()

    def document(self) -> Dict[str, Any]:
        """The report as plain data."""
        entries = self.families.values()
        totals = {name: sum(entry[name] for entry in entries) for name in (*TOTALS, "attempted", "hit")}
        return {
            "schema": SCHEMA,
            "commit": _commit(),
            "ok": all(not entry["faults"] for entry in entries),
            "seconds": round(sum(entry["seconds"] for entry in entries), 1),
            **totals,
            "families": self.families,
        }

    def write(self) -> None:
        """Replace the file: a reader sees the old or the new report, never half of one."""
        self.path.parent.mkdir(parents=True, exist_ok=True)
        partial = self.path.with_suffix(f".{os.getpid()}")
        partial.write_text(json.dumps(self.document(), indent=2) + "\n")
        partial.replace(self.path)


def _commit() -> str:
    """The commit that was tested; with a plus if the tree differs from it, empty where this is no git checkout."""
    head = subprocess.run(["git", "-C", str(ROOT), "rev-parse", "HEAD"], capture_output=True, text=True, check=False)
    changed = subprocess.run(["git", "-C", str(ROOT), "status", "--porcelain", "-uno"], capture_output=True, text=True, check=False)
    return head.stdout.strip() + ("+" if changed.stdout.strip() else "")
