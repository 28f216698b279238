# Copyright: (c) 2026, Sendense contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Immutable points of a local repository: the product refuses to delete them, and where it can, so does the file system.

The file system's part is the immutable flag of ``chattr +i`` on the point's files and directory, which needs root and a
file system that knows it. Root can take the flag off again: it protects against mistakes and against everybody else, not
against somebody who owns the machine. docs/reference/repositories/local.md says so.
"""

from __future__ import annotations

import fcntl
import os
import struct
from typing import Any, Dict, List

from ..catalog.times import is_utc_text, utc_text
from . import local_files as files
from . import local_marks as marks
from .local_paths import Paths

SOFTWARE = "software"
FILE_SYSTEM = "filesystem"
#: Stands for an expiry that cannot be read: the point stays until a person has looked.
FOR_EVER = "9999-12-31T23:59:59Z"

_FLAG = 0x10  # FS_IMMUTABLE_FL
_LONG = struct.calcsize("l")
_GET = (2 << 30) | (_LONG << 16) | (ord("f") << 8) | 1  # FS_IOC_GETFLAGS
_SET = (1 << 30) | (_LONG << 16) | (ord("f") << 8) | 2  # FS_IOC_SETFLAGS
_OPEN = os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK


def until_of(mark: Dict[str, Any]) -> str:
    """The expiry that a mark states; for ever if it states none that can be read."""
    until = mark.get("until")
    return until if isinstance(until, str) and is_utc_text(until) else FOR_EVER


def protect(paths: Paths, key: str, point_id: str, until: str) -> str:
    """Mark one point, never shortening, and set the file system's flags; returns how far it is enforced.

    InvalidInputError for a bad time, RepositoryIoError.
    """
    wanted = utc_text(until)
    present = marks.read_all(paths, key, marks.IMMUTABLE).get(point_id)
    if present is not None:
        wanted = max(wanted, until_of(present))
    marks.write(paths, key, marks.IMMUTABLE, point_id, {"schema_version": 1, "point_id": point_id, "until": wanted})
    done = [_set_flag(path, True) for path in _parts(paths.point(key, point_id))]
    return FILE_SYSTEM if all(done) else SOFTWARE


def release(paths: Paths, key: str, point_id: str) -> None:
    """Take the file system's flags off a point whose time is over. The mark stays until the point is gone."""
    for path in reversed(_parts(paths.point(key, point_id))):
        _set_flag(path, False)


def probe(root: str) -> str:
    """How far immutability can be enforced in this directory, tried on a file without a name."""
    try:
        descriptor = os.open(root, os.O_TMPFILE | os.O_WRONLY | os.O_CLOEXEC, 0o600)
    except OSError:
        return SOFTWARE
    try:
        done = _change(descriptor, True)
        _change(descriptor, False)
        return FILE_SYSTEM if done else SOFTWARE
    finally:
        os.close(descriptor)


def _parts(directory: str) -> List[str]:
    """The files, and the directory last, so that an interrupted protection has the files."""
    return [os.path.join(directory, name) for name in files.names(directory)] + [directory]


def _set_flag(path: str, wanted: bool) -> bool:
    try:
        descriptor = os.open(path, _OPEN)
    except OSError:
        return False
    try:
        return _change(descriptor, wanted)
    finally:
        os.close(descriptor)


def _change(descriptor: int, wanted: bool) -> bool:
    """Set or clear the flag; whether the file system has it so now."""
    try:
        flags = _flags(descriptor)
        changed = flags | _FLAG if wanted else flags & ~_FLAG
        if changed != flags:
            fcntl.ioctl(descriptor, _SET, struct.pack("i", changed).ljust(_LONG, b"\0"))
        return bool(_flags(descriptor) & _FLAG) == wanted
    except OSError:
        return False


def _flags(descriptor: int) -> int:
    # The kernel reads and writes an int, whatever size the number of the call says.
    return int(struct.unpack_from("i", fcntl.ioctl(descriptor, _GET, bytes(_LONG)))[0])
