# Copyright: (c) 2026, Sendense contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A repository that fails, and a file system that fails: both at the n-th call, once, so that every call can be tried.

``FaultyRepository`` wraps any repository and fails its n-th method call, before or after the call did its work.
``failing_storage`` makes the n-th call of the operating system below a directory fail.
"""

from __future__ import annotations

import errno
import os
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Callable, Dict, Iterator, List, Optional
from unittest import mock

from ansible_collections.sendense.platform.plugins.module_utils.catalog.manifest import Manifest
from ansible_collections.sendense.platform.plugins.module_utils.datapath.hashing import DEFAULT_ALGORITHM
from ansible_collections.sendense.platform.plugins.module_utils.errors import RepositoryIoError, SendenseError
from ansible_collections.sendense.platform.plugins.module_utils.repositories._base import (
    Finding,
    NewPoint,
    OpenMerge,
    OpenPoint,
    Point,
    PointFilter,
    Repository,
    RepositoryCapabilities,
    Space,
)


class FaultyRepository(Repository):
    """Passes every call on to ``inner``, except that call number ``fail_at`` (from 1; 0 for never) raises ``error``.

    ``after`` True: the call does its work and the answer is lost. ``calls`` counts; ``failed`` names what failed.
    """

    NAME = "faulty"

    def __init__(self, inner: Repository, fail_at: int = 0, error: Optional[SendenseError] = None, after: bool = False) -> None:
        self.inner = inner
        self.fail_at = fail_at
        self.error = error or RepositoryIoError("Cannot reach the storage: planted by the test. Run again.")
        self.after = after
        self.calls = 0
        self.failed = ""

    def _call(self, name: str, *arguments: Any) -> Any:
        self.calls += 1
        planted = self.calls == self.fail_at
        if planted:
            self.failed = name
        if planted and not self.after:
            raise self.error
        answer = getattr(self.inner, name)(*arguments)
        if planted:
            raise self.error
        return answer

    def capabilities(self) -> RepositoryCapabilities:
        return self._call("capabilities")

    def initialise(self, hash_algorithm: str = DEFAULT_ALGORITHM) -> bool:
        return self._call("initialise", hash_algorithm)

    def identity(self) -> Dict[str, Any]:
        return self._call("identity")

    def space(self) -> Space:
        return self._call("space")

    def machines(self) -> List[str]:
        return self._call("machines")

    def list(self, wanted: Optional[PointFilter] = None) -> List[Point]:
        return self._call("list", wanted)

    def get(self, machine_key: str, point_id: str) -> Point:
        return self._call("get", machine_key, point_id)

    def raise_generation(self, machine_key: str) -> int:
        return self._call("raise_generation", machine_key)

    def create(self, new: NewPoint) -> OpenPoint:
        return self._call("create", new)

    def reread_images(self, point: OpenPoint) -> Dict[str, Dict[str, Any]]:
        return self._call("reread_images", point)

    def commit(self, point: OpenPoint, manifest: Manifest) -> Point:
        return self._call("commit", point, manifest)

    def abort(self, machine_key: str, job_id: str) -> bool:
        return self._call("abort", machine_key, job_id)

    def partials(self, machine_key: str) -> List[OpenPoint]:
        return self._call("partials", machine_key)

    def open_for_read(self, machine_key: str, point_id: str) -> Dict[str, Dict[str, Any]]:
        return self._call("open_for_read", machine_key, point_id)

    def hash_files(self, machine_key: str, point_id: str) -> Dict[str, List[str]]:
        return self._call("hash_files", machine_key, point_id)

    def files(self, machine_key: str, point_id: str) -> Dict[str, str]:
        return self._call("files", machine_key, point_id)

    def structure_check(self, machine_key: str, point_id: str) -> List[Finding]:
        return self._call("structure_check", machine_key, point_id)

    def digest_check(self, machine_key: str, point_id: str) -> List[Finding]:
        return self._call("digest_check", machine_key, point_id)

    def mark_damaged(self, machine_key: str, point_id: str, reason: str) -> List[str]:
        return self._call("mark_damaged", machine_key, point_id, reason)

    def distrust(self, machine_key: str, point_id: str, reason: str) -> bool:
        return self._call("distrust", machine_key, point_id, reason)

    def delete(self, machine_key: str, point_id: str) -> bool:
        return self._call("delete", machine_key, point_id)

    def begin_merge(self, machine_key: str, survivor: str, consumed: List[str], job_id: str) -> OpenMerge:
        return self._call("begin_merge", machine_key, survivor, consumed, job_id)

    def merged_images(self, merge: OpenMerge) -> Dict[str, Dict[str, Any]]:
        return self._call("merged_images", merge)

    def merged_hashes(self, merge: OpenMerge) -> Dict[str, str]:
        return self._call("merged_hashes", merge)

    def finish_merge(self, merge: OpenMerge, digests: Dict[str, str], verified: Dict[str, str]) -> Point:
        return self._call("finish_merge", merge, digests, verified)

    def abandon_merge(self, machine_key: str, reason: str, job_id: str) -> List[str]:
        return self._call("abandon_merge", machine_key, reason, job_id)

    def open_merges(self, machine_key: str) -> List[OpenMerge]:
        return self._call("open_merges", machine_key)

    def recover(self, machine_key: str) -> List[str]:
        return self._call("recover", machine_key)

    def set_immutable(self, machine_key: str, point_id: str, until: str) -> str:
        return self._call("set_immutable", machine_key, point_id, until)


#: Calls of the operating system that a file system can fail, as modules reach them.
STORAGE_CALLS = ("open", "write", "fsync", "rename", "link", "mkdir", "unlink", "rmdir", "listdir", "lstat", "statvfs")


class StorageFault:
    """Counts the calls below ``root`` and fails number ``fail_at`` with ``number``; ``failed`` says which it was."""

    def __init__(self, root: Path, fail_at: int, number: int = errno.EIO) -> None:
        self.root = str(root)
        self.fail_at = fail_at
        self.number = number
        self.calls = 0
        self.failed = ""

    def wrap(self, name: str, real: Callable[..., Any]) -> Callable[..., Any]:
        """The real call with the fault in front of it."""

        def call(target: Any, *arguments: Any, **options: Any) -> Any:
            if self._concerned(target):
                self.calls += 1
                if self.calls == self.fail_at:
                    self.failed = name
                    raise OSError(self.number, os.strerror(self.number), target if isinstance(target, str) else None)
            return real(target, *arguments, **options)

        return call

    def _concerned(self, target: Any) -> bool:
        path = os.readlink(f"/proc/self/fd/{target}") if isinstance(target, int) else os.fspath(target)
        return isinstance(path, str) and (path == self.root or path.startswith(f"{self.root}/"))


@contextmanager
def failing_storage(root: Path, fail_at: int, number: int = errno.EIO) -> Iterator[StorageFault]:
    """Fail the n-th call of the operating system on a path below ``root``, once."""
    fault = StorageFault(root, fail_at, number)
    patches = [mock.patch.object(os, name, fault.wrap(name, getattr(os, name))) for name in STORAGE_CALLS]
    for patch in patches:
        patch.start()
    try:
        yield fault
    finally:
        for patch in patches:
            patch.stop()
