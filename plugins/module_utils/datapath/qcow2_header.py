# Copyright: (c) 2026, Sendense contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""An own, strict reader of qcow2 headers: an image is looked at here before any qemu tool may open it.

Whatever is not on the allow-list is refused: a hostile header can make qemu read other files or connect elsewhere.
"""

from __future__ import annotations

import os
import stat
import struct
from typing import Dict, NamedTuple, Union

from ..errors import ImageRejectedError

MAGIC = b"QFI\xfb"
_HEADER = struct.Struct(">4sIQIIQIIQQIIQQQQII")

# Incompatible features by bit; everything else, known or not, is refused.
_COMPRESSION_TYPE, _EXTENDED_L2 = 1 << 3, 1 << 4
_REFUSED_FEATURES = {0: "it was not closed cleanly", 1: "it is marked corrupt", 2: "its data is in another file"}
_AUTOCLEAR_BITMAPS = 1

_EXTENSION_BACKING_FORMAT = 0xE2792ACA
_ALLOWED_EXTENSIONS = {_EXTENSION_BACKING_FORMAT: "backing format", 0x6803F857: "feature names", 0x23852875: "bitmaps"}

_MAX_L1_BYTES = 32 << 20
_MAX_REFCOUNT_TABLE_BYTES = 8 << 20
_MAX_BACKING_NAME = 1023
#: Virtual bytes: beyond every disk that exists.
MAX_SIZE = 1 << 56

#: Accept any backing name: the caller looks at it, and opens the chain explicitly anyway.
ANY_BACKING = object()


class Qcow2Header(NamedTuple):
    """What a header says. Sizes in bytes."""

    size: int
    """Virtual."""
    cluster_size: int
    backing_file: str
    """Empty if there is none."""
    backing_format: str
    compression: str
    has_bitmaps: bool


class _Fields(NamedTuple):
    magic: bytes
    version: int
    backing_offset: int
    backing_length: int
    cluster_bits: int
    size: int
    crypt_method: int
    l1_entries: int
    l1_offset: int
    refcount_offset: int
    refcount_clusters: int
    snapshots: int
    snapshots_offset: int
    incompatible: int
    compatible: int
    autoclear: int
    refcount_order: int
    header_length: int


def read_qcow2_header(path: str, backing: Union[str, None, object] = ANY_BACKING) -> Qcow2Header:
    """Read and judge the header of an image.

    ``backing`` is the one relative name that the header must carry, None or "" if it must carry none. ImageRejectedError
    for everything that this product would not have written, and for a file that cannot be read.
    """
    start, file_size = _read_start(path)
    if len(start) < _HEADER.size:
        raise _rejected(path, "it is too short for a qcow2 header")
    fields = _Fields(*_HEADER.unpack_from(start))
    _check_fields(path, fields)
    _check_tables(path, fields, file_size)
    cluster = 1 << fields.cluster_bits
    compression = _compression(path, start, fields)
    extensions = _extensions(path, start[:cluster], fields)
    name = _backing_name(path, start[:cluster], fields)
    backing_format = extensions.get(_EXTENSION_BACKING_FORMAT, b"").decode("ascii", "replace")
    if backing is not ANY_BACKING and name != (backing or ""):
        raise _rejected(path, f"its backing file is {name!r} instead of {backing or ''!r}")
    if name and backing_format not in ("qcow2", "raw"):
        raise _rejected(path, f"the format of its backing file is {backing_format!r}, not stated as qcow2 or raw")
    return Qcow2Header(fields.size, cluster, name, backing_format, compression, bool(fields.autoclear & _AUTOCLEAR_BITMAPS))


def _read_start(path: str) -> "tuple[bytes, int]":
    try:
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK)
        try:
            status = os.fstat(fd)
            if not stat.S_ISREG(status.st_mode):
                raise _rejected(path, "it is not a regular file")
            return os.pread(fd, 1 << 21, 0), status.st_size  # the largest cluster: all header data lies in the first
        finally:
            os.close(fd)
    except OSError as exc:
        raise _rejected(path, f"it cannot be read: {exc.strerror}") from exc


def _check_fields(path: str, fields: _Fields) -> None:
    if fields.magic != MAGIC or fields.version != 3:
        raise _rejected(path, "it is not a qcow2 image of version 3")
    if not 9 <= fields.cluster_bits <= 21:
        raise _rejected(path, f"its clusters have 2^{fields.cluster_bits} bytes")
    if fields.crypt_method:
        raise _rejected(path, "it is encrypted")
    for bit, why in _REFUSED_FEATURES.items():
        if fields.incompatible & (1 << bit):
            raise _rejected(path, why)
    if fields.incompatible & ~(_COMPRESSION_TYPE | _EXTENDED_L2):
        raise _rejected(path, f"it has unknown features ({fields.incompatible:#x})")
    if fields.autoclear & ~_AUTOCLEAR_BITMAPS:
        raise _rejected(path, f"it has unknown autoclear features ({fields.autoclear:#x})")
    if fields.snapshots:
        raise _rejected(path, "it holds internal snapshots")
    if fields.refcount_order > 6:
        raise _rejected(path, "its reference counts are too wide")
    if not 104 <= fields.header_length <= 1 << fields.cluster_bits or fields.header_length % 8:
        raise _rejected(path, f"its header has {fields.header_length} bytes")
    if not 0 < fields.size <= MAX_SIZE or fields.size % 512:
        raise _rejected(path, f"its virtual size is {fields.size}")


def _check_tables(path: str, fields: _Fields, file_size: int) -> None:
    cluster = 1 << fields.cluster_bits
    entry = 16 if fields.incompatible & _EXTENDED_L2 else 8
    needed = -(-fields.size // (cluster * (cluster // entry)))
    if not needed <= fields.l1_entries <= _MAX_L1_BYTES // 8:
        raise _rejected(path, f"its L1 table has {fields.l1_entries} entries where {needed} are needed")
    if not 0 < fields.refcount_clusters * cluster <= _MAX_REFCOUNT_TABLE_BYTES:
        raise _rejected(path, f"its refcount table has {fields.refcount_clusters} clusters")
    tables = (
        ("L1 table", fields.l1_offset, fields.l1_entries * 8),
        ("refcount table", fields.refcount_offset, fields.refcount_clusters * cluster),
    )
    for name, offset, length in tables:
        if offset < cluster or offset % cluster:
            raise _rejected(path, f"its {name} is at {offset}")
        if offset + length > file_size:
            raise _rejected(path, f"its {name} lies beyond the end of the file: the file is cut off")


def _compression(path: str, start: bytes, fields: _Fields) -> str:
    kind = start[104] if fields.header_length >= 112 and len(start) > 104 else 0
    if kind > 1 or bool(kind) != bool(fields.incompatible & _COMPRESSION_TYPE):
        raise _rejected(path, f"its compression type is {kind}")
    return ("zlib", "zstd")[kind]


def _extensions(path: str, cluster: bytes, fields: _Fields) -> Dict[int, bytes]:
    """Header extensions by type; they end before the backing name."""
    found: Dict[int, bytes] = {}
    offset = fields.header_length
    limit = fields.backing_offset or len(cluster)
    while offset + 8 <= min(limit, len(cluster)):
        kind, length = struct.unpack_from(">II", cluster, offset)
        if kind == 0:
            return found
        if kind not in _ALLOWED_EXTENSIONS or kind in found:
            raise _rejected(path, f"it has the header extension {kind:#x}")
        if offset + 8 + length > limit:
            raise _rejected(path, "a header extension reaches beyond the header")
        found[kind] = cluster[offset + 8 : offset + 8 + length]
        offset += 8 + (length + 7) // 8 * 8
    return found


def _backing_name(path: str, cluster: bytes, fields: _Fields) -> str:
    if not fields.backing_offset:
        return ""
    end = fields.backing_offset + fields.backing_length
    if fields.backing_offset < fields.header_length or end > len(cluster) or not 0 < fields.backing_length <= _MAX_BACKING_NAME:
        raise _rejected(path, "the name of its backing file does not lie in the header")
    try:
        return cluster[fields.backing_offset : end].decode("utf-8")
    except UnicodeDecodeError:
        raise _rejected(path, "the name of its backing file is not UTF-8") from None


def _rejected(path: str, why: str) -> ImageRejectedError:
    return ImageRejectedError(
        f"The image {path!r} is refused: {why}. It was not opened; verify the repository or restore from another point.",
        details={"path": path, "reason": why},
    )
