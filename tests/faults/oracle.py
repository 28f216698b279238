# Copyright: (c) 2026, Sendense contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The oracle: after a fault and one clean-up, is everything as it was promised? Every finding is one line of text.

O1 every point that is listed ok is what was backed up; O2 no job without a living keeper; O3 nothing leaked; O4 no
committed file changed, but for those of a merge; O5 the next backup succeeds unaided; O6 nobody has seen the secret. It asks
files, libvirt, qemu and /proc itself; of the product it uses only the readers of manifests and block hashes.
"""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import tempfile
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Dict, List, Set

import libvirt
import libvirt_qemu

from ansible_collections.sendense.platform.plugins.module_utils.datapath.blockhashes import BlockHashFile, compose
from ansible_collections.sendense.platform.plugins.module_utils.datapath.hashing import algorithm
from ansible_collections.sendense.platform.plugins.module_utils.errors import SendenseError
from ansible_collections.sendense.platform.plugins.module_utils.hubstate.ports import PortPool
from ansible_collections.sendense.platform.plugins.module_utils.hubstate.statedir import StateDir
from ansible_collections.sendense.platform.plugins.module_utils.platforms.libvirt.naming import CheckpointName
from ansible_collections.sendense.platform.plugins.module_utils.repositories._base import Point, PointFilter
from ansible_collections.sendense.platform.plugins.module_utils.repositories.local import LocalRepository
from tests.e2e.canary import files_with, processes_with
from tests.e2e.site import Run, Site
from tests.lab.guest import Guest

#: Sha256 of the raw content by disk key, by point id.
References = Dict[str, Dict[str, str]]

#: Why a disk may be read in full though the machine has a sound backup: it cannot be tracked, or its qemu was killed.
UNTRACKED = {"tracking_unsupported"}
LOST = {"tracking_missing", "tracking_inconsistent"}


@dataclass
class Oracle:
    """Looks at one site and its guests; ``references`` grow with every backup whose content is known.

    ``released`` are ids of points that may go or be written anew: those that a policy lets go and that a merge gives new files.
    ``secret`` is a password in the inventory; ``logs`` are further directories in which it must not be.
    """

    site: Site
    guests: List[Guest]
    references: References = field(default_factory=dict)
    states: Dict[str, int] = field(default_factory=dict)
    released: Set[str] = field(default_factory=set)
    secret: str = ""
    logs: List[Path] = field(default_factory=list)
    seen: Set[str] = field(default_factory=set)

    @property
    def repository(self) -> LocalRepository:
        """A fresh view of the repository."""
        return LocalRepository(self.site.repository, reserve_bytes=0)

    def remember_states(self) -> None:
        """The power states that the guests have to have afterwards, too."""
        self.states = {guest.uuid: guest.domain.state()[0] for guest in self.guests}

    def check(self, before: Dict[str, str]) -> List[str]:
        """O1 to O4 and O6; ``before`` is what :meth:`committed_files` said before the fault."""
        return self.points() + self.jobs() + self.leaks() + self.unchanged(before) + self.secrets()

    # --- O1 --------------------------------------------------------------------------------------------------------

    def points(self) -> List[str]:
        """Manifest, sizes, digests, parents, roots, and every block of every point that is listed ok."""
        found = []
        repository = self.repository
        for point in repository.list(PointFilter(status="ok")):
            try:
                found += [f"O1 {point.manifest.point_id}: {text}" for text in self._point(repository, point)]
            except (SendenseError, OSError, subprocess.CalledProcessError) as error:
                found.append(f"O1 {point.manifest.point_id}: cannot be read: {error}")
        return found

    def _point(self, repository: LocalRepository, point: Point) -> List[str]:
        manifest = point.manifest
        key, point_id = manifest.machine_key, manifest.point_id
        found = [f"{one.kind} {one.disk}: {one.message}" for one in repository.structure_check(key, point_id)]
        found += [f"{one.kind} {one.disk}: {one.message}" for one in repository.digest_check(key, point_id)]
        if found:
            return found
        hashes = repository.hash_files(key, point_id)
        folder = Path(self.site.repository, "machines", key, "points", point_id)
        for disk in manifest.disks:
            with tempfile.NamedTemporaryFile(prefix="sendense-oracle-") as raw:
                full_read(folder / disk.file, raw.name)
                if Path(raw.name).stat().st_size != disk.size_bytes:
                    found.append(f"{disk.key} reads as {Path(raw.name).stat().st_size} bytes instead of {disk.size_bytes}")
                found += [f"{disk.key} {text}" for text in _blocks(raw.name, hashes[disk.key])]
                reference = self.references.get(point_id, {}).get(disk.key)
                if reference is not None and reference != sha256(raw.name):
                    found.append(f"{disk.key} is not what the source held when it was backed up")
        return found

    # --- O2, O4, O5 ------------------------------------------------------------------------------------------------

    def jobs(self) -> List[str]:
        """No job is left, alive or dead, at hub or node."""
        return [f"O2 job directory {path}" for state in self._states() for path in _entries(state.jobs)]

    def committed_files(self) -> Dict[str, str]:
        """Sha256 of every file of every committed point."""
        folders = Path(self.site.repository, "machines").glob("*/points/*")
        files = [path for folder in folders if "." not in folder.name for path in folder.rglob("*") if path.is_file()]
        return {str(path): sha256(path) for path in files if path.name != "job.json"}

    def unchanged(self, before: Dict[str, str]) -> List[str]:
        """No file that was committed before the fault is gone or another one, but for points that a merge or a policy touches."""
        now, but = self.committed_files(), self.released | self._merging()
        differing = [path for path in before if now.get(path) != before[path] and Path(path).parent.name not in but]
        return [f"O4 {path} {'changed' if path in now else 'is gone'}" for path in differing]

    def _merging(self) -> Set[str]:
        """The points that open merge journals name: those that are consumed, and their survivors."""
        found: Set[str] = set()
        for path in Path(self.site.repository, "machines").glob("*/merge.json"):
            journal = json.loads(path.read_text())
            found.update([*journal["consumed"], journal["survivor"]])
        return found

    def next_backup(self, run: Run, names: List[str], may_be_full: Set[str]) -> List[str]:
        """O5: the run after a fault has backed up every machine; ``may_be_full`` are reasons besides ``tracking_unsupported``."""
        found = []
        for name in names:
            if not run.result(name, "Make it durable, re-read it, publish it").get("point") or run.error(name):
                found.append(f"O5 {name}: not backed up: {run.error(name).get('msg') or run.output[-2000:]}")
            found += self.levels(run, name, may_be_full)
        return found

    def levels(self, run: Run, name: str, may_be_full: Set[str]) -> List[str]:
        """O5, as far as a run came: no disk of the machine was to be read in full without a reason."""
        disks = run.result(name, "Snapshot all disks at one instant").get("disks", [])
        wrong = [disk for disk in disks if disk["level"] != "incremental" and disk["reason"] not in UNTRACKED | may_be_full]
        return [f"O5 {name} {disk['key']}: {disk['level']} because of {disk['reason']!r}" for disk in wrong]

    # --- O6 --------------------------------------------------------------------------------------------------------

    def watch_secret(self) -> None:
        """Look for the secret in the arguments and the environment of everything that runs now."""
        self.seen.update(processes_with(self.secret) if self.secret else [])

    def secrets(self) -> List[str]:
        """The secret was in no process that :meth:`watch_secret` saw, and is in no file of the site or log of its hosts."""
        files = [path for where in (self.site.directory, *self.logs) for path in files_with(self.secret, where)] if self.secret else []
        return [f"O6 the secret was in {one}" for one in sorted(self.seen)] + [f"O6 the secret is in {path}" for path in files]

    # --- O3 --------------------------------------------------------------------------------------------------------

    def leaks(self) -> List[str]:
        """Nothing of a job is left anywhere."""
        found = [f"O3 process {pid}: {text}" for pid, text in self.processes().items()]
        for state in self._states():
            found += [f"O3 leased port {lease['port']}" for lease in PortPool(state).list()]
            for folder in (state.exports, state.leases):
                found += [f"O3 {path}" for path in _entries(folder) if path.endswith((".json", ".lease"))]
        folders = Path(self.site.repository, "machines").glob("*/points/*")
        found += [f"O3 unfinished point {folder}" for folder in folders if "." in folder.name]
        for guest in self.guests:
            found += [f"O3 {guest.name}: {text}" for text in self._guest(guest)]
        return found

    def processes(self) -> Dict[int, str]:
        """Every process that has the site's directory among its arguments: keepers, servers, movers, modules."""
        mark = os.fsencode(self.site.directory) + b"/"
        found = {}
        for entry in os.listdir("/proc"):
            if entry.isdigit() and int(entry) != os.getpid():
                try:
                    line = Path("/proc", entry, "cmdline").read_bytes()
                except (FileNotFoundError, ProcessLookupError):
                    continue
                if mark in line:
                    found[int(entry)] = line.replace(b"\0", b" ").decode(errors="replace").strip()
        return found

    def _guest(self, guest: Guest) -> List[str]:
        domain = guest.domain
        found = []
        if backup_xml(domain):
            found.append("a backup job runs")
        if domain.state()[0] != self.states.get(guest.uuid, domain.state()[0]):
            found.append(f"its power state is {domain.state()[0]} instead of {self.states[guest.uuid]}")
        needed = self._needed(guest)
        names = {one.getName() for one in domain.listAllCheckpoints()}
        nodes = block_nodes(domain) if domain.isActive() else []
        names |= {bitmap["name"] for node in nodes for bitmap in node.get("dirty-bitmaps", []) if bitmap.get("name")}
        ours = sorted(name for name in names if CheckpointName.parse(name) is not None)
        found += [f"checkpoint or bitmap {name} that no newest point needs" for name in ours if name not in needed]
        found += [f"bitmap {name} of a job" for name in sorted(names) if name.startswith("sendense-")]
        found += [f"scratch node {node['file']}" for node in nodes if "sendense-scratch" in str(node.get("file"))]
        known = {disk.path.name for disk in guest.disks.values()} | {"serial.log", "nvram.fd"}
        return found + [f"file {path.name}" for path in guest.dir.iterdir() if path.name not in known]

    def _needed(self, guest: Guest) -> str:
        """The change ids of the newest committed point, as one text in which a checkpoint's name can be looked for."""
        points = self.repository.list(PointFilter(machine_key=f"libvirt-{guest.uuid}"))
        newest = max(points, key=lambda point: point.manifest.generation, default=None)
        return " ".join(disk.change_id for disk in newest.manifest.disks) if newest else ""

    def _states(self) -> List[StateDir]:
        return [StateDir(path) for path in sorted({self.site.hub_state, self.site.node_state})]


def full_read(image: Path, raw: str) -> None:
    """Read a chain in a fresh process as the runbook does: qemu-img alone, by the relative backing paths in the files."""
    argv = ["qemu-img", "convert", "-f", "qcow2", "-O", "raw", "--", str(image), raw]
    subprocess.run(argv, check=True, capture_output=True)


def backup_xml(domain: Any) -> str:
    """The XML of the backup job that runs on the machine, or nothing."""
    try:
        return str(domain.backupGetXMLDesc())
    except libvirt.libvirtError as error:
        if error.get_error_code() == libvirt.VIR_ERR_NO_DOMAIN_BACKUP:
            return ""
        raise


def block_nodes(domain: Any) -> List[Dict[str, Any]]:
    """What qemu itself says of its block nodes."""
    question = json.dumps({"execute": "query-named-block-nodes", "arguments": {"flat": True}})
    return list(json.loads(libvirt_qemu.qemuMonitorCommand(domain, question, 0))["return"])


def sha256(path: "os.PathLike[str] | str") -> str:
    """Of a whole file."""
    with open(path, "rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def _blocks(raw: str, hash_files: List[str]) -> List[str]:
    layers = [BlockHashFile(path) for path in hash_files]
    try:
        blocks = compose(layers)
        hasher = algorithm(blocks.algorithm)
        with open(raw, "rb") as stream:
            pieces = enumerate(iter(lambda: stream.read(blocks.block_size), b""))
            wrong = [number for number, data in pieces if hasher.digest_of(data) != blocks.digest(number)]
    finally:
        for layer in layers:
            layer.close()
    return [f"block {number} does not match its hash" for number in wrong]


def _entries(folder: str) -> List[str]:
    return sorted(os.path.join(folder, name) for name in os.listdir(folder)) if os.path.isdir(folder) else []
