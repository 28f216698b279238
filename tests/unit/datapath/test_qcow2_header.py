# Copyright: (c) 2026, Sendense contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The header reader on headers made by hand: the allow-list, field by field, and arbitrary bytes."""

from __future__ import annotations

import struct

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ansible_collections.sendense.platform.plugins.module_utils.datapath.qcow2_header import (
    Qcow2Header,
    read_qcow2_header,
)
from ansible_collections.sendense.platform.plugins.module_utils.errors import ImageRejectedError

CLUSTER = 65536
SIZE = (1 << 30) + 512

#: Offset and struct format of every field of a version 3 header.
FIELDS = {
    "magic": (0, "4s"),
    "version": (4, ">I"),
    "backing_offset": (8, ">Q"),
    "backing_length": (16, ">I"),
    "cluster_bits": (20, ">I"),
    "size": (24, ">Q"),
    "crypt_method": (32, ">I"),
    "l1_entries": (36, ">I"),
    "l1_offset": (40, ">Q"),
    "refcount_offset": (48, ">Q"),
    "refcount_clusters": (56, ">I"),
    "snapshots": (60, ">I"),
    "snapshots_offset": (64, ">Q"),
    "incompatible": (72, ">Q"),
    "compatible": (80, ">Q"),
    "autoclear": (88, ">Q"),
    "refcount_order": (96, ">I"),
    "header_length": (100, ">I"),
}

GOOD = {
    "magic": b"QFI\xfb", "version": 3, "cluster_bits": 16, "size": SIZE, "l1_entries": 3, "l1_offset": 3 * CLUSTER,
    "refcount_offset": CLUSTER, "refcount_clusters": 1, "refcount_order": 4, "header_length": 112,
}  # fmt: skip


def image(changes=(), extensions=b"", name=b"", clusters=4):
    """A file whose first cluster holds a header; the rest is zeros."""
    fields = {**GOOD, **dict(changes)}
    start = bytearray(CLUSTER)
    start[112 : 112 + len(extensions)] = extensions
    if name:
        fields = {"backing_offset": 4096, "backing_length": len(name), **fields}
        start[4096 : 4096 + len(name)] = name
    for field, value in fields.items():
        offset, form = FIELDS[field]
        struct.pack_into(form, start, offset, value)
    if fields.get("compression"):
        start[104] = fields["compression"]
    return bytes(start) + bytes((clusters - 1) * CLUSTER)


def extension(kind, data):
    return struct.pack(">II", kind, len(data)) + data.ljust(-(-len(data) // 8) * 8, b"\0")


QCOW2_BACKING = extension(0xE2792ACA, b"qcow2")


@pytest.fixture
def read(tmp_path):
    def reader(content, **options):
        (tmp_path / "image").write_bytes(content)
        return read_qcow2_header(str(tmp_path / "image"), **options)

    return reader


def test_a_plain_image_is_accepted(read):
    assert read(image()) == Qcow2Header(SIZE, CLUSTER, "", "", "zlib", False)
    assert read(image(), backing=None).size == SIZE


def test_the_expected_backing_name_is_accepted_and_no_other(read):
    content = image(name=b"../p0/disk0.qcow2", extensions=QCOW2_BACKING)
    header = read(content, backing="../p0/disk0.qcow2")
    assert (header.backing_file, header.backing_format) == ("../p0/disk0.qcow2", "qcow2")
    for other in (None, "", "../p1/disk0.qcow2"):
        with pytest.raises(ImageRejectedError):
            read(content, backing=other)
    with pytest.raises(ImageRejectedError):
        read(image(), backing="../p0/disk0.qcow2")


@pytest.mark.parametrize("changes", [{"incompatible": 1 << 4, "l1_entries": 5}, {"compatible": 1}, {"autoclear": 1}])
def test_harmless_features_are_accepted(read, changes):
    read(image(changes))


def test_zstd_is_accepted_only_if_flag_and_field_agree(read):
    def with_kind(kind, flag):
        content = bytearray(image({"incompatible": flag}))
        content[104] = kind
        return bytes(content)

    assert read(with_kind(1, 1 << 3)).compression == "zstd"
    for kind, flag in ((1, 0), (0, 1 << 3), (2, 1 << 3)):
        with pytest.raises(ImageRejectedError):
            read(with_kind(kind, flag))


@pytest.mark.parametrize(
    "changes",
    [
        {"magic": b"QFI\xfa"},
        {"version": 2},
        {"version": 4},
        {"cluster_bits": 8},
        {"cluster_bits": 22},
        {"cluster_bits": 1 << 31},
        {"crypt_method": 1},
        {"crypt_method": 2},
        {"incompatible": 1},
        {"incompatible": 2},
        {"incompatible": 4},
        {"incompatible": 1 << 5},
        {"incompatible": 1 << 63},
        {"autoclear": 2},
        {"autoclear": 1 << 40},
        {"snapshots": 1},
        {"refcount_order": 7},
        {"header_length": 72},
        {"header_length": 108},
        {"header_length": CLUSTER + 8},
        {"size": 0},
        {"size": 513},
        {"size": 1 << 63},
        {"size": (1 << 64) - 512},
        {"l1_entries": 2},
        {"l1_entries": (4 << 20) + 1},
        {"l1_offset": 0},
        {"l1_offset": 3 * CLUSTER + 8},
        {"l1_offset": 4 * CLUSTER},
        {"l1_offset": 1 << 62},
        {"refcount_offset": 0},
        {"refcount_offset": 7},
        {"refcount_clusters": 0},
        {"refcount_clusters": 129},
        {"refcount_clusters": 100},
        {"backing_offset": 8, "backing_length": 4},
        {"backing_offset": CLUSTER - 2, "backing_length": 4},
        {"backing_offset": 4096, "backing_length": 0},
        {"backing_offset": 4096, "backing_length": 1024},
        {"backing_offset": 4096, "backing_length": 4},
    ],
)
def test_everything_else_is_refused(read, changes):
    with pytest.raises(ImageRejectedError) as caught:
        read(image(changes))
    assert caught.value.details["reason"]


@pytest.mark.parametrize(
    "extensions",
    [
        extension(0x44415441, b"/etc/shadow"),
        extension(0x0537BE77, bytes(16)),
        extension(0x12345678, b"x"),
        QCOW2_BACKING + QCOW2_BACKING,
        struct.pack(">II", 0xE2792ACA, 1 << 31),
    ],
    ids=["data file", "encryption", "unknown", "twice", "too long"],
)
def test_other_extensions_are_refused(read, extensions):
    with pytest.raises(ImageRejectedError):
        read(image(extensions=extensions))


@pytest.mark.parametrize("stated", [b"", b"vmdk", b"luks", b"\xff"])
def test_a_backing_file_of_another_format_is_refused(read, stated):
    with pytest.raises(ImageRejectedError):
        read(image(name=b"x", extensions=extension(0xE2792ACA, stated) if stated else b""))


@pytest.mark.parametrize("length", [0, 3, 72, 103, CLUSTER, 3 * CLUSTER + 23])
def test_a_file_that_is_cut_off_is_refused(read, length):
    with pytest.raises(ImageRejectedError):
        read(image()[:length])


def test_what_is_not_a_plain_file_is_refused(tmp_path):
    (tmp_path / "image").write_bytes(image())
    (tmp_path / "link").symlink_to(tmp_path / "image")
    for path in ("link", "absent", "."):
        with pytest.raises(ImageRejectedError):
            read_qcow2_header(str(tmp_path / path))
    with pytest.raises(ImageRejectedError):
        read_qcow2_header("/dev/null")


@settings(max_examples=400, deadline=None)
@given(st.data())
def test_any_bytes_are_judged_never_anything_else(tmp_path_factory, data):
    path = tmp_path_factory.getbasetemp() / "fuzzed"
    content = bytearray(image(name=b"../p0/disk0.qcow2", extensions=QCOW2_BACKING))
    for _change in range(data.draw(st.integers(1, 4))):
        offset = data.draw(st.one_of(st.integers(0, 160), st.integers(4096, 4120)))
        new = data.draw(st.binary(min_size=1, max_size=8))
        content[offset : offset + len(new)] = new
    path.write_bytes(content)
    try:
        header = read_qcow2_header(str(path), "../p0/disk0.qcow2")
    except ImageRejectedError:
        return
    assert header.backing_file == "../p0/disk0.qcow2" and header.backing_format in ("qcow2", "raw")
    assert header.size % 512 == 0 and header.size <= 1 << 56
