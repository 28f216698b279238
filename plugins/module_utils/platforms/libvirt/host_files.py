# Copyright: (c) 2026, Sendense contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The few files of the libvirt host that libvirt does not speak of: by path where this is that host, else through ssh."""

from __future__ import annotations

import os
from abc import ABC, abstractmethod
from typing import List, Optional

from ...datapath.ssh_route import SshRoute, run
from ...errors import SnapshotFailedError

#: How the programs below say that there is no such file.
_ABSENT = 44


class HostFiles(ABC):
    """Files of one host. Paths are of that host, and may be anything."""

    @abstractmethod
    def names(self, directory: str) -> List[str]:
        """What lies in a directory, sorted; nothing if there is none. PlatformUnreachableError."""

    @abstractmethod
    def unlink(self, path: str) -> bool:
        """Remove a file; False if it was not there. OSError or SnapshotFailedError if it cannot be removed."""

    @abstractmethod
    def read(self, path: str) -> Optional[bytes]:
        """The content of a file; None if it is not there. OSError or SnapshotFailedError if it cannot be read."""


class LocalFiles(HostFiles):
    """The host is this place."""

    def names(self, directory: str) -> List[str]:
        return sorted(os.listdir(directory)) if os.path.isdir(directory) else []

    def unlink(self, path: str) -> bool:
        try:
            os.unlink(path)
        except FileNotFoundError:
            return False
        return True

    def read(self, path: str) -> Optional[bytes]:
        try:
            with open(path, "rb") as stream:
                return stream.read()
        except FileNotFoundError:
            return None


class RemoteFiles(HostFiles):
    """The host is another machine; each call is a login of its own. The paths are arguments of a script, never part of it."""

    def __init__(self, route: SshRoute) -> None:
        self._route = route

    def names(self, directory: str) -> List[str]:
        found = self._ask('[ -d "$1" ] || exit 44; exec ls -1A -- "$1"', directory)
        return [] if found is None else sorted(found.decode("utf-8", "surrogateescape").splitlines())

    def unlink(self, path: str) -> bool:
        return self._ask('[ -e "$1" ] || [ -L "$1" ] || exit 44; exec rm -f -- "$1"', path) is not None

    def read(self, path: str) -> Optional[bytes]:
        return self._ask('[ -e "$1" ] || exit 44; exec cat -- "$1"', path)

    def _ask(self, script: str, path: str) -> Optional[bytes]:
        done = run(self._route, ["env", "LC_ALL=C", "sh", "-c", script, "sh", path])
        if done.returncode == _ABSENT:
            return None
        if done.returncode != 0:
            words = done.stderr.decode("utf-8", "replace").strip()[-300:]
            raise SnapshotFailedError(f"Cannot use {path!r} at {self._route.server}: {words or f'exit code {done.returncode}'}.")
        return done.stdout
