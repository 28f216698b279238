# Copyright: (c) 2026, Sendense contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Does this process listen already? Read from /proc, because a connection would take one of the server's clients."""

from __future__ import annotations

import os
import re
from typing import Iterator, Optional, Set, Tuple

_SOCKET = re.compile(r"socket:\[(\d+)\]")
_TCP_LISTEN = "0A"
_UNIX_LISTEN = 0x10000


def listens(pid: int, port: Optional[int], path: Optional[str]) -> bool:
    """Whether process ``pid`` itself listens on this TCP port or unix socket path. False if it is gone."""
    try:
        owned = _sockets(pid)
        found = _tcp(pid, port) if port is not None else _unix(pid, path)
        return any(inode in owned for inode in found)
    except OSError:
        return False  # it has ended meanwhile; for a zombie /proc answers with several errors


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
        next(stream)
        for line in stream:
            fields = tuple(line.rstrip("\n").split(None, columns))
            if len(fields) >= min(columns, 10) - 1:
                yield fields
