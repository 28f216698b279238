# Copyright: (c) 2026, Sendense contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A list of backups for people: one table per machine, oldest first, with what is needed to choose one."""

from __future__ import annotations

from typing import Any, Dict, List

from ansible_collections.sendense.platform.plugins.plugin_utils.table import human_bytes, table

COLUMNS = ("backup", "created", "level", "status", "disks", "stored", "verified", "immutable_until", "why")


def list_report(arguments: Dict[str, Any]) -> Dict[str, Any]:
    """What backup_info found, grouped by machine."""
    points: List[Dict[str, Any]] = (arguments.get("listed") or {}).get("points") or []
    grouped: Dict[str, List[Dict[str, Any]]] = {}
    for point in points:
        grouped.setdefault(point["machine_key"], []).append(point)
    report: Dict[str, Any] = {"points": points, "machines": [_machine(key, found) for key, found in grouped.items()]}
    report["lines"] = [] if points else ["there are no such backups"]
    for machine in report["machines"]:
        report["lines"] += [_heading(machine), *table([_row(point) for point in grouped[machine["machine_key"]]], COLUMNS)]
    return report


def _machine(key: str, points: List[Dict[str, Any]]) -> Dict[str, Any]:
    """A machine may have been renamed, and a manifest that cannot be read names none: the newest name counts."""
    names = [point["machine_name"] for point in points if point["machine_name"]]
    stored = sum(point["stored_bytes"] for point in points)
    return {"machine_key": key, "machine_name": names[-1] if names else "", "backups": len(points), "stored_bytes": stored}


def _heading(machine: Dict[str, Any]) -> str:
    backups = "1 backup" if machine["backups"] == 1 else f"{machine['backups']} backups"
    stored = human_bytes(machine["stored_bytes"])
    return f"machine {machine['machine_name'] or '?'}, key {machine['machine_key']}: {backups}, {stored} stored"


def _row(point: Dict[str, Any]) -> Dict[str, Any]:
    distrusted = f"no incremental is built on it: {point['distrusted']}" if point.get("distrusted") else ""
    return {
        "backup": point["point_id"],
        "created": point["created_at"],
        "level": point["level"],
        "status": point["status"],
        "disks": len(point["disks"]),
        "stored": human_bytes(point["stored_bytes"]),
        "verified": point["verified"].get("method", ""),
        "immutable_until": point["immutable_until"],
        "why": point["damage"] or distrusted,
    }
