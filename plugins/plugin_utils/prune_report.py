# Copyright: (c) 2026, Sendense contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a prune says to people: what went and why, what stays, what is left for another day."""

from __future__ import annotations

from typing import Any, Dict, List

from ansible_collections.sendense.platform.plugins.module_utils.errors import PointDamagedError
from ansible_collections.sendense.platform.plugins.plugin_utils.table import human_bytes, table

KINDS = ("deleted", "merged", "left")


def prune_report(arguments: Dict[str, Any]) -> Dict[str, Any]:
    """A prune, or in check mode the plan of one; damage that a merge has found fails the task once everything has been reported."""
    pruned = arguments.get("pruned") or {}
    names = ("kept", *KINDS, "damaged", "bytes_freed", "synthetic_full", "refused")
    report: Dict[str, Any] = {name: pruned.get(name) or ([] if name in ("kept", *KINDS, "damaged") else "") for name in names}
    report["bytes_freed"] = int(pruned.get("bytes_freed") or 0)
    planned = bool(arguments.get("check_mode"))
    report["lines"] = [_summary(report, planned), *_rows(report)]
    if report["synthetic_full"]:
        report["lines"].append(f"backup {report['synthetic_full']} {'would be ' if planned else ''}written anew as a full one")
    if report["refused"]:
        report["lines"].append(f"warning: the run itself would be refused: {report['refused']}")
    if report["damaged"]:
        report["failure"] = PointDamagedError(
            f"Backups are damaged, as a merge found: {', '.join(report['damaged'])}. They are marked and the next backup will be full. "
            "Restore from a sound backup; docs/runbooks/damaged-point.md says what else to do.",
            details={"points": report["damaged"]},
        ).as_result()
    return report


def _summary(report: Dict[str, Any], planned: bool) -> str:
    would = "would be " if planned else ""
    counts = ", ".join(f"{len(report[kind])} {kind}" for kind in KINDS if report[kind])
    freed = f", {human_bytes(report['bytes_freed'])} freed" if report["bytes_freed"] else ""
    backups = "backup" if len(report["kept"]) == 1 else "backups"
    return f"{len(report['kept'])} {backups} {would}kept{', ' if counts else ''}{counts}{freed}"


def _rows(report: Dict[str, Any]) -> List[str]:
    rows = [
        {"backup": row["point_id"], "level": row["level"], "what": _what(kind, row), "why": "; ".join(row["reasons"])}
        for kind in KINDS
        for row in report[kind]
    ]
    return table(rows, ("backup", "level", "what", "why")) if rows else []


def _what(kind: str, row: Dict[str, Any]) -> str:
    return f"merged into {row['into']}" if kind == "merged" and row.get("into") else kind
