# Copyright: (c) 2026, Sendense contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""File systems that become full, and block devices that fail: real mounts, real ENOSPC, real EIO."""

from __future__ import annotations

import os
import subprocess
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Iterator, Tuple

from tests.lab.disks import MIB


@contextmanager
def small_filesystem(where: Path, size_mib: int) -> Iterator[None]:
    """A tmpfs of this size, mounted there."""
    with _mounted(["-t", "tmpfs", "-o", f"size={size_mib}m"], "none", where):
        yield


@dataclass
class LoopDisk:
    """A block device with an ext4 file system, whose end can be cut off so that I/O there fails, and be given back unharmed."""

    image: Path
    where: Path

    @contextmanager
    def failing_beyond(self, offset: int) -> Iterator[None]:
        """Until the end of the block, every read and write beyond this offset of the device is EIO."""
        tail = self.cut(offset)
        try:
            yield
        finally:
            self.heal(tail)

    def cut(self, offset: int) -> Tuple[int, bytes]:
        """Fail beyond the offset from now on; what :meth:`heal` needs. The file system is frozen meanwhile, so no byte is lost."""
        subprocess.run(["fsfreeze", "--freeze", str(self.where)], check=True)
        try:
            with open(self.image, "rb") as stream:
                stream.seek(offset)
                tail = stream.read()
            os.truncate(self.image, offset)
            self._resize()
        finally:
            subprocess.run(["fsfreeze", "--unfreeze", str(self.where)], check=True)
        return offset, tail

    def heal(self, tail: Tuple[int, bytes]) -> None:
        """Give the device its end back as it was."""
        with open(self.image, "r+b") as stream:
            stream.seek(tail[0])
            stream.write(tail[1])
        self._resize()

    def _resize(self) -> None:
        device = subprocess.run(["findmnt", "-no", "SOURCE", str(self.where)], check=True, capture_output=True, text=True).stdout.strip()
        subprocess.run(["losetup", "--set-capacity", device], check=True)


@contextmanager
def loop_disk(image: Path, where: Path, size_mib: int) -> Iterator[LoopDisk]:
    """A mounted disk of this size in a file."""
    with open(image, "xb") as stream:
        os.truncate(stream.fileno(), size_mib * MIB)
    # Without a journal, so that only the I/O itself fails; one block group, so that what is needed to read lies in front.
    subprocess.run(["mkfs.ext4", "-q", "-b", "4096", "-O", "^has_journal", "-E", "lazy_itable_init=0", str(image)], check=True)
    with _mounted(["-o", "loop,noatime"], str(image), where):
        yield LoopDisk(image, where)


def fill(path: Path) -> None:
    """Write until nothing more fits."""
    try:
        with open(path, "wb", buffering=0) as stream:
            while True:
                stream.write(b"x" * MIB)
    except OSError:
        return


def drop_cache(path: Path) -> None:
    """Forget the pages of a file, so that the next read asks its device."""
    with open(path, "rb") as stream:
        os.fsync(stream.fileno())
        os.posix_fadvise(stream.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


@contextmanager
def _mounted(options: list[str], what: str, where: Path) -> Iterator[None]:
    where.mkdir(exist_ok=True)
    subprocess.run(["mount", *options, what, str(where)], check=True)
    try:
        yield
    finally:
        subprocess.run(["umount", "--lazy", str(where)], check=True)
