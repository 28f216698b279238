# Copyright: (c) 2026, Sendense contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The disk that is copied: random data, written zeros and holes in pieces of 64 KiB to 4 MiB, as disks of real machines are.

It is written through qemu-nbd into the qcow2 file, so that written zeros are allocated clusters, as a guest leaves them.
"""

from __future__ import annotations

import os
import random
import subprocess
import tempfile
import time
from contextlib import contextmanager
from pathlib import Path
from typing import Iterator, List, NamedTuple

import nbd

BLOCK = 65536
MIB = 1 << 20
GIB = 1 << 30
DATA, ZEROS, HOLE = "data", "zeros", "hole"
#: Shares of the disk.
SHARES = {DATA: 0.50, ZEROS: 0.24, HOLE: 0.26}


class Piece(NamedTuple):
    """A range of the disk in bytes, all of one kind."""

    offset: int
    length: int
    kind: str


def layout(size: int, seed: int = 1, largest: int = 4 * MIB) -> List[Piece]:
    """Pieces that cover the disk. The kind that lacks most of its share comes more often, so that the shares are met closely."""
    source = random.Random(seed)
    left = {kind: share * size for kind, share in SHARES.items()}
    pieces: List[Piece] = []
    offset = 0
    while offset < size:
        length = min(source.randrange(BLOCK, largest + 1, BLOCK), size - offset)
        kind = source.choices(list(left), [max(1.0, rest) for rest in left.values()])[0]
        left[kind] -= length
        pieces.append(Piece(offset, length, kind))
        offset += length
    return pieces


def data_bytes(pieces: List[Piece]) -> int:
    """Bytes that are neither zero nor hole: what all rates and CPU seconds are related to."""
    return sum(piece.length for piece in pieces if piece.kind == DATA)


def scattered(pieces: List[Piece], share: float = 0.05, seed: int = 2) -> List[Piece]:
    """Ranges of 64 KiB to 1 MiB, all over the disk, that together are this share of it and do not overlap."""
    size = pieces[-1].offset + pieces[-1].length
    source = random.Random(seed)
    wanted = int(size * share)
    slots = list(range(size // MIB))
    source.shuffle(slots)
    found: List[Piece] = []
    while wanted > 0:
        length = min(source.randrange(BLOCK, MIB + 1, BLOCK), -(-wanted // BLOCK) * BLOCK)
        found.append(Piece(slots.pop() * MIB, length, DATA))
        wanted -= length
    return sorted(found)


@contextmanager
def served(path: Path, *options: str) -> Iterator[str]:
    """The image, served writable by qemu-nbd with these options; its unix socket. The file is complete afterwards."""
    with tempfile.TemporaryDirectory(prefix="sb-") as directory:
        socket = os.path.join(directory, "s")
        server = subprocess.Popen(["qemu-nbd", "--persistent", f"--socket={socket}", "--format=qcow2", *options, "--", str(path)])
        try:
            deadline = time.monotonic() + 10
            while not os.path.exists(socket):
                if server.poll() is not None or time.monotonic() > deadline:
                    raise RuntimeError(f"qemu-nbd does not serve {path}: exit code {server.poll()}")
                time.sleep(0.01)
            yield socket
        finally:
            server.terminate()
            code = server.wait(60)
        if code != 0:
            raise RuntimeError(f"qemu-nbd of {path} ended with {code}")


def fill(path: Path, pieces: List[Piece]) -> None:
    """Write the pieces into a fresh image."""
    with served(path) as socket:
        handle = nbd.NBD()
        handle.connect_unix(socket)
        for piece in pieces:
            if piece.kind != HOLE:
                handle.pwrite(os.urandom(piece.length) if piece.kind == DATA else bytes(piece.length), piece.offset)
        handle.flush()
        handle.shutdown()
