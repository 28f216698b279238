# Copyright: (c) 2026, Sendense contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Digests: known answers, and zeros that can never be confused with anything else."""

from __future__ import annotations

import hashlib

import pytest

from ansible_collections.sendense.platform.plugins.module_utils.datapath import hashing
from ansible_collections.sendense.platform.plugins.module_utils.errors import DependencyMissingError, InvalidInputError


def test_known_answers():
    assert hashing.algorithm("sha256").digest(b"abc") == hashlib.sha256(b"abc").digest()
    assert hashing.algorithm("xxh3_128").digest(b"abc").hex() == "06b05ab6733a618578af5f94892f3950"


@pytest.mark.parametrize("name", sorted(hashing.DIGEST_SIZES))
def test_zeros_have_the_zero_digest_and_nothing_else_has(name):
    one = hashing.algorithm(name)
    assert one.digest_of(bytes(512)) == one.zero == bytes(one.digest_size) == bytes(hashing.digest_size(name))
    assert one.digest_of(b"\0" * 511 + b"\1") != one.zero
    assert len(one.digest(b"x")) == one.digest_size


def test_a_real_digest_of_zeros_becomes_one():
    unlucky = hashing.HashAlgorithm("sha256", 4, lambda data: bytes(4))
    assert unlucky.digest(b"data") == b"\0\0\0\1"
    assert unlucky.digest_of(b"\0") == bytes(4)


def test_an_unknown_algorithm_is_refused():
    with pytest.raises(InvalidInputError):
        hashing.algorithm("md5")


def test_a_missing_library_is_named(monkeypatch):
    monkeypatch.setattr(hashing, "_xxh3_128", None)
    with pytest.raises(DependencyMissingError) as caught:
        hashing.algorithm("xxh3_128")
    assert "python3-xxhash" in caught.value.msg
    assert hashing.algorithm("sha256").digest_size == 32


@pytest.mark.parametrize("name", sorted(hashing.DIGEST_SIZES))
def test_many_blocks_have_the_digests_that_each_has(name):
    one = hashing.algorithm(name)
    data = b"a" * hashing.BLOCK_BYTES + bytes(hashing.BLOCK_BYTES) + b"b" * hashing.BLOCK_BYTES + b"short"
    blocks = hashing.split(memoryview(data + b"of a longer buffer"), len(data))
    assert [bytes(block) for block in blocks] == [data[at : at + hashing.BLOCK_BYTES] for at in range(0, len(data), hashing.BLOCK_BYTES)]
    zeros = [not any(block) for block in blocks]
    assert zeros == [False, True, False, False]
    assert one.digests(blocks, zeros) == b"".join(one.digest_of(bytes(block)) for block in blocks)


def test_an_unlucky_block_among_many_is_no_block_of_zeros():
    unlucky = hashing.HashAlgorithm("sha256", 4, lambda data: bytes(4) if data == b"bad" else b"good")
    assert unlucky.digests([b"bad", b"fine"], [False, False]) == b"\0\0\0\1" + b"good"
    assert unlucky.digests([b"bad", b"zero"], [False, True]) == b"\0\0\0\1" + bytes(4)
