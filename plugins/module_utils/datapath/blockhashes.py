# Copyright: (c) 2026, Sendense contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The hash file beside each disk: which blocks a point holds, and the digest of each.

Layout, big endian: header (64 bytes), run table (per run: first block and count, 8 bytes each), one digest per held block
in ascending order, SHA-256 over all that precedes it. See ``hashing`` for what a digest of zeros means. Files are written
beside their final name and renamed when complete; a file that is not exactly what was written is refused.
"""

from __future__ import annotations

import hashlib
import mmap
import os
import struct
from bisect import bisect_right
from typing import Any, Iterable, Iterator, List, NamedTuple, Sequence, Tuple

from ..errors import CopyFailedError, PointDamagedError, SendenseError
from .extents import Run, block_count
from .hashing import BLOCK_BYTES, DIGEST_SIZES, digest_size

MAGIC, VERSION = b"SNDNHASH", 1
FULL, INCREMENTAL = "full", "incremental"

_HEADER = struct.Struct(">8sHHIQB7xQQ16s")
_RUN = struct.Struct(">QQ")
_TRAILER_BYTES = 32
_LEVELS = (FULL, INCREMENTAL)


class HashHeader(NamedTuple):
    """What a hash file says about itself. Sizes in bytes."""

    algorithm: str
    digest_size: int
    block_size: int
    disk_size: int
    level: str
    run_count: int
    block_count: int

    def pack(self) -> bytes:
        """The 64 bytes at the start of the file."""
        return _HEADER.pack(
            MAGIC, VERSION, self.digest_size, self.block_size, self.disk_size, _LEVELS.index(self.level),
            self.run_count, self.block_count, self.algorithm.encode("ascii"),
        )  # fmt: skip

    @property
    def digests_at(self) -> int:
        """Offset of the first digest."""
        return _HEADER.size + self.run_count * _RUN.size

    @property
    def file_size(self) -> int:
        """Bytes of the whole file."""
        return self.digests_at + self.block_count * self.digest_size + _TRAILER_BYTES


class BlockHashWriter:
    """Writes one hash file whose held blocks are known beforehand; digests may come in any order.

    A block that is never put is missing and makes :meth:`finish` fail: a hash file cannot be silently incomplete.
    """

    def __init__(self, path: str, algorithm: str, disk_size: int, level: str, runs: Sequence[Run]) -> None:
        blocks = sum(run.blocks for run in runs)
        self.path = path
        self.header = HashHeader(algorithm, digest_size(algorithm), BLOCK_BYTES, disk_size, level, len(runs), blocks)
        self._partial = path + ".partial"
        self._filled = bytearray(blocks)
        self._content = self.header.file_size - _TRAILER_BYTES
        self._ended = False
        try:
            self._fd = os.open(self._partial, os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
            # Space is reserved now: a full file system must be an error here, not a SIGBUS at some digest.
            os.posix_fallocate(self._fd, 0, self.header.file_size)
            self._map = mmap.mmap(self._fd, self.header.file_size)
        except OSError as exc:
            raise self._failed(exc) from exc
        table = b"".join(_RUN.pack(run.first, run.blocks) for run in runs)
        self._map[: self.header.digests_at] = self.header.pack() + table

    def put(self, position: int, digests: bytes) -> None:
        """Store the digests of consecutive held blocks; ``position`` counts held blocks from 0."""
        count = len(digests) // self.header.digest_size
        end = position + count
        if position < 0 or end > len(self._filled) or any(self._filled[position:end]):
            raise CopyFailedError(f"Block {position} of {self.path!r} was hashed twice or is not held. This is a defect.")
        self._filled[position:end] = b"\x01" * count
        start = self.header.digests_at + position * self.header.digest_size
        self._map[start : start + len(digests)] = digests

    def put_zeros(self, position: int, count: int) -> None:
        """Store that so many consecutive held blocks are zeros."""
        self.put(position, bytes(count * self.header.digest_size))

    def finish(self) -> str:
        """Seal the file, make it durable and give it its name, which is returned. CopyFailedError if blocks are missing."""
        missing = self._filled.count(0)
        if missing:
            raise CopyFailedError(f"{missing} of the blocks of {self.path!r} were never hashed. This is a defect.")
        try:
            with memoryview(self._map) as view:
                seal = hashlib.sha256(view[: self._content]).digest()
            self._map[self._content :] = seal
            self._map.flush()
            self._map.close()
            self._ended = True
            os.fsync(self._fd)
            os.close(self._fd)
            os.replace(self._partial, self.path)
            _sync_directory(self.path)
        except OSError as exc:
            raise self._failed(exc) from exc
        return self.path

    def abort(self) -> None:
        """Drop the unfinished file. Repetition is a no-op."""
        if self._ended:
            return
        self._ended = True
        self._map.close()
        os.close(self._fd)
        if os.path.exists(self._partial):
            os.unlink(self._partial)

    def _failed(self, exc: OSError) -> SendenseError:
        return CopyFailedError(
            f"Cannot write the hash file {self.path!r}: {exc.strerror}. Free space in its directory, then run again.",
            details={"path": self.path, "errno": exc.errno},
        )


class BlockHashFile:
    """One hash file, opened and completely validated. A context manager. PointDamagedError if anything is not right."""

    def __init__(self, path: str) -> None:
        self.path = path
        self._data = self._read()
        self.header = self._parse_header()
        if len(self._data) != self.header.file_size:
            raise self._damaged(f"it has {len(self._data)} bytes instead of {self.header.file_size}")
        with memoryview(self._data) as view:
            if hashlib.sha256(view[:-_TRAILER_BYTES]).digest() != view[-_TRAILER_BYTES:]:
                raise self._damaged("its checksum does not match")
        self.runs = self._parse_runs()
        self._starts: List[int] = []
        position = 0
        for run in self.runs:
            self._starts.append(position)
            position += run.blocks

    def _read(self) -> Any:
        try:
            fd = os.open(self.path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
            try:
                if os.fstat(fd).st_size < _HEADER.size + _TRAILER_BYTES:
                    raise self._damaged("it is shorter than its header")
                return mmap.mmap(fd, 0, access=mmap.ACCESS_READ)
            finally:
                os.close(fd)
        except OSError as exc:
            raise self._damaged(str(exc.strerror)) from exc

    def _parse_header(self) -> HashHeader:
        magic, version, size, block, disk, level, runs, blocks, name = _HEADER.unpack(self._data[: _HEADER.size])
        algorithm = name.rstrip(b"\0").decode("ascii", "replace")
        if magic != MAGIC or version != VERSION:
            raise self._damaged("it is not a hash file of a known version")
        if DIGEST_SIZES.get(algorithm) != size or block != BLOCK_BYTES or level >= len(_LEVELS):
            raise self._damaged("its header names an unknown algorithm, block size or level")
        if blocks > block_count(disk) or runs > blocks:
            raise self._damaged("its header counts more blocks than the disk has")
        return HashHeader(algorithm, size, block, disk, _LEVELS[level], runs, blocks)

    def _parse_runs(self) -> List[Run]:
        table = self._data[_HEADER.size : self.header.digests_at]
        runs = [Run(first, count) for first, count in _RUN.iter_unpack(table)]
        end = 0
        for run in runs:
            if run.first < end or run.blocks < 1:
                raise self._damaged("its runs are not ascending")
            end = run.first + run.blocks
        if end > block_count(self.header.disk_size) or sum(run.blocks for run in runs) != self.header.block_count:
            raise self._damaged("its runs do not fit the disk")
        return runs

    def _damaged(self, why: str) -> PointDamagedError:
        return PointDamagedError(
            f"The block hashes {self.path!r} cannot be used: {why}. Verify the repository; the next backup will be full.",
            details={"path": self.path, "reason": why},
        )

    def digests(self, position: int, count: int) -> bytes:
        """The digests of ``count`` held blocks from the ``position``-th held block on."""
        size = self.header.digest_size
        start = self.header.digests_at + position * size
        return bytes(self._data[start : start + count * size])

    def run_digests(self) -> Iterator[Tuple[Run, bytes]]:
        """Every run with the digests of its blocks."""
        for run, position in zip(self.runs, self._starts):
            yield run, self.digests(position, run.blocks)

    def held(self) -> Iterator[Tuple[int, bytes]]:
        """(block number, digest) of every held block, ascending."""
        size = self.header.digest_size
        for run, digests in self.run_digests():
            for index in range(run.blocks):
                yield run.first + index, digests[index * size : (index + 1) * size]

    def holds(self, block: int) -> bool:
        """Whether this point holds the block itself."""
        index = bisect_right(self.runs, Run(block, 1 << 64)) - 1
        return index >= 0 and block < self.runs[index].first + self.runs[index].blocks

    def close(self) -> None:
        """Release the file. Repetition is a no-op."""
        self._data.close()

    def __enter__(self) -> "BlockHashFile":
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()


class BlockMap:
    """The digest of every block of a disk as seen through a chain. What no layer holds is zero."""

    def __init__(self, header: HashHeader) -> None:
        self.algorithm = header.algorithm
        self.digest_size = header.digest_size
        self.block_size = header.block_size
        self.disk_size = header.disk_size
        self.block_count = block_count(header.disk_size)
        # Private anonymous memory: blocks that no layer holds cost nothing until they are written.
        length = max(1, self.block_count * self.digest_size)
        self._array = mmap.mmap(-1, length, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)

    def apply(self, layer: BlockHashFile) -> None:
        """Lay a newer point over what is known."""
        for run, digests in layer.run_digests():
            start = run.first * self.digest_size
            self._array[start : start + len(digests)] = digests

    def digest(self, block: int) -> bytes:
        """The digest of one block."""
        return self.digests(block, 1)

    def digests(self, block: int, count: int) -> bytes:
        """The digests of consecutive blocks."""
        return bytes(self._array[block * self.digest_size : (block + count) * self.digest_size])

    def root(self) -> str:
        """The identity of the disk's content: hex SHA-256 over block size, disk size, algorithm and all digests.

        Equal content has an equal root however it is spread over layers.
        """
        head = f"sendense-root-1\n{self.block_size}\n{self.disk_size}\n{self.algorithm}\n".encode("ascii")
        total = hashlib.sha256(head)
        with memoryview(self._array) as view:
            total.update(view[: self.block_count * self.digest_size])
        return total.hexdigest()


def compose(layers: Sequence[BlockHashFile]) -> BlockMap:
    """Lay the points of a chain over each other, oldest first. PointDamagedError unless they form one chain."""
    if not layers or layers[0].header.level != FULL:
        raise PointDamagedError("The chain of block hashes does not begin with a full backup.")
    result = BlockMap(layers[0].header)
    for position, layer in enumerate(layers):
        _require_link(result, layer, position)
        result.apply(layer)
    return result


def union(runs: Iterable[Run]) -> List[Run]:
    """The blocks that any of these runs holds, as ascending runs that do not touch each other."""
    found: List[Run] = []
    for run in sorted(runs):
        last = found[-1] if found else None
        if last is not None and run.first <= last.first + last.blocks:
            found[-1] = Run(last.first, max(last.first + last.blocks, run.first + run.blocks) - last.first)
        else:
            found.append(run)
    return found


def write_merged(layers: Sequence[BlockHashFile], path: str) -> str:
    """Write one hash file that stands for neighbouring layers of a chain, oldest first; ``path``. It has the level of the oldest.

    PointDamagedError unless they are neighbours of one chain; CopyFailedError if the file cannot be written.
    """
    header = layers[0].header
    blocks = BlockMap(header)
    for position, layer in enumerate(layers):
        _require_link(blocks, layer, position)
        blocks.apply(layer)
    held = union(run for layer in layers for run in layer.runs)
    writer = BlockHashWriter(path, header.algorithm, header.disk_size, header.level, held)
    try:
        position = 0
        for run in held:
            writer.put(position, blocks.digests(run.first, run.blocks))
            position += run.blocks
        return writer.finish()
    finally:
        writer.abort()


def _require_link(blocks: BlockMap, layer: BlockHashFile, position: int) -> None:
    same = layer.header.algorithm == blocks.algorithm and layer.header.disk_size == blocks.disk_size
    if not same or (position > 0 and layer.header.level != INCREMENTAL):
        raise PointDamagedError(
            f"The block hashes {layer.path!r} do not belong to this chain: another size, algorithm or level.",
            details={"path": layer.path},
        )


def _sync_directory(path: str) -> None:
    fd = os.open(os.path.dirname(os.path.abspath(path)), os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)
