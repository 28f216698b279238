# Copyright: (c) 2026, Sendense contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Does this server serve already? Asked without ever blocking.

Two questions, because qemu-nbd listens before it has opened its image: whether the socket is that process's own (from
/proc), and whether it greets. The greeting is answered with an orderly goodbye, so that the server has no reason to
complain.
"""

from __future__ import annotations

import os
import re
import socket
from typing import Generator, Iterator, Optional, Set, Tuple, Union

_SOCKET = re.compile(r"socket:\[(\d+)\]")
_TCP_LISTEN = "0A"
_UNIX_LISTEN = 0x10000
#: "NBDMAGIC", "IHAVEOPT" and two bytes of flags.
_GREETING = b"NBDMAGICIHAVEOPT"
_GREETING_BYTES = 18
#: Client flags (fixed newstyle, no zeroes), then NBD_OPT_ABORT without data.
_GOODBYE = bytes((0, 0, 0, 3)) + b"IHAVEOPT" + bytes((0, 0, 0, 2, 0, 0, 0, 0))


def listens(pid: int, port: Optional[int], path: Optional[str]) -> bool:
    """Whether process ``pid`` itself listens on this TCP port or unix socket path. False if it is gone."""
    try:
        owned = _sockets(pid)
        found = _tcp(pid, port) if port is not None else _unix(pid, path)
        return any(inode in owned for inode in found)
    except OSError:
        return False  # it has ended meanwhile; for a zombie /proc answers with several errors


def greets(port: Optional[int], path: Optional[str]) -> Generator[float, None, bool]:
    """Connect once and wait for an NBD greeting: False if the connection ends without one. The caller limits the time."""
    family = socket.AF_UNIX if port is None else socket.AF_INET
    address: Union[str, Tuple[str, int]] = path or "" if port is None else ("127.0.0.1", port)
    with socket.socket(family, socket.SOCK_STREAM) as connection:
        connection.setblocking(False)
        connection.connect_ex(address)
        received = b""
        while len(received) < _GREETING_BYTES:
            try:
                part = connection.recv(_GREETING_BYTES - len(received))
            except BlockingIOError:
                yield 0.01
                continue
            except OSError:
                return False
            if not part:
                return False
            received += part
        connection.send(_GOODBYE)
        return received.startswith(_GREETING)


def _sockets(pid: int) -> Set[str]:
    inodes = set()
    for name in os.listdir(f"/proc/{pid}/fd"):
        try:
            match = _SOCKET.fullmatch(os.readlink(f"/proc/{pid}/fd/{name}"))
        except FileNotFoundError:
            continue  # closed between listing and reading
        if match:
            inodes.add(match.group(1))
    return inodes


def _tcp(pid: int, port: Optional[int]) -> Iterator[str]:
    for fields in _table(f"/proc/{pid}/net/tcp", 16):
        if fields[3] == _TCP_LISTEN and fields[1].endswith(f":{port:04X}"):
            yield fields[9]


def _unix(pid: int, path: Optional[str]) -> Iterator[str]:
    for fields in _table(f"/proc/{pid}/net/unix", 7):
        if int(fields[3], 16) & _UNIX_LISTEN and len(fields) > 7 and fields[7] == path:
            yield fields[6]


def _table(name: str, columns: int) -> Iterator[Tuple[str, ...]]:
    with open(name, encoding="utf-8", errors="surrogateescape") as stream:
        stream.readline()
        for line in stream:
            fields = tuple(line.rstrip("\n").split(None, columns))
            if len(fields) >= min(columns, 10) - 1:
                yield fields
