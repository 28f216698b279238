# Copyright: (c) 2026, Sendense contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Say in a few lines, and on request in a file, how the job of one machine ended."""

from __future__ import annotations

import json
import os
import time
from typing import Any, Callable, Dict, List, Optional, Tuple

from ansible.plugins.action import ActionBase
from ansible.utils.display import Display

from ansible_collections.sendense.platform.plugins.module_utils.model import device_names, with_devices
from ansible_collections.sendense.platform.plugins.plugin_utils.doctor_report import doctor_report
from ansible_collections.sendense.platform.plugins.plugin_utils.list_report import list_report
from ansible_collections.sendense.platform.plugins.plugin_utils.prune_report import prune_report
from ansible_collections.sendense.platform.plugins.plugin_utils.table import human_bytes, printable, table

display = Display()
Report = Dict[str, Any]


def backup_report(arguments: Dict[str, Any]) -> Report:
    """A backup, or in check mode the plan of one."""
    opened, snapped = arguments.get("opened") or {}, arguments.get("snapped") or {}
    copied, committed = arguments.get("copied") or {}, arguments.get("committed") or {}
    report: Report = {"repository": opened.get("repository", {}), "warnings": list((snapped.get("plan") or {}).get("warnings", []))}
    if not committed.get("point"):
        plan = snapped.get("plan") or {}
        rows = [dict(disk, to_read=_bound(disk)) for disk in plan.get("disks", [])]
        report.update(planned=True, disks=plan.get("disks", []), expected_bytes=plan.get("expected_bytes", 0))
        expected = human_bytes(report["expected_bytes"])
        report["lines"] = [f"would be backed up to {report['repository'].get('path', '')}, about {expected} to read in all"]
        report["lines"] += [*_disk_table(rows, ("level", "reason", "to_read")), *_warnings(report)]
        return report
    moved = {disk["key"]: disk for disk in copied.get("disks", [])}
    devices = device_names((snapped.get("snapshot") or {}).get("machine") or {}, {disk["key"]: disk["id"] for disk in committed["disks"]})
    rows = [_disk_row(disk, moved.get(disk["key"], {}), devices[disk["key"]]) for disk in committed["disks"]]
    point = committed["point"]
    audit = committed.get("audit") or {}
    report.update(planned=False, point=point, disks=rows, totals=copied.get("totals", {}), audit=audit)
    report["warnings"] += [f"the audit of change tracking was not completed: {message}" for message in audit.get("failed", [])]
    consistency = point["consistency"]
    why = f" ({consistency['reason']})" if consistency.get("reason") else ""
    how = f"{consistency['reached']}-consistent{why}, verified {point['verified']['method']}"
    report["lines"] = [f"backup {point['id']}, {point['level']}, {how}"]
    report["lines"] += _disk_table([_human(row) for row in rows], ("level", "reason", "read", "written", "zeroed", "rate", "stored"))
    if audit.get("blocks_checked"):
        how = f" (all, because of {audit['reason']})" if audit.get("in_full") else ""
        report["lines"].append(f"audit of change tracking: {audit['blocks_checked']} blocks that were not copied are as recorded{how}")
    report["lines"] += _warnings(report)
    return report


def _warnings(report: Report) -> List[str]:
    return [f"warning: {text}" for text in report["warnings"]]


def lie_event(lie: Dict[str, Any]) -> Dict[str, Any]:
    """The event of change tracking that was found to lie."""
    marked = lie.get("marked") or []
    doubt = f"marked as damaged: {', '.join(marked)}" if marked else "no earlier backup has them wrong"
    return {
        "event": "TRACKING_LIED",
        "msg": f"change tracking had not reported {lie['blocks']} audited blocks that changed; {doubt}. See "
        "docs/runbooks/change-tracking-lied.md",
        "details": lie,
    }


def _bound(disk: Dict[str, Any]) -> str:
    return ("" if disk.get("expected_exact") else "about ") + human_bytes(disk.get("expected_bytes"))


def _disk_table(rows: List[Dict[str, Any]], columns: Tuple[str, ...]) -> List[str]:
    return table(rows, ("key", *(("device",) if any(row.get("device") for row in rows) else ()), *columns))


def _disk_row(disk: Dict[str, Any], moved: Dict[str, Any], device: str) -> Dict[str, Any]:
    row: Dict[str, Any] = {"device": device}
    row.update((name, disk.get(name)) for name in ("key", "id", "level", "reason", "root", "file_size", "blocks_checked"))
    row.update({name: moved.get(name) for name in ("bytes_read", "bytes_written", "bytes_zeroed", "seconds", "rate")})
    return row


def _human(row: Dict[str, Any]) -> Dict[str, Any]:
    names = {"read": "bytes_read", "written": "bytes_written", "zeroed": "bytes_zeroed", "stored": "file_size"}
    human = {name: human_bytes(row.get(field)) for name, field in names.items()}
    return dict(row, **human, rate=f"{human_bytes(row.get('rate'))}/s")


def verify_report(arguments: Dict[str, Any]) -> Report:
    """A verification; damage fails the task once everything has been reported."""
    verified = arguments.get("verified") or {}
    rows = []
    for point in verified.get("points", []):
        blocks = sum(int(disk.get("blocks_checked") or 0) for disk in point.get("disks", []))
        result = "ok" if point["ok"] else "DAMAGED"
        rows.append({"point": point["point_id"], "result": result, "blocks": blocks, "why": point.get("damage", "")})
    report: Report = {"ok": verified.get("ok"), "points": verified.get("points", []), "marked": verified.get("marked", [])}
    report["lines"] = ["verification of backups", *table(rows, ("point", "result", "blocks", "why"))]
    if verified.get("ok") is False:
        damaged = [row["point"] for row in rows if row["result"] != "ok"]
        report["failure"] = {
            "msg": f"Backups are damaged: {', '.join(damaged)}. They are marked and the next backup will be full. "
            "Restore from a sound backup; docs/runbooks/damaged-point.md says what else to do.",
            "error_code": "POINT_DAMAGED",
            "details": {"points": damaged},
            "retryable": False,
        }
    return report


def restore_report(arguments: Dict[str, Any]) -> Report:
    """A restore to a machine or to files, or in check mode the plan of one."""
    served, copied, restored = (arguments.get(name) or {} for name in ("served", "copied", "restored"))
    manifest = served.get("manifest") or {}
    report: Report = {"point_id": manifest.get("point_id", ""), "machine_id": restored.get("machine_id") or restored.get("existing_id")}
    report.update(paths=restored.get("paths", {}), disks=_named_disks(copied, manifest), totals=copied.get("totals", {}))
    rows = [_human(disk) for disk in report["disks"]]
    done = "restored" if rows else ("already restored" if report["machine_id"] else "would be restored")
    report["destination"] = str(arguments.get("destination") or "")
    where = f" to {report['destination']}" if report["destination"] else ""
    report["lines"] = [f"backup {report['point_id']} {done}{where}", *(_disk_table(rows, ("read", "written", "rate")) if rows else [])]
    return report


def _named_disks(copied: Dict[str, Any], manifest: Dict[str, Any]) -> List[Dict[str, Any]]:
    names = device_names(manifest.get("machine") or {}, {disk["key"]: disk["id"] for disk in manifest.get("disks", [])})
    return [dict(disk, device=names.get(disk["key"], "")) for disk in copied.get("disks", [])]


def failure_report(arguments: Dict[str, Any]) -> Report:
    """A job that failed, in the one error shape; Ansible itself shows it as the result of the task."""
    failure = arguments["failure"]
    snapshot, manifest = ((arguments.get(one) or {}).get(part) or {} for one, part in (("snapped", "snapshot"), ("served", "manifest")))
    source = snapshot or manifest
    names = device_names(source.get("machine") or {}, {disk["key"]: disk.get("disk_id") or disk["id"] for disk in source.get("disks", [])})
    message = with_devices(str(failure.get("msg") or "The task failed without a message; run it again with -vv."), names)
    kept = bool((arguments.get("aborted") or {}).get("committed"))
    error = {
        "msg": f"{message} The backup itself had been published before that: it is verified and kept." if kept else message,
        "error_code": failure.get("error_code") or "INTERNAL_ERROR",
        "details": failure.get("details") or {},
        "retryable": bool(failure.get("retryable", False)),
    }
    return {"failure": error, "lines": [], **({"committed": True} if kept else {})}


def brief(report: Report) -> Report:
    """What a failed task shows below its message: Ansible prints its whole result, and the lists were shown as tables already."""
    return {name: value for name, value in report.items() if name == "events" or not isinstance(value, (dict, list))}


REPORTS: Dict[str, Callable[[Dict[str, Any]], Report]] = {
    "backup": backup_report,
    "verify": verify_report,
    "restore": restore_report,
    "doctor": doctor_report,
    "prune": prune_report,
    "list": list_report,
}


class ActionModule(ActionBase):
    """Runs on the controller alone."""

    _requires_connection = False
    _supports_check_mode = True

    def run(self, tmp: Optional[str] = None, task_vars: Optional[Dict[str, Any]] = None) -> Dict[str, Any]:
        """Show and store the report; a failed job fails this task with the job's own error."""
        result = super().run(tmp, task_vars)
        del tmp
        arguments = dict(self._task.args, check_mode=bool(self._task.check_mode))
        machine = str((task_vars or {}).get("inventory_hostname", ""))
        report = failure_report(arguments) if arguments.get("failure") else REPORTS[arguments["job"]](arguments)
        report.update(job=arguments["job"], machine=machine, reported_at=time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()))
        lines: List[str] = report.pop("lines")
        if arguments.get("lie"):
            report["events"] = [lie_event(arguments["lie"])]
            lines.append(f"WARNING TRACKING_LIED: {report['events'][0]['msg']}")
            display.warning(printable(f"{machine}: {report['events'][0]['msg']}"))
        if lines:
            display.display("\n".join(f"{machine}: {printable(line)}" for line in lines))  # at once: other machines report, too
        folder = str(arguments.get("report_dir") or "")
        if folder:
            report["file"] = _store(folder, f"{arguments['job']}-{machine}.json", report)
        result.update(changed=False, report=report)
        if "failure" in report:
            result.update(report["failure"], failed=True, report=report if display.verbosity else brief(report))
        return result


def _store(folder: str, name: str, report: Report) -> str:
    os.makedirs(folder, exist_ok=True)
    path = os.path.join(folder, os.path.basename(name))
    with open(path, "w", encoding="utf-8") as stream:
        json.dump(report, stream, indent=2, sort_keys=True)
    return path
