# Copyright: (c) 2026, Sendense contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The product's own run of one machine, without Ansible: snapshot, export servers, mover, and if asked for the re-read.

The very code of the modules: the source opens the snapshot, a keeper starts servers, mover and checker from the stored agent.
"""

from __future__ import annotations

import json
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Dict, List, Optional, Tuple

from ansible_collections.sendense.platform.plugins.module_utils.agent.build import build_agent
from ansible_collections.sendense.platform.plugins.module_utils.agent.store import store_agent
from ansible_collections.sendense.platform.plugins.module_utils.datapath.exports import check_export
from ansible_collections.sendense.platform.plugins.module_utils.datapath.images import qcow2_node
from ansible_collections.sendense.platform.plugins.module_utils.hubstate.statedir import StateDir
from ansible_collections.sendense.platform.plugins.module_utils.jobs.exports import lease, serve
from ansible_collections.sendense.platform.plugins.module_utils.jobs.following import FollowedChild
from ansible_collections.sendense.platform.plugins.module_utils.jobs.place import HUB, JobPlace, begin, new_job_id, stop_writers
from ansible_collections.sendense.platform.plugins.module_utils.jobs.reading import start_readers
from ansible_collections.sendense.platform.plugins.module_utils.platforms import registry
from ansible_collections.sendense.platform.plugins.module_utils.platforms._base import (
    PreviousDisk,
    Snapshot,
    SnapshotPlan,
    SnapshotRequest,
    Source,
)
from ansible_collections.sendense.platform.plugins.module_utils.repositories.local_partial import sync
from tests.lab.guest import Guest

from .rows import BenchmarkError
from .stage import process_cpu

#: What a later incremental starts from, by disk id.
ChangeIds = Dict[str, str]
#: The image of each disk, and the one below it.
Images = Dict[str, Tuple[Path, Optional[Path]]]

OWNER = "0123abcd"
_TICKS = 100.0
_POLL_SECONDS = 0.02


@dataclass
class Outcome:
    """Seconds since the source was told to open the snapshot.

    ``flushed_s`` until the last target has flushed, ``verified_s`` until all was read back and compared (0: not asked for).
    """

    flushed_s: float
    verified_s: float
    cpu: Dict[str, float]
    change_ids: ChangeIds
    disks: Dict[str, Any]
    rss_mib: float = 0.0


@dataclass
class Product:
    """The product at one place that is hub and node. ``directory`` is short: sockets lie below it."""

    directory: Path
    uri: str
    params: Dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        content, digest = build_agent()
        path = store_agent(StateDir(str(self.directory / "s")).create(), content, digest)
        self.params = {"state_dir": str(self.directory / "s"), "agent_path": path, "node": "bench", "port_wait": 10.0}

    def backup(
        self,
        guest: Guest,
        images: Images,
        previous: Optional[ChangeIds] = None,
        committed: bool = False,
        verified: bool = False,
    ) -> Outcome:
        """Copy the machine into images ((image, its backing) by disk key); ``committed`` keeps the checkpoint for a next one."""
        place = begin(self.params, HUB, new_job_id(), {"machine_key": "bench", "kind": "backup"})
        run = _Run(place, guest, images, self.params)
        try:
            with registry.source("libvirt", {"uri": self.uri, "domain_type": "qemu"}) as source, place.beating():
                known = dict(previous or {})
                try:
                    outcome = run.measure(source, previous, verified)
                    known.update(outcome.change_ids if committed else {})
                finally:
                    source.close_snapshot(guest.uuid, place.job_id, OWNER, committed, list(known.values()))
                return outcome
        finally:
            place.finish()

    def snapshot(self, guest: Guest) -> "_Opened":
        """An open snapshot of the machine for somebody else to read; a context manager that says the URI of its first disk."""
        return _Opened(self, guest)


class _Opened:
    def __init__(self, product: Product, guest: Guest) -> None:
        self._guest = guest
        self._source = registry.source("libvirt", {"uri": product.uri, "domain_type": "qemu"})
        self._job_id = new_job_id()
        self._work = product.directory / "w"

    def __enter__(self) -> Snapshot:
        self._work.mkdir()
        self._source.connect()
        return self._source.open_snapshot(*planned(self._source, self._guest, self._job_id, str(self._work), None))

    def __exit__(self, *exc: object) -> None:
        self._source.close_snapshot(self._guest.uuid, self._job_id, OWNER, False, [])
        self._source.close()
        self._work.rmdir()


def planned(
    source: Source, guest: Guest, job_id: str, work_dir: str, previous: Optional[ChangeIds]
) -> Tuple[SnapshotRequest, SnapshotPlan]:
    """What the module decides before it touches anything. BenchmarkError if it is not what is to be measured."""
    known = None
    if previous is not None:
        known = [PreviousDisk(disk.id, disk.size_bytes, previous[disk.id]) for disk in source.machine(guest.uuid).disks]
    request = SnapshotRequest(guest.uuid, job_id, OWNER, previous=known, consistency="crash", work_dir=work_dir)
    plan = source.plan(request)
    wanted = "full" if previous is None else "incremental"
    if any(disk.level != wanted for disk in plan.disks):
        raise BenchmarkError(f"the plan is not {wanted}: {[(disk.key, disk.level, disk.reason) for disk in plan.disks]}")
    return request, plan


class _Run:
    """One run, with the clocks of its processes."""

    def __init__(self, place: JobPlace, guest: Guest, images: Images, params: Dict[str, Any]) -> None:
        self._place = place
        self._guest = guest
        self._images = images
        self._params = params
        self._rss_kib = 0

    def measure(self, source: Source, previous: Optional[ChangeIds], verified: bool) -> Outcome:
        qemu, keeper = self._guest.qemu_pid, int(self._place.client.ping()["pid"])
        before = process_cpu(qemu), process_cpu(keeper) + _reaped(keeper), time.process_time()
        orders = planned(source, self._guest, self._place.job_id, self._place.job.path, previous)
        began = time.time()
        snapshot = source.open_snapshot(*orders)
        status = self._copy(snapshot)
        flushed = float(status["updated_at"]) - began
        servers = sum(process_cpu(child["pid"]) for child in self._place.client.ping()["children"].values() if child["kind"] == "export")
        cpu = {"qemu": process_cpu(qemu) - before[0], "qemu-nbd": servers}
        stop_writers(self._place)
        cpu["mover and keeper"] = process_cpu(keeper) + _reaped(keeper) - before[1] - servers
        cpu["snapshot"] = time.process_time() - before[2]
        if verified:
            self._reread(snapshot, status)
        whole = time.time() - began if verified else 0.0
        changes = {disk.disk_id: disk.change_id for disk in snapshot.disks}
        return Outcome(flushed, whole, cpu, changes, status["disks"], self._rss_kib / 1024)

    def _copy(self, snapshot: Snapshot) -> Dict[str, Any]:
        """What vm_export, nbd_export and nbd_copy do."""
        for disk in snapshot.disks:
            check_export(disk.uri, disk.size_bytes)
        sizes = {disk.key: disk.size_bytes for disk in snapshot.disks}
        ports = lease(self._place, list(sizes), self._params)
        nodes = {key: _node(*self._images[key]) for key in sizes}
        exports = {export["key"]: export for export in serve(self._place, nodes, sizes, ports, self._params, writable=True)}
        child = FollowedChild(self._place.job, self._place.client, "copy", "mover")
        disks = [
            {
                "key": disk.key,
                "source_uri": disk.uri,
                "target_uri": exports[disk.key]["uri"],
                "level": disk.level,
                "changed_context": disk.changed_context,
                "changed_flag": disk.changed_flag,
                "size_bytes": disk.size_bytes,
                "hashes_path": self._hashes(disk.key),
                "audit_path": "",
            }
            for disk in snapshot.disks
        ]
        child.start(self._place.agent_path, {"disks": disks, "options": {}})
        return self._followed(child)

    def _hashes(self, key: str) -> str:
        return f"{self._place.job.path}/{key}.hashes"

    def _followed(self, child: FollowedChild) -> Dict[str, Any]:
        pid = int(child.client.child(child.name)["pid"])
        while not child.wait(_POLL_SECONDS):
            self._rss_kib = max(self._rss_kib, _peak_kib(pid))
        return child.outcome()

    def _reread(self, snapshot: Snapshot, status: Dict[str, Any]) -> None:
        """What ``backup: state=committed`` does before it publishes: make durable, read back past the cache, compare."""
        for image, _backing in self._images.values():
            sync(str(image.parent))
        sizes = {disk.key: disk.size_bytes for disk in snapshot.disks}
        uris = start_readers(self._place, {key: _node(*self._images[key]) for key in sizes}, sizes)
        disks = [
            {"key": key, "uri": uri, "size_bytes": sizes[key], "hashes": [self._hashes(key)], "mode": "held"} for key, uri in uris.items()
        ]
        digests = [{"key": key, "path": str(self._images[key][0]), "algorithm": "xxh3_128"} for key in uris]
        child = FollowedChild(self._place.job, self._place.client, "verify", "checker")
        child.start(self._place.agent_path, {"disks": disks, "options": {}, "digests": digests})
        checked = self._followed(child)["disks"]
        if not all(disk["ok"] for disk in checked.values()):
            raise BenchmarkError(f"the re-read found other blocks than were copied: {json.dumps(checked)[:500]}")


def _node(image: Path, backing: Optional[Path]) -> Dict[str, Any]:
    return qcow2_node(str(image), qcow2_node(str(backing)) if backing else None)


def _reaped(pid: int) -> float:
    """CPU seconds of the children of a process that have ended."""
    fields = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
    return (int(fields[13]) + int(fields[14])) / _TICKS


def _peak_kib(pid: int) -> int:
    try:
        lines: List[str] = Path(f"/proc/{pid}/status").read_text().splitlines()
    except (FileNotFoundError, ProcessLookupError):
        return 0
    return next((int(line.split()[1]) for line in lines if line.startswith("VmHWM:")), 0)
