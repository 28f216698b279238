# Copyright: (c) 2026, Sendense contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Export servers: how ``qemu-nbd`` is called for one disk, and what every export must prove before it is used."""

from __future__ import annotations

import errno
import json
import mmap
import os
import time
from typing import Any, Dict, Iterator, List, Optional, Tuple

from ..errors import ExportFailedError, InvalidInputError
from .native_aio import has_room
from .nbd_handle import EXPORT, NbdConnection
from .targets import MAX_EXPORT_BYTES, MAX_SOCKET_BYTES, NbdTarget, parse_uri

#: Clients that one server admits: mover, verifier, a person who looks, and room for reconnections.
CLIENTS = 10
#: Bounded glibc tuning: a third less CPU per GiB in the server for at most 16 MiB more memory each.
MALLOC_ENV = {
    "MALLOC_MMAP_THRESHOLD_": str(8 << 20),
    "MALLOC_TRIM_THRESHOLD_": str(16 << 20),
    "MALLOC_ARENA_MAX": "1",
}
#: Seconds in which a server that does not listen yet may begin to.
READY_SECONDS = 5.0

_DRIVERS = ("qcow2", "raw", "file", "host_device", "compress")
_CACHE = ("none", "writeback", "writethrough", "directsync", "unsafe")
_AIO = ("threads", "native", "io_uring")
_DIRECT_BYTES = 4096


def export_argv(
    node: Dict[str, Any],
    *,
    export: str,
    port: Optional[int] = None,
    socket: Optional[str] = None,
    writable: bool = False,
    bitmap: Optional[str] = None,
    cache: Optional[str] = None,
    aio: Optional[str] = None,
    clients: int = CLIENTS,
) -> Tuple[List[str], Dict[str, str]]:
    """The command line and the added environment of a server for one block node.

    ``node`` names the driver of every layer explicitly (nothing is probed). The server listens on ``port`` of 127.0.0.1 or
    on the unix ``socket``. ``bitmap`` is offered as ``qemu:dirty-bitmap:<bitmap>``. Without ``cache`` and ``aio`` the page
    cache is bypassed where all files of the chain allow it, by native AIO as long as the kernel has room for it. InvalidInputError
    for anything that is not exactly right.
    """
    _check_node(node)
    if cache is None:
        direct = all(supports_direct(path) for path in node_files(node)) and not _has_odd_tail(node)
        cache = "none" if direct else "writeback"
    if aio is None:
        aio = "native" if cache in ("none", "directsync") and has_room() else "threads"
    _check_words(export, bitmap, cache, aio, clients)
    argv = ["qemu-nbd", "--persistent", f"--shared={clients}", f"--export-name={export}", f"--cache={cache}", f"--aio={aio}"]
    argv += _listen(port, socket)
    # The order matters: detect-zeroes=unmap is refused before discard=unmap.
    argv += ["--discard=unmap", "--detect-zeroes=unmap"] if writable else ["--read-only"]
    if bitmap:
        argv.append(f"--bitmap={bitmap}")
    argv.append("json:" + json.dumps(node, sort_keys=True))
    return argv, dict(MALLOC_ENV)


def node_files(node: Dict[str, Any]) -> Iterator[str]:
    """The files of all layers of a block node."""
    if "filename" in node:
        yield node["filename"]
    for child in ("file", "backing"):
        if node.get(child):
            yield from node_files(node[child])


def supports_direct(path: str) -> bool:
    """Whether the file system of this file serves reads that bypass the page cache. OSError if the file is unreadable."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_DIRECT | os.O_CLOEXEC)
    except OSError as error:
        if error.errno == errno.EINVAL:
            return False
        raise
    try:
        with mmap.mmap(-1, _DIRECT_BYTES) as page:  # anonymous pages are aligned as direct reads demand
            os.preadv(descriptor, [page], 0)
    except OSError as error:
        if error.errno == errno.EINVAL:
            return False
        raise
    finally:
        os.close(descriptor)
    return True


def _size(path: str) -> int:
    """Bytes of a file; 0 for what is not there, which the server itself will say best."""
    try:
        return os.stat(path).st_size
    except OSError:
        return 0


def _has_odd_tail(node: Dict[str, Any]) -> bool:
    """Whether a raw layer ends inside a page: qemu cannot write such a disk past the page cache."""
    below = [node[child] for child in ("file", "backing") if node.get(child)]
    odd = node["driver"] == "raw" and any(_size(path) % _DIRECT_BYTES for path in node_files(node))
    return odd or any(_has_odd_tail(child) for child in below)


def _check_node(node: Dict[str, Any]) -> None:
    if not isinstance(node, dict) or node.get("driver") not in _DRIVERS:
        raise InvalidInputError(f"Block node is refused: every layer must name its driver, one of {', '.join(_DRIVERS)}.")
    if node["driver"] in ("file", "host_device"):
        name = node.get("filename")
        if not isinstance(name, str) or not name.startswith("/") or "\0" in name or not _is_text(name):
            raise InvalidInputError(f"Block node is refused: file name {ascii(name)} is not an absolute path in UTF-8.")
        return
    _check_node(node.get("file") or {})
    if node["driver"] == "qcow2" and "backing" not in node:
        raise InvalidInputError(
            "Block node is refused: a qcow2 layer must say its backing explicitly (null for none), or qemu would follow its header."
        )
    if node.get("backing") is not None:
        _check_node(node["backing"])


def _check_words(export: str, bitmap: Optional[str], cache: str, aio: str, clients: int) -> None:
    for what, name in (("Export", export), ("Bitmap", bitmap if bitmap is not None else "-")):
        if not name or "\0" in name or not _is_text(name) or len(name.encode("utf-8")) > MAX_EXPORT_BYTES:
            raise InvalidInputError(f"{what} name {ascii(name)[:80]} is refused: 1 to {MAX_EXPORT_BYTES} bytes of UTF-8 are needed.")
    if cache not in _CACHE or aio not in _AIO:
        raise InvalidInputError(f"Cache {cache!r} with aio {aio!r} is refused: use one of {', '.join(_CACHE)} and {', '.join(_AIO)}.")
    if aio == "native" and cache not in ("none", "directsync"):
        raise InvalidInputError(f"Cache {cache!r} is refused with aio native: the kernel's own queue needs direct I/O (none, directsync).")
    if clients < 1:
        raise InvalidInputError(f"{clients} clients are refused: an export must admit at least one.")


def _listen(port: Optional[int], socket: Optional[str]) -> List[str]:
    if (port is None) == (socket is None):
        raise InvalidInputError("An export listens on exactly one of port and socket.")
    if port is not None:
        if not isinstance(port, int) or not 1 <= port <= 65535:
            raise InvalidInputError(f"Port {port!r} is refused: it must be a number from 1 to 65535.")
        return ["--bind=127.0.0.1", f"--port={port}"]
    path = str(socket)
    if not path.startswith("/") or "\0" in path or len(os.fsencode(path)) > MAX_SOCKET_BYTES:
        raise InvalidInputError(f"Socket {ascii(path)} is refused: it must be an absolute path of at most {MAX_SOCKET_BYTES} bytes.")
    return [f"--socket={path}"]


def _is_text(name: str) -> bool:
    try:
        name.encode("utf-8")
    except UnicodeEncodeError:
        return False
    return True


def check_export(uri: str, size_bytes: int, connections: int = 2, timeout_s: float = 5.0, ready_s: float = READY_SECONDS) -> None:
    """Prove that the export exists under its name, has this size, and serves so many clients at the same time.

    A server has ``ready_s`` seconds to begin to listen, and ``timeout_s`` seconds to greet each client; so a server that
    admits too few clients is refused and never a hang. ExportFailedError, InvalidInputError (bad URI).
    """
    target = parse_uri(uri)
    opened: List[NbdConnection] = []
    try:
        opened.append(_open_when_ready(target, timeout_s, ready_s))
        while len(opened) < connections:
            opened.append(_open_another(target, len(opened), timeout_s))
        for connection in opened:
            if connection.size != size_bytes:
                raise ExportFailedError(
                    f"Export {uri} has {connection.size} bytes and {size_bytes} were expected: it serves another disk, or the disk "
                    "was resized. Run the job again; if it stays, compare the machine's disks with its exports.",
                    details={"uri": uri, "size_bytes": connection.size, "expected_bytes": size_bytes},
                )
    finally:
        for connection in opened:
            connection.close()


def _open_when_ready(target: NbdTarget, timeout_s: float, ready_s: float) -> NbdConnection:
    deadline = time.monotonic() + ready_s
    pause = 0.01
    while True:
        try:
            return NbdConnection.open(target, role=EXPORT, timeout_s=timeout_s)
        except ExportFailedError as error:
            reason = str(error.details.get("reason"))
            # "No such file" is also what a server says of an unknown export name; that one does not get better.
            absent = any(f"connect: {os.strerror(code)}" in reason for code in (errno.ECONNREFUSED, errno.ENOENT))
            if not absent or time.monotonic() >= deadline:
                raise
        time.sleep(pause)
        pause = min(pause * 2, 0.2)


def _open_another(target: NbdTarget, admitted: int, timeout_s: float) -> NbdConnection:
    try:
        return NbdConnection.open(target, role=EXPORT, timeout_s=timeout_s)
    except ExportFailedError as error:
        raise ExportFailedError(
            f"Export {target.uri()} admits only {admitted} client{'s' if admitted > 1 else ''} at the same time, so it cannot be "
            "checked or resumed while it is copied. Start its server with more (qemu-nbd --shared=10).",
            details=dict(error.details, admitted=admitted),
        ) from error
