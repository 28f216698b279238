# Copyright: (c) 2026, Sendense contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A mounted ext4 disk whose every write and flush is recorded in order, and the states in which a power cut may leave it.

qemu's ``blklogwrites`` driver writes the log (the format of dm-log-writes), a FUSE export makes a file of it, and the file
is mounted through a loop device: so the log sees exactly what a disk's write cache would.
"""

from __future__ import annotations

import os
import random
import struct
import subprocess
import time
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Iterator, List

from tests.lab.disks import MIB

SECTOR = 512
PAGE = 4096
_MAGIC = 0x6A736677736872
_FLUSH, _FUA, _DISCARD = 1, 2, 4
_START_SECONDS = 20.0


@dataclass(frozen=True)
class Entry:
    """One request. A flush has no data; ``durable``: it reached the medium before it was answered."""

    offset: int
    data: bytes
    flush: bool
    durable: bool


@dataclass
class RecordedDisk:
    """The disk while it is mounted at ``where``."""

    image: Path
    log: Path
    where: Path
    origin: bytes

    def position(self) -> int:
        """How many requests were answered by now: what was acknowledged up to here is in the log before this."""
        return len(self.entries())

    def entries(self) -> List[Entry]:
        """All requests so far."""
        content = self.log.read_bytes()
        if len(content) < SECTOR:
            return []
        magic, _version, _count, sector_size = struct.unpack_from("<QQQI", content)
        assert (magic, sector_size) == (_MAGIC, SECTOR), "this is not a log of blklogwrites"
        found, at = [], SECTOR
        while at + SECTOR <= len(content):
            sector, sectors, flags, _length = struct.unpack_from("<QQQQ", content, at)
            at += SECTOR
            length = 0 if flags & _DISCARD else sectors * SECTOR
            data = content[at : at + length]
            if (flags, sectors) == (0, 0) or len(data) < length:
                break  # the last one is being written
            if data or flags & (_FLUSH | _FUA):
                found.append(Entry(sector * SECTOR, data, bool(flags & _FLUSH), bool(flags & _FUA)))
            at += length
        return found


@contextmanager
def recorded_disk(directory: Path, size_mib: int) -> Iterator[RecordedDisk]:
    """A new ext4 file system with a journal, mounted at ``directory/mnt``, recorded from before its first mount on."""
    image, log, shown, where = (directory / name for name in ("disk.img", "disk.log", "shown.img", "mnt"))
    make_filesystem(image, size_mib)
    log.write_bytes(b"")
    origin = image.read_bytes()
    disk = [f"driver=file,node-name=disk,filename={image}", f"driver=file,node-name=log,filename={log}"]
    recorder = f"driver=blklogwrites,node-name=shown,file=disk,log=log,log-sector-size={SECTOR}"
    with shown_as_file([*disk, recorder], shown, len(origin)), mounted(shown, where):
        yield RecordedDisk(image, log, where, origin)


@contextmanager
def shown_as_file(nodes: List[str], shown: Path, size: int) -> Iterator[None]:
    """The block node ``shown`` of these, of this size in bytes, as a writable file that a loop device can be put on."""
    shown.write_bytes(b"")
    argv = ["qemu-storage-daemon"]
    for node in nodes:
        argv += ["--blockdev", node]
    argv += ["--export", f"type=fuse,id=export,node-name=shown,mountpoint={shown},writable=on,growable=off"]
    daemon = subprocess.Popen(argv)
    try:
        _await_size(shown, size, daemon)
        yield
    finally:
        daemon.terminate()
        daemon.wait(timeout=30)


def make_filesystem(image: Path, size_mib: int) -> None:
    """A file with an ext4 file system that has a journal."""
    with open(image, "xb") as stream:
        os.truncate(stream.fileno(), size_mib * MIB)
    subprocess.run(["mkfs.ext4", "-q", "-b", str(PAGE), "-J", "size=4", "-E", "lazy_itable_init=0", str(image)], check=True)


@contextmanager
def mounted(image: Path, where: Path) -> Iterator[None]:
    """The file system in this file, mounted through a loop device."""
    where.mkdir(exist_ok=True)
    subprocess.run(["mount", "-o", "loop,noatime", str(image), str(where)], check=True)
    try:
        yield
    finally:
        subprocess.run(["umount", str(where)], check=True)


class Replay:
    """States of the disk after a power cut, for cuts in ascending order."""

    def __init__(self, origin: bytes, entries: List[Entry]) -> None:
        self._entries = entries
        self._stored = bytearray(origin)
        self._done = 0
        self.lost = 0
        """Pages that the last state has lost."""

    def state(self, cut: int, source: random.Random) -> bytearray:
        """The disk if the power fails after ``cut`` requests: what was not flushed is lost page by page, or is not."""
        flushes = [number for number in range(self._done, cut) if self._entries[number].flush]
        while flushes and self._done <= flushes[-1]:
            self._apply(self._stored, self._entries[self._done])
            self._done += 1
        disk = bytearray(self._stored)
        share, self.lost = source.choice((0.1, 0.5, 0.9, 1.0)), 0
        for entry in self._entries[self._done : cut]:
            for at in range(0, len(entry.data), PAGE):
                if not entry.durable and source.random() < share:
                    self.lost += 1
                else:
                    disk[entry.offset + at : entry.offset + min(at + PAGE, len(entry.data))] = entry.data[at : at + PAGE]
        return disk

    @staticmethod
    def _apply(disk: bytearray, entry: Entry) -> None:
        disk[entry.offset : entry.offset + len(entry.data)] = entry.data


def _await_size(path: Path, size: int, daemon: "subprocess.Popen[bytes]") -> None:
    deadline = time.monotonic() + _START_SECONDS
    while path.stat().st_size != size:
        assert daemon.poll() is None and time.monotonic() < deadline, "qemu-storage-daemon did not export the disk"
        time.sleep(0.02)
