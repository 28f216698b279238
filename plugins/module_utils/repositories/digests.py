# Copyright: (c) 2026, Sendense contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Digests of whole files, as a manifest records them."""

from __future__ import annotations

import hashlib
import os
from typing import Any, Callable

from ..datapath import hashing
from .local_files import storage

_PIECE_BYTES = 4 << 20


def file_digest(path: str, algorithm: str, count: Callable[[int], None] = lambda size: None) -> str:
    """Digest of a whole file in hexadecimal, by the algorithm of the block hashes.

    ``count`` is told how many bytes were read since it was called last. InvalidInputError (unknown algorithm),
    DependencyMissingError, RepositoryIoError.
    """
    hashing.algorithm(algorithm)
    return _digest(path, hashlib.sha256() if algorithm == "sha256" else hashing.xxhash.xxh3_128(), count)


def sha256_of(path: str) -> str:
    """SHA-256 of a whole file in hexadecimal. RepositoryIoError."""
    return _digest(path, hashlib.sha256(), lambda size: None)


def _digest(path: str, hasher: Any, tell: Callable[[int], None]) -> str:
    buffer = memoryview(bytearray(_PIECE_BYTES))
    with storage("read", path):
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
        with open(descriptor, "rb", buffering=0) as stream:
            os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_SEQUENTIAL)
            while True:
                count = stream.readinto(buffer)
                if not count:
                    return str(hasher.hexdigest())
                hasher.update(buffer[:count])
                tell(count)
