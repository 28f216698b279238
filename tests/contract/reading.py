# Copyright: (c) 2026, Sendense contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Reading and writing what a connector offers, with libnbd and with nothing of the product's own data path."""

from __future__ import annotations

import os
import subprocess
from contextlib import ExitStack, contextmanager
from typing import Any, Dict, Iterator, List, Tuple

import nbd

from ansible_collections.sendense.platform.plugins.module_utils.datapath.exports import export_argv
from ansible_collections.sendense.platform.plugins.module_utils.datapath.ssh_route import ENVIRONMENT, SshRoute, await_forward, forward_argv
from ansible_collections.sendense.platform.plugins.module_utils.platforms._base import INCREMENTAL, DiskSnapshot, Forward, Snapshot
from tests.doubles.nbd_server import await_greeting, stop

_CHUNK = 1 << 20


@contextmanager
def connected(uri: str, context: str = "") -> Iterator[Any]:
    """A libnbd handle, with a meta context negotiated if one is named."""
    handle = nbd.NBD()
    try:
        if context:
            handle.add_meta_context(context)
        handle.connect_uri(uri)
        yield handle
    finally:
        if handle.aio_is_ready():
            handle.shutdown()


def read_all(uri: str) -> bytes:
    """The whole content of an export."""
    with connected(uri) as handle:
        size = handle.get_size()
        return b"".join(bytes(handle.pread(min(_CHUNK, size - at), at)) for at in range(0, size, _CHUNK))


def changed_ranges(uri: str, context: str, flag: int) -> List[Tuple[int, int]]:
    """Offset and length of all ranges that the context marks as changed."""
    with connected(uri, context) as handle:
        assert handle.can_meta_context(context), f"{uri} does not offer {context}"
        size, at = handle.get_size(), 0
        found: List[Tuple[int, int]] = []
        while at < size:
            reply: List[int] = []

            def collect(name: str, _offset: int, entries: List[int], _error: Any, reply: List[int] = reply) -> int:
                if name == context:
                    reply.extend(entries)
                return 0

            handle.block_status(size - at, at, collect)
            assert reply, f"no answer about {at} of {uri}"
            for length, flags in zip(reply[::2], reply[1::2], strict=True):
                if flags & flag and at < size:
                    found.append((at, min(length, size - at)))
                at += length
        return found


def applied(uri: str, disk: DiskSnapshot, previous: bytes) -> bytes:
    """The disk's content as a backup gets it: all of it, or what changed put over the previous content."""
    if disk.level != INCREMENTAL:
        return read_all(uri)
    content = bytearray(previous)
    with connected(uri) as handle:
        for offset, length in changed_ranges(uri, disk.changed_context, disk.changed_flag):
            content[offset : offset + length] = bytes(handle.pread(length, offset))
    return bytes(content)


@contextmanager
def led(snapshot: Snapshot) -> Iterator[None]:
    """The ways to exports that lie at another machine, as long as the block runs; they must not break."""
    with ExitStack() as stack:
        for forward in snapshot.forwards:
            stack.enter_context(_leading(forward))
        yield


@contextmanager
def _leading(forward: Forward) -> Iterator[None]:
    route = SshRoute(**forward.route)
    process = subprocess.Popen(
        forward_argv(route, forward.socket, forward.remote_socket), env={**os.environ, **ENVIRONMENT}, stderr=subprocess.PIPE, text=True
    )
    assert process.stderr is not None
    try:
        await_forward(route, forward.socket, lambda: {"state": "running" if process.poll() is None else "exited"})
        yield
        assert process.poll() is None, f"the way to {route.server} broke: {process.stderr.read()}"
    finally:
        process.terminate()
        process.wait()
        process.stderr.close()
        if os.path.exists(forward.socket):
            os.unlink(forward.socket)


@contextmanager
def served(disk: DiskSnapshot, directory: str) -> Iterator[str]:
    """The URI of a disk of a snapshot, served from its image where the platform does not serve it itself."""
    if disk.image is None:
        yield disk.uri
        return
    with serving(disk.image, disk.export, os.path.join(directory, f"{disk.key}.sock"), bitmap=disk.image_bitmap) as uri:
        yield uri


@contextmanager
def serving(node: Dict[str, Any], export: str, socket: str, bitmap: str = "", writable: bool = False) -> Iterator[str]:
    """A real export server for one block node; it must end without an error."""
    argv, environment = export_argv(node, export=export, socket=socket, writable=writable, bitmap=bitmap or None)
    process = subprocess.Popen(argv, env={**os.environ, **environment}, stderr=subprocess.PIPE, text=True)
    errors = ""
    try:
        await_greeting(process, socket)
        yield f"nbd+unix:///{export}?socket={socket}"
    finally:
        errors = stop(process, socket)
    assert process.returncode == 0, f"the export server failed: {errors}"
