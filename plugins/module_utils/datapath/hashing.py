# Copyright: (c) 2026, Sendense contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Block digests: which algorithms there are, and what the digest of a block means.

A block of zeros has the all-zero digest, whatever the algorithm, so that holes and written zeros are the same thing. A
real digest that happens to be all zero is stored as the number one, which keeps the two apart for ever.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import Any, Callable, Dict, List, Optional

from ..errors import DependencyMissingError, InvalidInputError

_xxh3_128: Optional[Callable[[Any], bytes]] = None
try:
    import xxhash

    _xxh3_128 = xxhash.xxh3_128_digest
except ImportError:
    pass  # algorithm() says so when it is asked for

#: The unit of hashing, of alignment and of "held" everywhere: bytes.
BLOCK_BYTES = 65536

#: Digest sizes in bytes: a hash file can be read where the algorithm itself is not installed.
DIGEST_SIZES: Dict[str, int] = {"sha256": 32, "xxh3_128": 16}

DEFAULT_ALGORITHM = "xxh3_128"


@dataclass(frozen=True)
class HashAlgorithm:
    """One algorithm; ``digest`` maps the bytes of a block that is not all zero to its stored digest."""

    name: str
    digest_size: int
    raw: Callable[[Any], bytes]

    @property
    def zero(self) -> bytes:
        """The digest of a block of zeros."""
        return bytes(self.digest_size)

    def digest(self, data: Any) -> bytes:
        """The stored digest of a block that holds at least one byte that is not zero."""
        return never_zero(self.raw(data))

    def digests(self, blocks: List[Any], zeros: List[bool]) -> bytes:
        """The stored digests of consecutive blocks, of which ``zeros`` says which are all zero."""
        found = list(map(self.raw, blocks))
        if True in zeros or self.zero in found:
            found = [self.zero if zero else never_zero(one) for one, zero in zip(found, zeros)]
        return b"".join(found)

    def digest_of(self, data: Any) -> bytes:
        """The stored digest of any block, zeros included (slow test for zeros: not for the data path)."""
        return self.digest(data) if any(data) else self.zero


def split(view: Any, length: int) -> List[Any]:
    """The blocks of the first so many bytes of a buffer; nothing is copied."""
    return [view[start : min(start + BLOCK_BYTES, length)] for start in range(0, length, BLOCK_BYTES)]


def never_zero(digest: bytes) -> bytes:
    """A real digest of zeros becomes the number one: the all-zero digest is reserved."""
    if any(digest):
        return digest
    return bytes(len(digest) - 1) + b"\x01"


def digest_size(name: str) -> int:
    """Bytes of one digest. InvalidInputError for an unknown algorithm."""
    if name not in DIGEST_SIZES:
        raise InvalidInputError(
            f"Unknown hash algorithm {name!r}. Use one of: {', '.join(sorted(DIGEST_SIZES))}.",
            details={"algorithm": name},
        )
    return DIGEST_SIZES[name]


def algorithm(name: str) -> HashAlgorithm:
    """The algorithm of that name. InvalidInputError if unknown, DependencyMissingError if its library is missing."""
    size = digest_size(name)
    if name == "sha256":
        return HashAlgorithm(name, size, lambda data: hashlib.sha256(data).digest())
    if _xxh3_128 is None:
        raise DependencyMissingError(
            f"Cannot hash with {name}: the Python library xxhash is not installed here. Install python3-xxhash, or choose sha256.",
            details={"library": "xxhash"},
        )
    return HashAlgorithm(name, size, _xxh3_128)
