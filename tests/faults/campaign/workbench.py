# Copyright: (c) 2026, Sendense contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""One machine, one repository, and the product's own job handlers between them, called as the playbooks' tasks call them.

Below the playbooks, so that hundreds of faults of the storage fit into minutes; keeper, export servers, mover and checker
are the real processes. The machine is two qcow2 images with real dirty bitmaps, served by qemu-nbd.
"""

from __future__ import annotations

import random
import shutil
import tempfile
import time
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Callable, Dict, List, Optional, Tuple

from ansible_collections.sendense.platform.plugins.module_utils.agent.build import build_agent
from ansible_collections.sendense.platform.plugins.module_utils.agent.cleanup import cleanup_dead_jobs
from ansible_collections.sendense.platform.plugins.module_utils.errors import SendenseError
from ansible_collections.sendense.platform.plugins.module_utils.hubstate.jobs import list_jobs
from ansible_collections.sendense.platform.plugins.module_utils.hubstate.statedir import StateDir
from ansible_collections.sendense.platform.plugins.module_utils.jobs import backup, copying, exports, place, verify
from ansible_collections.sendense.platform.plugins.module_utils.model import Disk, Machine
from ansible_collections.sendense.platform.plugins.module_utils.repositories._base import PointFilter
from ansible_collections.sendense.platform.plugins.module_utils.repositories.local import LocalRepository
from tests.e2e.site import Site
from tests.faults.oracle import Oracle, sha256

from .source_disks import Serve, SourceDisk, serve_plainly

PLATFORM, MACHINE_ID = "memory", "6c9ce2d5-4f5e-4b7f-9a49-8c6f0ab1a0f7"
SIZES = (2 * 1024 * 1024 + 512, 1024 * 1024)
#: Moments of a backup at which a hook may be called: the job is open, servers run, the data is copied.
OPENED, SERVED, COPIED, COMMITTED = "opened", "served", "copied", "committed"
MANY_POINTS = 6
#: Nothing may be left so long after a job has ended.
SETTLE_SECONDS = 10.0

Hook = Callable[[], None]


@dataclass
class Attempt:
    """What one backup came to. ``untyped`` is an error that no operator should ever see."""

    point_id: str = ""
    error: Optional[SendenseError] = None
    untyped: str = ""
    levels: List[str] = field(default_factory=list)
    full_reason: str = ""
    parent_id: str = ""
    lie: Dict[str, Any] = field(default_factory=dict)
    seconds: float = 0.0

    @property
    def ok(self) -> bool:
        """Whether a point was published."""
        return bool(self.point_id)

    @property
    def code(self) -> str:
        """The error code, empty if there was no error."""
        return self.error.error_code if self.error is not None else self.untyped


class Workbench:
    """``repository`` may be given to put it on storage of the test's own; call :meth:`close` at the end."""

    def __init__(self, seed: int, repository: str = "", sizes: tuple[int, ...] = SIZES, stall_seconds: int = 60) -> None:
        self.random = random.Random(seed)
        self.directory = Path(tempfile.mkdtemp(prefix="sw-"))
        #: For what the test itself runs: whatever runs below ``directory`` is the product's.
        self.rig = Path(tempfile.mkdtemp(prefix="sr-"))
        self.site = Site(self.directory, [], repository=repository)
        self.oracle = Oracle(self.site, [])
        self.stall_seconds = stall_seconds
        self.reserve_bytes = 0
        self.repository_id = ""
        #: How much of what a backup does not copy is compared with the source: a policy as ``nbd_export`` takes it.
        self.audit: Dict[str, Any] = {}
        self.disks = [SourceDisk.create(self.directory / f"source{at}.qcow2", size, self.random) for at, size in enumerate(sizes)]
        self.machine = Machine(platform=PLATFORM, id=MACHINE_ID, name="bench", firmware="uefi", disks=[])
        self.machine.disks = [Disk(id=f"serial-{at}", size_bytes=size, key=f"disk{at}") for at, size in enumerate(sizes)]
        self.key = self.machine.key
        self.nvram = self.directory / "nvram"
        self.nvram.write_bytes(self.random.randbytes(4096))
        content, digest = build_agent()
        self.agent = self.directory / f"{digest}.pyz"
        self.agent.write_bytes(content)
        self.made = 0

    # --- what a playbook does --------------------------------------------------------------------------------------

    def initialise(self) -> "Workbench":
        """Make the repository."""
        self.repository.initialise()
        return self

    @property
    def repository(self) -> LocalRepository:
        """A fresh view of the repository."""
        return self.oracle.repository

    @property
    def points(self) -> Path:
        """Where the machine's points lie."""
        return Path(self.site.repository, "machines", self.key, "points")

    def point_ids(self, status: str = "") -> List[str]:
        """Ids of the points of the machine, oldest first."""
        wanted = PointFilter(machine_key=self.key, status=status)
        return [point.manifest.point_id for point in self.repository.list(wanted)]

    def common(self) -> Dict[str, Any]:
        """What every handler wants."""
        options = {"type": "local", "path": self.site.repository, "id": self.repository_id, "reserve_bytes": self.reserve_bytes}
        return {
            "repository": options,
            "state_dir": self.site.hub_state,
            "agent_path": str(self.agent),
            "heartbeat_timeout": 30,
            "phase": "run",
            "platform": PLATFORM,
            "machine_id": MACHINE_ID,
            "machine_key": self.key,
            "node": "node01",
            "port_wait": 30,
        }

    def chain(self, length: int) -> List[str]:
        """So many backups, with writes between them; the ids of their points."""
        made = []
        for _number in range(length):
            attempt = self.backup()
            assert attempt.ok, attempt
            made.append(attempt.point_id)
            self.scribble()
        return made

    def scribble(self) -> None:
        """Write data and zeros to every disk."""
        for disk in self.disks:
            disk.scribble(self.random)

    def renew(self) -> Dict[str, str]:
        """Write to the disks; begin anew where checking all points has become long. The digests of all committed files."""
        if len(self.point_ids()) > MANY_POINTS:
            shutil.rmtree(self.points.parent)
            self.chain(1)
        self.scribble()
        return self.oracle.committed_files()

    def backup(self, hooks: Optional[Dict[str, Hook]] = None, serve: Serve = serve_plainly, full: bool = False, rate: int = 0) -> Attempt:
        """One backup with its rescue; never raises for what the product says. ``rate``: bytes per second at most."""
        began = time.monotonic()
        attempt = Attempt()
        job: Dict[str, Any] = {}
        with ExitStack() as servers:
            try:
                self._steps(attempt, job, hooks or {}, servers, serve, full, rate)
            except SendenseError as error:
                attempt.error = error
            except (OSError, ValueError, LookupError, TypeError) as error:
                attempt.untyped = f"untyped {error!r}"
            if attempt.code and job:
                self._rescue(attempt, job)
        attempt.seconds = time.monotonic() - began
        if attempt.ok:
            for disk in self.disks:
                disk.advance()
        return attempt

    def _steps(
        self, attempt: Attempt, job: Dict[str, Any], hooks: Dict[str, Hook], servers: ExitStack, serve: Serve, full: bool, rate: int
    ) -> None:
        common = self.common()
        contents = {f"disk{at}": disk.sha256() for at, disk in enumerate(self.disks)}
        opened = backup.open_backup(dict(common, full=full, max_chain_depth=30), check_mode=False)
        job.update(opened["job"])
        attempt.full_reason, attempt.parent_id = opened["full_reason"], opened["parent_id"]
        _call(hooks, OPENED)
        snapshot, sources = self._snapshot(opened, servers, serve)
        attempt.levels = [disk["level"] for disk in snapshot["disks"]]
        disks = [dict(disk, id=disk["disk_id"], expected_bytes=0) for disk in snapshot["disks"]]
        started = {
            "job_id": job["id"], "disks": disks, "created_at": snapshot["created_at"], "parent_id": opened["parent_id"],
            "incarnation": {}, "audit": self.audit,
        }  # fmt: skip
        targets = exports.start_for_backup(dict(common, **started))
        _call(hooks, SERVED)
        copy = {
            "job_id": job["id"], "role": "hub", "sources": sources, "nbd_targets": targets["nbd_targets_string"], "expected_roots": {},
            "hash_algorithm": opened["hash_algorithm"], "stall_seconds": self.stall_seconds, "max_bytes_per_second": rate,
            "audit": targets["audit"], "at_hub": "targets",
        }  # fmt: skip
        copied = copying.copy_disks(dict(common, **copy), check_mode=False)
        _call(hooks, COPIED)
        files = {"nvram": str(self.nvram), **{disk["key"]: disk["hashes"] for disk in copied["disks"]}}
        self.oracle.references[targets["point"]["id"]] = contents
        backup.commit_backup(dict(common, job=job, snapshot=snapshot, copy=copied, files=files), check_mode=False)
        attempt.point_id = targets["point"]["id"]
        _call(hooks, COMMITTED)

    def _snapshot(self, opened: Dict[str, Any], servers: ExitStack, serve: Serve) -> Any:
        """What a source would say of the disks, and the sources to copy from; a disk is served by what ``serve`` starts."""
        self.made += 1
        previous = {disk["id"]: disk["change_id"] for disk in opened["previous"]}
        disks, sources = [], []
        for at, disk in enumerate(self.disks):
            tracked = previous.get(f"serial-{at}") == disk.bitmap and bool(previous)
            level, reason = ("incremental", "") if tracked else ("full", opened["full_reason"] or "tracking_missing")
            change_id = disk.next_bitmap
            sizes = {"key": f"disk{at}", "size_bytes": disk.size, "level": level}
            disks.append(dict(sizes, disk_id=f"serial-{at}", reason=reason or "change_tracking", change_id=change_id))
            uri = servers.enter_context(serve(disk, self.directory / f"s{self.made}-{at}.sock"))
            sources.append(
                dict(
                    sizes, id=f"serial-{at}", uri=uri, changed_context=f"qemu:dirty-bitmap:{disk.bitmap}" if tracked else "", changed_flag=1
                )
            )
        created = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(1_800_000_000 + 60 * self.made))
        snapshot = {
            "machine": self.machine.to_dict(), "job_id": opened["job"]["id"], "created_at": created, "consistency": "crash",
            "consistency_wanted": "crash", "consistency_reason": "", "native_format": "bench", "skipped_disks": [],
            "native_config": f"<bench made='{self.made}'/>", "disks": disks,
        }  # fmt: skip
        return snapshot, sources

    def _rescue(self, attempt: Attempt, job: Dict[str, Any]) -> None:
        """As the role's rescue: take the backup back; what that says of itself hides nothing and stops nothing."""
        try:
            lies = attempt.error.details.get("lies", []) if attempt.error is not None else []
            answer = backup.abort_backup(dict(self.common(), job=job, parent_id=attempt.parent_id, lies=lies), check_mode=False)
            attempt.lie = answer["lie"]
        except SendenseError as error:
            assert attempt.error is None or attempt.error.details.setdefault("abort", error.msg)

    def verify(self, point_ids: Optional[List[str]] = None, repository: str = "") -> Dict[str, Any]:
        """Verify these points and what they stand on, or all; ``repository``: a copy of the repository instead."""
        params = dict(self.common(), point_ids=point_ids or [], all_points=point_ids is None, job_id=place.new_job_id())
        if repository:
            params["repository"] = dict(params["repository"], path=repository)
        return verify.verify_points(params, check_mode=False)

    def restore(self, repository: str, point_id: str) -> Tuple[str, bool]:
        """Restore a point to raw files and delete them: why that was refused, or nothing and whether the content was right."""
        options = dict(self.common()["repository"], path=repository)
        common = dict(
            self.common(), repository=options, only=[], point_id=point_id, format="raw", directory=str(self.directory / "restored")
        )
        job: Dict[str, Any] = {"job_id": ""}
        try:
            opened = exports.start_for_restore(common, check_mode=False)
            job["job_id"] = opened["job"]["id"]
            targets = exports.start_for_files(dict(common, **job, manifest=opened["manifest"]))
            sources = [dict(export, level="full") for export in opened["exports"]]
            copy = {"sources": sources, "nbd_targets": targets["nbd_targets_string"], "expected_roots": opened["roots"], "role": "hub"}
            options = {"hash_algorithm": "xxh3_128", "stall_seconds": self.stall_seconds, "max_bytes_per_second": 0, "at_hub": "targets"}
            copying.copy_disks(dict(common, **job, **copy, **options), check_mode=False)
        except SendenseError as error:
            if job["job_id"]:
                exports.stop(dict(common, **job, port=None, state="aborted"))
            left = list(self.directory.glob("restored/*"))
            assert not left, f"a refused restore has left {left}"
            return error.msg, False
        exports.stop(dict(common, **job, port=None, state="stopped"))
        found = {path.stem: sha256(path) for path in self.directory.glob("restored/*")}
        shutil.rmtree(self.directory / "restored")
        return "", found == self.oracle.references[point_id]

    # --- afterwards ------------------------------------------------------------------------------------------------

    def settle(self, timeout_s: float = SETTLE_SECONDS) -> List[str]:
        """Wait until no process of a job is left, then clean up once as every next job does; what lived too long."""
        deadline = time.monotonic() + timeout_s
        state = StateDir(self.site.hub_state)
        while (left := self._living(state)) and time.monotonic() < deadline:
            time.sleep(0.05)
        cleanup_dead_jobs(state)
        return [f"O3 still there after {timeout_s:.0f} s: {one}" for one in left]

    def _living(self, state: StateDir) -> List[str]:
        return [job.path for job in list_jobs(state) if job.alive()] + list(self.oracle.processes().values())

    def remains(self, attempt: Attempt, before: Dict[str, str]) -> List[str]:
        """What a failed backup has left or changed; its error must be one that an operator understands."""
        found = [f"O5 {attempt.untyped} instead of a typed error"] if attempt.untyped else []
        return found + self.settle() + self.oracle.jobs() + self.oracle.leaks() + self.oracle.unchanged(before)

    def goes_on(self, attempt: Attempt) -> List[str]:
        """The next backup after a failed one needs no help, and every point is right."""
        again = attempt if attempt.ok else self.backup()
        found = [] if again.ok else [f"O5 not backed up afterwards: {again.error or again.untyped}"]
        return found + self.oracle.points()

    def close(self) -> List[str]:
        """Delete everything; what still ran."""
        left = self.oracle.processes()
        shutil.rmtree(self.directory)
        shutil.rmtree(self.rig)
        return [f"O3 process {pid} at the end: {text}" for pid, text in left.items()]


def _call(hooks: Dict[str, Hook], moment: str) -> None:
    if moment in hooks:
        hooks[moment]()
