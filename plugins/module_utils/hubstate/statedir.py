# Copyright: (c) 2026, Sendense contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The one directory of a place that holds everything a job leaves on disk while it runs."""

from __future__ import annotations

import os
import re

from ..errors import InvalidInputError
from .files import sync_directory
from .machine import boot_id

DEFAULT_STATE_DIR = "/var/lib/sendense"

#: ``sun_path`` holds 108 bytes with its terminating zero.
MAX_SOCKET_BYTES = 107
#: ``/jobs/`` + 32 hex + ``-node/`` + the longest socket name in a job directory (``sb-<8 hex>-<8 hex>.sock``, which a platform makes).
SOCKET_TAIL_BYTES = 69

_HUB_ID = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}")


class StateDir:
    """Names of the tree in docs/design/backup-flow.md. The constructor touches nothing."""

    def __init__(self, path: str = DEFAULT_STATE_DIR) -> None:
        self.path = os.path.abspath(path)
        self.jobs = os.path.join(self.path, "jobs")
        self.ports = os.path.join(self.path, "ports")
        self.exports = os.path.join(self.path, "exports")
        self.leases = os.path.join(self.path, "leases")
        self.agent = os.path.join(self.path, "agent")

    def create(self) -> "StateDir":
        """Make the tree, every directory mode 0700; repetition changes nothing.

        InvalidInputError if the path is so long that a socket below it could not be bound.
        """
        longest = len(os.fsencode(self.path)) + SOCKET_TAIL_BYTES
        if longest > MAX_SOCKET_BYTES:
            raise InvalidInputError(
                f"State directory {self.path} is too long: sockets below it would need {longest} bytes and the kernel allows "
                f"{MAX_SOCKET_BYTES}. Choose a path of at most {MAX_SOCKET_BYTES - SOCKET_TAIL_BYTES} bytes.",
                details={"path": self.path},
            )
        os.makedirs(self.path, mode=0o700, exist_ok=True)
        for folder in (self.jobs, self.ports, self.exports, self.leases, self.agent):
            os.makedirs(folder, mode=0o700, exist_ok=True)
        return self

    def identity(self) -> str:
        """The same for one directory however it is reached, and for no other until the next boot; empty if it is not there."""
        try:
            found = os.stat(self.path)
        except OSError:
            return ""
        return f"{boot_id()}:{found.st_dev}:{found.st_ino}"

    def hub_id(self) -> str:
        """The random identity of this place; made once, the first of several makers wins. InvalidInputError if damaged."""
        path = os.path.join(self.path, "hub_id")
        if not os.path.exists(path):
            self._make_hub_id(path)
        with open(path, encoding="ascii", errors="replace") as stream:
            found = stream.read().strip()
        if not _HUB_ID.fullmatch(found):
            raise InvalidInputError(f"File {path} does not hold the identity of this place. Restore it, or remove it to get a new one.")
        return found

    def is_of_another_hub(self, hub_id: str) -> bool:
        """Whether only another place can say if the job is alive that wrote this id; never of the empty one. Makes no identity."""
        made = os.path.exists(os.path.join(self.path, "hub_id"))
        return bool(hub_id) and not (made and hub_id == self.hub_id())

    def _make_hub_id(self, path: str) -> None:
        from uuid import uuid4  # here, because it is slow to import and every process of every job imports this file

        partial = f"{path}.{uuid4().hex}"
        descriptor = os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        with os.fdopen(descriptor, "w", encoding="ascii") as stream:
            stream.write(f"{uuid4()}\n")
            stream.flush()
            os.fsync(stream.fileno())
        try:
            os.link(partial, path)
        except FileExistsError:
            return
        finally:
            os.unlink(partial)
        sync_directory(self.path)
