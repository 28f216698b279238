# Copyright: (c) 2026, Sendense contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A hypervisor that lives in this process: machines whose disks are bytes, with dirty tracking per 64 KiB block.

Its disks are really served: every open snapshot is a qcow2 image with a bitmap behind ``qemu-nbd``. It is unkind on
purpose: ids and names hurt, machines have siblings of the same name, sizes are odd.
"""

from __future__ import annotations

import os
import subprocess
from dataclasses import dataclass, field
from pathlib import Path
from typing import Dict, List, Set

from ansible_collections.sendense.platform.plugins.module_utils.datapath.targets import UNIX, NbdTarget
from ansible_collections.sendense.platform.plugins.module_utils.errors import MachineNotFoundError
from tests.doubles.nbd_server import await_greeting, stop

BLOCK = 65536
BITMAP = "changed"


@dataclass
class MemoryDisk:
    """A disk. ``dirty`` maps a checkpoint to the blocks that were written since."""

    id: str
    device: str
    content: bytearray
    tracking: bool = True
    excluded: str = ""
    dirty: Dict[str, Set[int]] = field(default_factory=dict)


@dataclass
class MemoryMachine:
    """A machine. ``jobs`` are its open snapshots, by job id."""

    id: str
    name: str
    disks: List[MemoryDisk]
    power: str = "running"
    tags: List[str] = field(default_factory=list)
    snapshots: List[str] = field(default_factory=list)
    jobs: Dict[str, "MemoryJob"] = field(default_factory=dict)
    restored: Dict[str, str] = field(default_factory=dict)


@dataclass
class MemoryJob:
    """An open snapshot: its servers and their files."""

    owner: str
    checkpoint: str
    servers: List["subprocess.Popen[bytes]"] = field(default_factory=list)
    files: List[Path] = field(default_factory=list)


class MemoryHypervisor:
    """All machines of one platform. ``directory`` holds what is served."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.machines: Dict[str, MemoryMachine] = {}
        self.reachable = True

    def find(self, machine_id: str) -> MemoryMachine:
        """One machine. MachineNotFoundError."""
        if machine_id not in self.machines:
            raise MachineNotFoundError(f"There is no machine {machine_id!r} in memory.", details={"machine_id": machine_id})
        return self.machines[machine_id]

    def add(self, machine: MemoryMachine) -> MemoryMachine:
        """Make it exist."""
        self.machines[machine.id] = machine
        return machine

    def write(self, machine_id: str, disk: int, offset: int, data: bytes) -> None:
        """The machine writes; every checkpoint's tracking sees it."""
        found = self.find(machine_id).disks[disk]
        found.content[offset : offset + len(data)] = data
        for dirty in found.dirty.values():
            dirty.update(range(offset // BLOCK, (offset + len(data) - 1) // BLOCK + 1))

    def serve(self, job: MemoryJob, disk: MemoryDisk, export: str, since: str) -> str:
        """Serve the disk as it is now, with what changed since a checkpoint (empty: none); returns the URI."""
        base = self.directory / f"{export}.raw"
        base.write_bytes(disk.content)
        image, socket = self.directory / f"{export}.qcow2", self.directory / f"{export[-24:]}.sock"
        job.files += [base, image, socket]
        _run("create", "-q", "-f", "qcow2", str(image), str(len(disk.content)))
        if since:
            self._mark(image, sorted(disk.dirty[since]), len(disk.content))
        _run("convert", "-n", "-f", "raw", "-O", "qcow2", str(base), str(image))
        argv = ["qemu-nbd", "--persistent", "--read-only", "--shared=10", f"--export-name={export}", f"--socket={socket}"]
        argv += [f"--bitmap={BITMAP}"] if since else []
        server = subprocess.Popen(argv + ["--format=qcow2", str(image)], stdin=subprocess.DEVNULL)
        job.servers.append(server)
        await_greeting(server, str(socket))
        return NbdTarget(key="disk0", transport=UNIX, export=export, socket=str(socket)).uri()

    def _mark(self, image: Path, blocks: List[int], size: int) -> None:
        """A bitmap that says exactly these blocks: it records writes to them and is then stopped."""
        _run("bitmap", "--add", "-f", "qcow2", str(image), BITMAP)
        commands = [f"write -P 1 {block * BLOCK} {min(BLOCK, size - block * BLOCK)}" for block in blocks]
        if commands:
            options = [word for command in commands for word in ("-c", command)]
            subprocess.run(["qemu-io", "-f", "qcow2", *options, str(image)], check=True, stdout=subprocess.DEVNULL)
        _run("bitmap", "--disable", "-f", "qcow2", str(image), BITMAP)

    def end(self, machine: MemoryMachine, job_id: str) -> None:
        """Stop serving a job."""
        job = machine.jobs.pop(job_id)
        for server in job.servers:
            stop(server, "")
        for path in job.files:
            path.unlink(missing_ok=True)

    def close(self) -> None:
        """Stop everything; what tests forgot to end is an error."""
        open_jobs = [(machine, job_id) for machine in self.machines.values() for job_id in machine.jobs]
        for machine, job_id in open_jobs:
            self.end(machine, job_id)
        assert not open_jobs, f"{len(open_jobs)} snapshots were left open"
        assert os.listdir(self.directory) == []


def unkind_hypervisor(directory: Path) -> MemoryHypervisor:
    """Machines with siblings; the first one, ``../../etc/x``, is the one to back up."""
    hypervisor = MemoryHypervisor(directory)
    names = ["/../x", "{{ lookup('pipe','touch pwned') }}", "web01", "web01", "'; DROP TABLE machines; --", "-rf $HOME\n\x1b[2J"]
    for number, name in enumerate(names):
        machine_id = "../../etc/x" if number == 0 else f"m-{number}"
        disks = [
            MemoryDisk(f"{machine_id}/{number}-a", "a", bytearray(16 * BLOCK)),
            MemoryDisk(f"{machine_id}/{number}-b", "b", bytearray(17 * BLOCK + 7 * 512)),
            MemoryDisk("{{ 7 * 7 }}", "c", bytearray(3 * 512), tracking=False),
        ]
        hypervisor.add(MemoryMachine(machine_id, name, disks, tags=["{% raw %}", "web"]))
    return hypervisor


def _run(*arguments: str) -> None:
    subprocess.run(["qemu-img", *arguments], check=True, stdout=subprocess.DEVNULL)
