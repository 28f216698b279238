# Copyright: (c) 2026, Sendense contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Files of the state directory: private, replaced atomically, never half written."""

from __future__ import annotations

import json
import os
from typing import Any


def write_json(path: str, data: Any, durable: bool = False) -> None:
    """Replace a file by this data, mode 0600. ``durable`` survives a power cut (file and directory are synced).

    OSError if the file system refuses; the old content is then still there.
    """
    replace(path, json.dumps(data, sort_keys=True).encode("utf-8"), durable)


def replace(path: str, content: bytes, durable: bool = False) -> None:
    """As :func:`write_json`, of any content."""
    partial = f"{path}.{os.getpid()}.tmp"
    descriptor = os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    try:
        with os.fdopen(descriptor, "wb") as stream:
            stream.write(content)
            stream.flush()
            if durable:
                os.fsync(stream.fileno())
        os.replace(partial, path)
    finally:
        unlink_if_there(partial)  # after a failure only
    if durable:
        sync_directory(os.path.dirname(path))


def read_json(path: str, default: Any = None) -> Any:
    """The content, or ``default`` if the file is missing, vanishes meanwhile or is not JSON."""
    try:
        with open(path, encoding="utf-8") as stream:
            return json.load(stream)
    except (FileNotFoundError, NotADirectoryError, ValueError):
        return default


def read_tail(path: str, size: int = 2000) -> str:
    """The last ``size`` bytes of a text file, empty if there is none."""
    try:
        with open(path, "rb") as stream:
            stream.seek(max(0, os.fstat(stream.fileno()).st_size - size))
            return stream.read(size).decode("utf-8", "replace").strip()
    except FileNotFoundError:
        return ""


def unlink_if_there(path: str) -> bool:
    """Remove a file; False if there was none."""
    try:
        os.unlink(path)
    except FileNotFoundError:
        return False
    return True


def sync_directory(path: str) -> None:
    """Make renames and new names in this directory durable."""
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
