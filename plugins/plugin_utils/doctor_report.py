# Copyright: (c) 2026, Sendense contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What the doctor says to people: one table, then what each kind means and what mending does."""

from __future__ import annotations

from typing import Any, Dict, List, Tuple

from ansible_collections.sendense.platform.plugins.module_utils.errors import FindingsRemainError
from ansible_collections.sendense.platform.plugins.plugin_utils.table import table

SEVERITIES = ("error", "warning", "hint")
RUNBOOK = "docs/runbooks/doctor-findings.md"


def doctor_report(arguments: Dict[str, Any]) -> Dict[str, Any]:
    """The findings of one machine; with ``rest`` also those of no machine of the play. Errors that are left fail the task."""
    found = _chosen(arguments)
    left = [one for one in found if not one["mended"]]
    counts = {severity: sum(one["severity"] == severity for one in left) for severity in SEVERITIES}
    report: Dict[str, Any] = {"findings": found, "counts": counts, "ok": not counts["error"]}
    report["lines"] = [_summary(found, counts), *_lines(found, arguments.get("machine_id") or "")]
    if counts["error"]:
        objects = [f"{one['kind']} {one['object']}" for one in left if one["severity"] == "error"]
        error = FindingsRemainError(
            f"Errors are left: {'; '.join(objects[:5])}{' ...' if len(objects) > 5 else ''}. See {RUNBOOK}.",
            details={"counts": counts},
        )
        report["failure"] = error.as_result()
    return report


def _chosen(arguments: Dict[str, Any]) -> List[Dict[str, Any]]:
    """Of all answers, in the order of severity, which they already have one by one; where hub and node share a place, once."""
    examined = arguments.get("examined") or []
    machine_id, others = arguments.get("machine_id") or "", set(arguments.get("machine_ids") or [])
    rest = arguments.get("rest", False)
    chosen: Dict[Tuple[str, ...], Dict[str, Any]] = {}
    for at, answer in enumerate(examined):
        for one in answer.get("findings", []):
            if (machine_id and one["machine_id"] == machine_id) or (rest and one["machine_id"] not in others):
                same = (answer.get("place") or str(at), *(one[name] for name in ("kind", "machine_id", "machine_key", "object", "found")))
                would = f"{one['kind']} {one['object']}" in answer.get("would_mend", [])
                # Whoever looked later knows more.
                chosen[same] = {**one, "where": chosen.get(same, one)["where"], "would_mend": would}
    return sorted(chosen.values(), key=lambda one: SEVERITIES.index(one["severity"]))


def _summary(found: List[Dict[str, Any]], counts: Dict[str, int]) -> str:
    if not found:
        return "the doctor found nothing wrong"
    mended = sum(one["mended"] for one in found)
    left = ", ".join(f"{count} {severity}{'' if count == 1 else 's'}" for severity, count in counts.items())
    return f"the doctor mended {mended} and leaves {left}" if mended else f"the doctor found {left}"


def _lines(found: List[Dict[str, Any]], machine_id: str) -> List[str]:
    if not found:
        return []
    rows = [{**one, "at": one["where"], "state": _state(one), "why": one["found"], "of": one["machine_key"]} for one in found]
    others = any(one["machine_key"] and one["machine_id"] != machine_id for one in found)
    lines = table(rows, ("severity", "kind", "at", *(("of",) if others else ()), "object", "state", "why"))
    kinds = {one["kind"]: one for one in found}
    for name, one in kinds.items():
        mending = f" Mending: {one['mending']}" if one["mending"] else " The doctor cannot mend it."
        lines.append(f"{name}: {one['meaning']}{mending} ({RUNBOOK}#{name})")
    if any(_state(one) == "mendable" for one in found):
        lines.append("To mend: -e doctor_machine_mend=true, or a list of kinds; with --check it says what it would do.")
    return lines


def _state(one: Dict[str, Any]) -> str:
    if one["mended"]:
        return "mended"
    if one["would_mend"]:
        return "would be mended"
    if one["why_not"]:
        return f"not mended: {one['why_not']}"
    return "mendable" if one["mendable"] else "left"
