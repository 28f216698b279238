# Copyright: (c) 2026, Sendense contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Where the data path is measured: a lab host, a suspended machine, its clone for the peer, and destinations that are warm.

New pages of RAM may first have to be given by the machine's own hypervisor, which costs several times what is to be measured.
So every destination is a file whose space was written before; an empty image is laid over it by rewriting its metadata only.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
import time
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Iterator, List, Tuple

import libvirt

from ansible_collections.sendense.platform.plugins.module_utils.datapath.images import create_qcow2
from tests.lab import disks as diskfiles
from tests.lab.disks import DiskSpec
from tests.lab.guest import Guest
from tests.lab.host import LibvirtHost

from .content import MIB, Piece, data_bytes, fill
from .rows import BenchmarkError

_FILLING = b"\xa5" * MIB


@dataclass
class Stage:
    """One place: ``machine`` is backed up by the product and by nbdcopy, ``clone`` by virtnbdbackup."""

    name: str
    directory: Path
    host: LibvirtHost
    machine: Guest
    clone: Guest
    pieces: List[Piece]

    @property
    def gib(self) -> float:
        """GiB of real data on the disk."""
        return data_bytes(self.pieces) / (1 << 30)

    def destination(self, name: str, length: int) -> Path:
        """A file of so many bytes, all of them written and stored."""
        path = self.directory / name
        with open(path, "wb", buffering=0) as stream:
            for _number in range(-(-length // MIB)):
                stream.write(_FILLING)
            os.fsync(stream.fileno())
        return path

    def empty(self, path: Path, size: int, backing: str = "") -> None:
        """Make the warm file an empty image of this size, keeping its space."""
        fresh = self.directory / "fresh.qcow2"
        fresh.unlink(missing_ok=True)
        create_qcow2(str(fresh), size, backing or None)
        with open(path, "r+b", buffering=0) as stream:
            stream.write(fresh.read_bytes())
            os.fsync(stream.fileno())
        fresh.unlink()

    def warm(self, length: int) -> None:
        """Use so much memory once, for a program that insists on making its files itself; on a disk there is nothing to warm."""
        if _in_memory(self.directory):
            self.destination("warm", length).unlink()


@contextmanager
def host_below(base: Path) -> Iterator[Tuple[Path, LibvirtHost]]:
    """A lab host in a directory of its own below ``base``; nothing of either is left afterwards."""
    directory = Path(tempfile.mkdtemp(prefix="sb-", dir=base))
    host = LibvirtHost("h", directory)
    try:
        yield directory, host.start()
    finally:
        host.stop()
        shutil.rmtree(directory)


def machine_on(host: LibvirtHost, name: str, disks: List[DiskSpec]) -> Guest:
    """A small machine that will never run an instruction."""
    return Guest.create(host, name, disks, memory_mib=64, agent=False)


@contextmanager
def stage(name: str, base: Path, size: int, pieces: List[Piece]) -> Iterator[Stage]:
    """A place below ``base``; nothing of it is left afterwards. BenchmarkError if it has no room for all of it."""
    _require_room(base, 3 * size + data_bytes(pieces))
    with host_below(base) as (directory, host):
        machine, clone = (machine_on(host, called, [DiskSpec("vda", size)]) for called in ("bench", "clone"))
        fill(machine.disks["vda"].path, pieces)
        shutil.copyfile(machine.disks["vda"].path, clone.disks["vda"].path)
        subprocess.run(["sync", "-f", str(directory)], check=True)
        yield Stage(name, directory, host, machine, clone, pieces)


def _in_memory(path: Path) -> bool:
    return os.path.realpath(path).startswith("/dev/shm/") or os.path.realpath(path) == "/dev/shm"


def _require_room(base: Path, length: int) -> None:
    """BenchmarkError unless so many bytes are free, in RAM too if the place lies there."""
    found = os.statvfs(base)
    free = found.f_bavail * found.f_frsize
    if _in_memory(base):
        lines = Path("/proc/meminfo").read_text().splitlines()
        free = min(free, next(int(line.split()[1]) for line in lines if line.startswith("MemAvailable:")) * 1024)
    if free < length:
        raise BenchmarkError(f"{base} has {free >> 20} MiB to spare and {length >> 20} MiB are needed; free some, then run again")


def restart(guest: Guest) -> None:
    """A fresh QEMU, suspended: what one backup did to the heap of the old one helps the next no more."""
    guest.destroy()
    guest.start(paused=True)


def forget(guest: Guest) -> None:
    """A fresh QEMU, and a machine of which no backup was ever taken."""
    guest.destroy()
    for checkpoint in guest.domain.listAllCheckpoints(libvirt.VIR_DOMAIN_CHECKPOINT_LIST_ROOTS):
        checkpoint.delete(libvirt.VIR_DOMAIN_CHECKPOINT_DELETE_METADATA_ONLY | libvirt.VIR_DOMAIN_CHECKPOINT_DELETE_CHILDREN)
    for disk in guest.disks.values():
        data = diskfiles.info(disk.image).get("format-specific", {}).get("data", {})
        for bitmap in data.get("bitmaps", []):
            diskfiles.run(["qemu-img", "bitmap", "--remove", "-f", "qcow2", "--", str(disk.path), bitmap["name"]])
    guest.start(paused=True)


def scribble(guest: Guest, pieces: List[Piece], pattern: int) -> None:
    """Write to the running machine's disk; then a fresh QEMU, because such writes tune its heap."""
    for piece in pieces:
        guest.write("vda", pattern, piece.offset, piece.length)
    guest.flush("vda")
    restart(guest)


def identical(guest: Guest, image: Path, disk: str = "vda") -> bool:
    """Whether a qcow2 image holds what the machine's disk holds now. BenchmarkError if qemu-img cannot tell."""
    guest.flush(disk)
    argv = ["qemu-img", "compare", "-U", "-f", "qcow2", "-F", "qcow2", "--", str(guest.disks[disk].path), str(image)]
    done = subprocess.run(argv, check=False, capture_output=True, text=True)
    if done.returncode > 1:
        raise BenchmarkError(f"qemu-img compare of {image}: {done.stderr.strip()}")
    return done.returncode == 0


def process_cpu(pid: int) -> float:
    """CPU seconds of a living process, all its threads."""
    return time.clock_gettime((~pid << 3) | 2)  # the process' own clock, as clock_getcpuclockid(3) computes it
