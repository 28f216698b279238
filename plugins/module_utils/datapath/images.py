# Copyright: (c) 2026, Sendense contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Disk images: created, described and mapped with every format and every link of a chain stated, never probed.

A node is the dictionary of qemu's ``blockdev`` options. The base of a chain carries ``"backing": None``, so that qemu
never follows a name in a header.
"""

from __future__ import annotations

import errno
import json
import os
import re
import subprocess
import tempfile
from contextlib import ExitStack, suppress
from typing import Any, Dict, Iterator, List, Optional, Sequence

from ..errors import (
    DependencyMissingError,
    ImageRejectedError,
    InvalidInputError,
    MachineExistsError,
    RepositoryFullError,
    RepositoryIoError,
)
from .extents import Extent
from .qcow2_header import ANY_BACKING, MAX_SIZE, Qcow2Header, read_qcow2_header

SECTOR_BYTES = 512
CLUSTER_BYTES = 65536

_CREATE_SECONDS, _MAP_SECONDS = 60, 600
_SAFE_RELATIVE = re.compile(r"(?:\.\./)*(?:[A-Za-z0-9_][A-Za-z0-9._-]*/)*[A-Za-z0-9_][A-Za-z0-9._-]*")


def qcow2_node(path: str, backing: Optional[Dict[str, Any]] = None, *, cache_direct: bool = False, aio: str = "") -> Dict[str, Any]:
    """The block node of a qcow2 image over ``backing`` (another node), or standing alone."""
    below = None if backing is None else {**backing, "read-only": True}
    return {"driver": "qcow2", "file": _file(path, cache_direct, aio), "backing": below}


def raw_node(path: str, *, cache_direct: bool = False, aio: str = "") -> Dict[str, Any]:
    """The block node of a raw image. Stays raw whatever its content looks like."""
    return {"driver": "raw", "file": _file(path, cache_direct, aio)}


def node_filename(node: Dict[str, Any]) -> str:
    """The node as one argument for a qemu tool."""
    return "json:" + json.dumps(node)


def node_paths(node: Dict[str, Any]) -> List[str]:
    """The files of a chain, top first."""
    paths = [str(node["file"]["filename"])]
    return paths + (node_paths(node["backing"]) if node.get("backing") else [])


def create_qcow2(path: str, size: int, backing: Optional[str] = None, *, backing_format: str = "qcow2") -> Qcow2Header:
    """Create an empty image of exactly ``size`` bytes; ``backing`` is kept in the header as the relative name it is.

    InvalidInputError, MachineExistsError if the file exists, RepositoryFullError, RepositoryIoError, DependencyMissingError.
    On error no file is left.
    """
    _check_size(size)
    argv = ["qemu-img", "create", "-q", "-f", "qcow2", "-o", f"compat=1.1,cluster_size={CLUSTER_BYTES}"]
    if backing is not None:
        if not _SAFE_RELATIVE.fullmatch(backing) or len(backing) > 1023:
            raise InvalidInputError(f"The backing file {ascii(backing)} is not a plain relative name.")
        # -u: qemu must not open the parent, whose header it would follow; the caller has judged the parent already.
        argv += ["-u", "-b", backing, "-F", backing_format]
    _claim(path)
    with ExitStack() as undo:
        undo.callback(_remove, path)
        _run(argv + [os.path.abspath(path), str(size)], path, _CREATE_SECONDS)
        header = read_qcow2_header(path, backing)
        if header.size != size:
            raise ImageRejectedError(f"{path!r} was created with {header.size} bytes instead of {size}.")
        undo.pop_all()
    return header


def _remove(path: str) -> None:
    with suppress(OSError):  # qemu-img may have removed it, and the failure before is the news
        os.unlink(path)


def create_raw(path: str, size: int) -> None:
    """Create a sparse raw image. MachineExistsError if the file exists, RepositoryIoError; on error no file is left."""
    _check_size(size)
    _claim(path)
    try:
        os.truncate(path, size)
    except OSError as exc:
        os.unlink(path)
        raise RepositoryIoError(f"Cannot create {path!r}: {exc.strerror}.", details={"path": path}) from exc


def allocated_ranges(path: str) -> List[Extent]:
    """What the image itself holds, without its backing file: data, or (``zero``) written zeros. Ascending.

    Errors as of :func:`each_allocated`.
    """
    extents: List[Extent] = []
    for extent in each_allocated(path):
        last = extents[-1] if extents else None
        if last is not None and last.offset + last.length == extent.offset and last[2:] == extent[2:]:
            extents[-1] = last._replace(length=last.length + extent.length)
        else:
            extents.append(extent)
    return extents


def each_allocated(path: str) -> Iterator[Extent]:
    """As :func:`allocated_ranges`, piece by piece as they lie in the file: a large image in disorder has millions of them.

    ImageRejectedError if its header is not acceptable, RepositoryIoError if it cannot be mapped.
    """
    read_qcow2_header(path)
    argv = ["qemu-img", "map", "--output=json", node_filename(qcow2_node(os.path.abspath(path)))]
    with tempfile.TemporaryFile("w+", encoding="ascii") as found:
        _run(argv, path, _MAP_SECONDS, found)
        found.seek(0)
        for line in found:  # of which each has one object of the array
            item = json.loads(line.strip().strip("[],") or "{}")
            if item.get("present"):
                yield Extent(int(item["start"]), int(item["length"]), bool(item["data"]), bool(item["zero"]))


def _file(path: str, cache_direct: bool, aio: str) -> Dict[str, Any]:
    node: Dict[str, Any] = {"driver": "file", "filename": path}
    if cache_direct:
        node["cache"] = {"direct": True, "no-flush": False}
    if aio:
        node["aio"] = aio
    return node


def _check_size(size: int) -> None:
    if not 0 < size <= MAX_SIZE or size % SECTOR_BYTES:
        raise InvalidInputError(
            f"An image cannot have {size} bytes: the size must be a multiple of {SECTOR_BYTES} from {SECTOR_BYTES} to {MAX_SIZE}."
        )


def _claim(path: str) -> None:
    """Make the file ours: never overwrite, never follow a link."""
    try:
        os.close(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600))
    except FileExistsError:
        raise MachineExistsError(f"The file {path!r} exists and is not overwritten.", details={"path": path}) from None
    except OSError as exc:
        raise RepositoryIoError(f"Cannot create {path!r}: {exc.strerror}.", details={"path": path}) from exc


def _run(argv: Sequence[str], path: str, timeout_s: int, output: Any = subprocess.DEVNULL) -> None:
    directory = os.path.dirname(os.path.abspath(path))
    try:
        done = subprocess.run(
            list(argv), cwd=directory, stdin=subprocess.DEVNULL, stdout=output, stderr=subprocess.PIPE, timeout=timeout_s, check=False
        )
    except FileNotFoundError:
        raise DependencyMissingError(f"{argv[0]} is not installed here. Install qemu-utils.") from None
    except subprocess.TimeoutExpired:
        raise RepositoryIoError(f"{argv[0]} did not end within {timeout_s} s on {path!r}.", details={"path": path}) from None
    if done.returncode:
        reason = done.stderr.decode("utf-8", "replace").strip()[-500:] or f"exit code {done.returncode}"
        details = {"path": path, "stderr": reason}
        if os.strerror(errno.ENOSPC) in reason:
            raise RepositoryFullError(f"{argv[0]} {argv[1]} failed on {path!r}: the storage is full. Free space.", details=details)
        raise RepositoryIoError(f"{argv[0]} {argv[1]} failed on {path!r}: {reason}", details=details)


__all__ = [
    "ANY_BACKING",
    "Qcow2Header",
    "allocated_ranges",
    "create_qcow2",
    "create_raw",
    "each_allocated",
    "node_filename",
    "node_paths",
    "qcow2_node",
    "raw_node",
    "read_qcow2_header",
]
