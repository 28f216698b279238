# Copyright: (c) 2026, Sendense contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Hash files: what is written is read, in any order of writing; every flip and every cut is noticed."""

from __future__ import annotations

import os
import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ansible_collections.sendense.platform.plugins.module_utils.datapath.blockhashes import (
    BlockHashFile,
    BlockHashWriter,
    compose,
    union,
    write_merged,
)
from ansible_collections.sendense.platform.plugins.module_utils.datapath.extents import Run
from ansible_collections.sendense.platform.plugins.module_utils.errors import (
    CopyFailedError,
    InvalidInputError,
    PointDamagedError,
)

BLOCK = 65536
SIZE = 100 * BLOCK + 512


def digest(number, layer=0):
    return bytes([layer, number]) * 8


def write(path, runs, level="full", layer=0, size=SIZE, algorithm="xxh3_128"):
    writer = BlockHashWriter(str(path), algorithm, size, level, runs)
    position = 0
    for run in runs:
        digests = b"".join(digest(run.first + index, layer) for index in range(run.blocks))
        writer.put(position, digests * (writer.header.digest_size // 16))
        position += run.blocks
    return writer.finish()


def test_round_trip_with_completion_out_of_order(tmp_path):
    runs = [Run(2, 3), Run(50, 1), Run(99, 2)]
    blocks = [2, 3, 4, 50, 99, 100]
    writer = BlockHashWriter(str(tmp_path / "h"), "xxh3_128", SIZE, "incremental", runs)
    for position in random.Random(5).sample(range(6), 6):
        writer.put(position, digest(blocks[position]))
    assert writer.finish() == str(tmp_path / "h")
    assert os.listdir(tmp_path) == ["h"]
    with BlockHashFile(str(tmp_path / "h")) as found:
        assert list(found.held()) == [(block, digest(block)) for block in blocks]
        assert found.runs == runs
        assert (found.header.level, found.header.disk_size, found.header.block_count) == ("incremental", SIZE, 6)
        assert [block for block in range(101) if found.holds(block)] == blocks
        assert found.header.file_size == os.path.getsize(tmp_path / "h")


def test_a_point_that_holds_nothing(tmp_path):
    with BlockHashFile(write(tmp_path / "h", [], "incremental")) as found:
        assert list(found.held()) == [] and not found.holds(0)


def test_a_missing_block_is_never_sealed(tmp_path):
    writer = BlockHashWriter(str(tmp_path / "h"), "xxh3_128", SIZE, "full", [Run(0, 3)])
    writer.put(0, digest(0) + digest(1))
    with pytest.raises(CopyFailedError):
        writer.finish()
    writer.abort()
    writer.abort()
    assert os.listdir(tmp_path) == []


def test_a_block_cannot_be_put_twice_or_outside(tmp_path):
    writer = BlockHashWriter(str(tmp_path / "h"), "xxh3_128", SIZE, "full", [Run(0, 3)])
    writer.put_zeros(1, 1)
    for position in (1, 3, -1):
        with pytest.raises(CopyFailedError):
            writer.put(position, digest(0))
    writer.abort()


def test_no_space_is_a_typed_error(tmp_path):
    with pytest.raises(CopyFailedError):
        BlockHashWriter(str(tmp_path / "missing" / "h"), "xxh3_128", SIZE, "full", [])
    with pytest.raises(InvalidInputError):
        BlockHashWriter(str(tmp_path / "h"), "md5", SIZE, "full", [])


def test_every_flip_of_every_bit_is_noticed(tmp_path):
    path = tmp_path / "h"
    write(path, [Run(2, 3), Run(50, 1)])
    good = path.read_bytes()
    for bit in range(len(good) * 8):
        bad = bytearray(good)
        bad[bit // 8] ^= 1 << (bit % 8)
        path.write_bytes(bad)
        with pytest.raises(PointDamagedError):
            BlockHashFile(str(path))


def test_every_truncation_and_appended_garbage_is_noticed(tmp_path):
    path = tmp_path / "h"
    write(path, [Run(2, 3), Run(50, 1)])
    good = path.read_bytes()
    for length in range(len(good)):
        path.write_bytes(good[:length])
        with pytest.raises(PointDamagedError):
            BlockHashFile(str(path))
    path.write_bytes(good + b"\0")
    with pytest.raises(PointDamagedError):
        BlockHashFile(str(path))


def test_missing_files_and_links_are_refused(tmp_path):
    write(tmp_path / "h", [])
    (tmp_path / "link").symlink_to(tmp_path / "h")
    for name in ("absent", "link"):
        with pytest.raises(PointDamagedError):
            BlockHashFile(str(tmp_path / name))


def opened(*paths):
    return [BlockHashFile(str(path)) for path in paths]


def test_newer_layers_win_and_what_no_layer_holds_is_zero(tmp_path):
    layers = opened(
        write(tmp_path / "0", [Run(0, 10)], layer=1),
        write(tmp_path / "1", [Run(5, 10)], "incremental", layer=2),
        write(tmp_path / "2", [Run(7, 1)], "incremental", layer=3),
    )
    whole = compose(layers)
    assert [whole.digest(block)[0] for block in range(17)] == [1] * 5 + [2] * 2 + [3] + [2] * 7 + [0] * 2
    assert whole.digest(100) == bytes(16)


def test_the_root_depends_on_content_alone(tmp_path):
    base = write(tmp_path / "0", [Run(0, 10)], layer=1)
    top = write(tmp_path / "1", [Run(5, 10)], "incremental", layer=2)
    merged = BlockHashWriter(str(tmp_path / "m"), "xxh3_128", SIZE, "full", [Run(0, 15), Run(20, 1)])
    merged.put(0, b"".join(digest(b, 1 if b < 5 else 2) for b in range(15)))
    merged.put_zeros(15, 1)
    merged.finish()
    root = compose(opened(base, top)).root()
    assert root == compose(opened(tmp_path / "m")).root()
    assert root != compose(opened(base)).root()
    assert len(root) == 64


def test_the_root_covers_size_and_algorithm(tmp_path):
    roots = {
        compose(opened(write(tmp_path / f"{size}{name}", [], size=size, algorithm=name))).root()
        for size in (0, BLOCK - 512, BLOCK, 2 * BLOCK)
        for name in ("xxh3_128", "sha256")
    }
    assert len(roots) == 8


def test_layers_that_do_not_belong_together_are_refused(tmp_path):
    full = write(tmp_path / "f", [Run(0, 1)])
    other_size = write(tmp_path / "s", [], "incremental", size=SIZE + 512)
    other_algorithm = write(tmp_path / "a", [], "incremental", algorithm="sha256")
    incremental = write(tmp_path / "i", [], "incremental")
    for paths in ((), (incremental,), (full, full), (full, other_size), (full, other_algorithm)):
        with pytest.raises(PointDamagedError):
            compose(opened(*paths))


@settings(max_examples=100, deadline=None)
@given(st.lists(st.tuples(st.sets(st.integers(0, 100), max_size=60), st.booleans()), min_size=1, max_size=5))
def test_compose_matches_a_dictionary(tmp_path_factory, layers):
    directory = tmp_path_factory.mktemp("layers")
    model = {}
    paths = []
    for number, (blocks, zero) in enumerate(layers):
        runs = [Run(block, 1) for block in sorted(blocks)]
        writer = BlockHashWriter(str(directory / str(number)), "xxh3_128", SIZE, "incremental" if number else "full", runs)
        for position, run in enumerate(runs):
            value = bytes(16) if zero else digest(run.first, number + 1)
            writer.put(position, value)
            model[run.first] = value
        paths.append(writer.finish())
    whole = compose(opened(*paths))
    assert [whole.digest(block) for block in range(101)] == [model.get(block, bytes(16)) for block in range(101)]


def test_merged_layers_hold_what_any_of_them_held_and_read_as_before(tmp_path):
    base = write(tmp_path / "0", [Run(0, 10)], layer=1)
    first = write(tmp_path / "1", [Run(5, 10), Run(20, 1)], "incremental", layer=2)
    second = write(tmp_path / "2", [Run(7, 1), Run(14, 3)], "incremental", layer=3)
    for layers, below in (((base, first, second), ()), ((first, second), (base,)), ((second,), (base, first))):
        (merged,) = opened(write_merged(opened(*layers), str(tmp_path / "m")))
        assert merged.header.level == opened(layers[0])[0].header.level
        assert merged.runs == union(run for layer in opened(*layers) for run in layer.runs)
        assert compose([*opened(*below), merged]).root() == compose(opened(base, first, second)).root()
    assert not (tmp_path / "m.partial").exists()


def test_layers_that_are_no_neighbours_are_not_merged(tmp_path):
    full = write(tmp_path / "f", [Run(0, 1)])
    incremental = write(tmp_path / "i", [], "incremental")
    other = write(tmp_path / "a", [], "incremental", algorithm="sha256")
    for paths in ((incremental, full), (full, full), (incremental, other)):
        with pytest.raises(PointDamagedError):
            write_merged(opened(*paths), str(tmp_path / "m"))
    assert not (tmp_path / "m").exists()


@given(st.lists(st.tuples(st.integers(0, 60), st.integers(1, 20)), max_size=12))
def test_a_union_of_runs_is_the_set_of_their_blocks_in_order(pairs):
    found = union(Run(first, count) for first, count in pairs)
    assert [block for run in found for block in range(run.first, run.first + run.blocks)] == sorted(
        {block for first, count in pairs for block in range(first, first + count)}
    )
    assert all(run.first + run.blocks < after.first for run, after in zip(found, found[1:], strict=False))
