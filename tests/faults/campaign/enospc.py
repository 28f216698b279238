# Copyright: (c) 2026, Sendense contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""``enospc``: storage that is full in bytes, in inodes, or refuses a file's length, at random moments of a backup."""

from __future__ import annotations

import os
import resource
import subprocess
from contextlib import contextmanager
from pathlib import Path
from typing import Callable, ClassVar, ContextManager, Dict, Iterator

from tests.faults.failing import loop_disk, small_filesystem

from ._base import Outcome
from .apart import ApartFamily
from .workbench import Workbench

SIZE_MIB = 48
#: Written before each fault, so that the incremental needs about as much.
DATA_BYTES = 768 * 1024
#: More than an incremental needs: beyond it nothing fails.
ENOUGH_BYTES = 1024 * 1024
#: An incremental makes about so many files at once.
ENOUGH_INODES = 6
PLENTY_INODES = 10_000

Limit = Callable[[Workbench, Path], ContextManager[None]]


class Enospc(ApartFamily):
    """Half on tmpfs, half on ext4. What was limited is given back, and the next backup needs no help."""

    NAME: ClassVar[str] = "enospc"
    FULL: ClassVar[int] = 30
    SHORT: ClassVar[int] = 4

    def inside(self, base: Path, seed: int, count: int) -> Outcome:
        outcome = Outcome()
        half = count // 2
        bench = Workbench(seed)
        with _closing(bench, outcome), small_filesystem(_mountpoint(bench), SIZE_MIB):
            _round(bench, outcome, {"bytes": _bytes, "inodes": _inodes}, count - half)
        bench = Workbench(seed + 1)
        with _closing(bench, outcome), loop_disk(bench.directory / "image", _mountpoint(bench), SIZE_MIB):
            _round(bench, outcome, {"bytes": _bytes, "file length": _length}, half)
        return outcome


def _round(bench: Workbench, outcome: Outcome, limits: Dict[str, Limit], count: int) -> None:
    bench.initialise().chain(1)
    names = sorted(limits)
    hit = 0
    for number in range(3 * count):
        if hit == count:
            return
        name = names[number % len(names)]
        hit += _fault(bench, outcome, name, limits[name])


def _fault(bench: Workbench, outcome: Outcome, name: str, limit: Limit) -> bool:
    """One backup under a limit, what it left, and the next one; whether the limit was reached."""
    outcome.attempted += 1
    disk = bench.disks[0]
    disk.fill(bench.random.randrange(1, 256), bench.random.randrange((disk.size - DATA_BYTES) // 4096) * 4096, DATA_BYTES)
    before = bench.renew()
    for each in bench.disks:
        each.sha256()  # now, because it needs space, too
    with limit(bench, Path(bench.site.repository)):
        attempt = bench.backup()
        found = bench.remains(attempt, before)
    outcome.hit += not attempt.ok
    found += bench.goes_on(attempt)
    outcome.judge([f"{text} (limit of {name}, {attempt.code})" for text in found])
    return not attempt.ok


@contextmanager
def _bytes(bench: Workbench, where: Path) -> Iterator[None]:
    """Fill the storage so that a random number of bytes is left."""
    filler, left = where / "filler", bench.random.randrange(ENOUGH_BYTES)
    with open(filler, "wb") as stream:
        size, step = 0, os.statvfs(where).f_bfree * 4096
        while step >= 4096:  # no number of the file system says exactly what fits
            try:
                os.posix_fallocate(stream.fileno(), size, step)
                size += step
            except OSError:
                step = step // 8192 * 4096
        stream.truncate(max(0, size - left))
    try:
        yield
    finally:
        filler.unlink()


@contextmanager
def _inodes(bench: Workbench, where: Path) -> Iterator[None]:
    """Leave a random number of inodes."""
    used = os.statvfs(where)
    left = used.f_files - used.f_ffree + bench.random.randrange(ENOUGH_INODES)
    _remount(where, left)
    try:
        yield
    finally:
        _remount(where, PLENTY_INODES)


@contextmanager
def _length(bench: Workbench, where: Path) -> Iterator[None]:
    """Every process of the backup gets EFBIG, or the signal for it, beyond a random length of a file."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (bench.random.randrange(64 * 1024, DATA_BYTES), hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def _remount(where: Path, inodes: int) -> None:
    subprocess.run(["mount", "-o", f"remount,size={SIZE_MIB}m,nr_inodes={inodes}", str(where)], check=True)


def _mountpoint(bench: Workbench) -> Path:
    bench.site.repository = str(bench.directory / "mounted")
    return Path(bench.site.repository)


@contextmanager
def _closing(bench: Workbench, outcome: Outcome) -> Iterator[None]:
    try:
        yield
    finally:
        outcome.judge(bench.close())
