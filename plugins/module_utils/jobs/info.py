# Copyright: (c) 2026, Sendense contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Read-only answers: machines of a platform, points of a repository, exports and ports of a hub."""

from __future__ import annotations

from dataclasses import asdict
from functools import partial
from typing import Any, Dict, List

from ..catalog.audit import AUDITED
from ..datapath.export_table import ExportTable
from ..hubstate.ports import PortPool
from ..hubstate.statedir import StateDir
from ..model import Machine, device_names, inventory_name, machine_key
from ..platforms import registry as platforms
from ..platforms.bounded import DISCOVERY_SECONDS, within
from ..repositories import registry as repositories
from ..repositories._base import Point, PointFilter


def machines(params: Dict[str, Any]) -> Dict[str, Any]:
    """All machines of the platform, or one."""
    machine_id = params.get("machine_id")
    if machine_id:
        found = [Machine.from_dict(within(DISCOVERY_SECONDS, f"Asking for machine {machine_id}", partial(_machine, params)))]
    else:
        found = platforms.discover(params["platform"], params["connection"])
    names = [machine.name for machine in found]
    described = []
    for machine in found:
        name = inventory_name(machine.platform, machine.id, machine.name, names.count(machine.name) == 1)
        described.append(dict(machine.to_dict(), key=machine.key, inventory_name=name))
    return {"machines": described}


def _machine(params: Dict[str, Any]) -> Dict[str, Any]:
    with platforms.source(params["platform"], params["connection"]) as source:
        return source.machine(params["machine_id"]).to_dict()


def describe_point(point: Point) -> Dict[str, Any]:
    """One point as listed; the whole manifest is in the repository."""
    manifest = point.manifest
    fields = ("point_id", "machine_key", "level", "parent_id", "chain_depth", "created_at", "committed_at", "consistency", "verified")
    described = {name: getattr(manifest, name) for name in fields}
    described["machine_name"] = manifest.machine.get("name", "")
    described["size_bytes"] = sum(disk.size_bytes for disk in manifest.disks)
    described["stored_bytes"] = sum(disk.file_size for disk in manifest.disks)
    devices = device_names(manifest.machine, {disk.key: disk.id for disk in manifest.disks})
    described["disks"] = [dict(asdict(disk), device=devices[disk.key]) for disk in manifest.disks]
    described.update(status=point.status, damage=point.damage, immutable_until=point.immutable_until, distrusted=point.distrusted)
    described["audited"] = manifest.versions.get(AUDITED, "")
    return described


def points(params: Dict[str, Any]) -> Dict[str, Any]:
    """The points of a repository that pass the filter, oldest first."""
    repository = repositories.open_repository(params["repository"])
    key = params.get("machine_key") or ""
    if params.get("machine_id"):
        key = machine_key(params["platform"], params["machine_id"])
    wanted = PointFilter(
        machine_key=key,
        status=params.get("status") or "",
        level=params.get("level") or "",
        since=params.get("since") or "",
        until=params.get("until") or "",
    )
    return {"points": [describe_point(point) for point in repository.list(wanted)]}


def repository(params: Dict[str, Any]) -> Dict[str, Any]:
    """A repository: identity, capabilities, space, and with ``scan`` the catalogue rebuilt from its directories."""
    opened = repositories.open_repository(params["repository"])
    result: Dict[str, Any] = {
        "identity": opened.identity(),
        "capabilities": asdict(opened.capabilities()),
        "space": asdict(opened.space()),
        "machines": opened.machines(),
    }
    if params["scan"]:
        result["points"] = [describe_point(point) for point in opened.list()]
        result["partials"] = [asdict(begun) for key in result["machines"] for begun in opened.partials(key)]
    return {"repository": result}


def exports(params: Dict[str, Any]) -> Dict[str, Any]:
    """Export servers and leased ports of this hub, optionally of one job or one port."""
    state = StateDir(params["state_dir"])
    table, pool = ExportTable(state), PortPool(state)
    listed: List[Dict[str, Any]] = table.list()
    leased = pool.list()
    if params.get("job_id"):
        listed = [export for export in listed if export.get("job") == params["job_id"]]
        leased = pool.of_job(params["job_id"])
    if params.get("port"):
        listed = [export for export in listed if export.get("port") == params["port"]]
        leased = [lease for lease in leased if lease["port"] == params["port"]]
    return {
        "exports": listed,
        "count": len(listed),
        "active": bool(listed) and all(export.get("state") == "running" for export in listed),
        "metrics": table.metrics(),
        "ports": {"leases": leased, "metrics": pool.metrics()},
    }
