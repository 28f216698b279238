# Copyright: (c) 2026, Sendense contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Images made and looked at with the real qemu tools, hostile ones included."""

from __future__ import annotations

import json
import os
import resource
import subprocess

import pytest

from ansible_collections.sendense.platform.plugins.module_utils.datapath.extents import Extent
from ansible_collections.sendense.platform.plugins.module_utils.datapath.images import (
    allocated_ranges,
    create_qcow2,
    create_raw,
    node_filename,
    node_paths,
    qcow2_node,
    raw_node,
    read_qcow2_header,
)
from ansible_collections.sendense.platform.plugins.module_utils.errors import (
    DependencyMissingError,
    ImageRejectedError,
    InvalidInputError,
    MachineExistsError,
    RepositoryFullError,
    RepositoryIoError,
)
from tests.faults.failing import small_filesystem
from tests.integration.datapath.servers import BLOCK, MIB, bitmap, chain, compare, qemu_io

CANARY = b"CANARY-" * 1000


def qemu_img(*words, **options):
    return subprocess.run(["qemu-img", *map(str, words)], check=True, capture_output=True, **options).stdout


def info(path):
    return json.loads(qemu_img("info", "-f", "qcow2", "--output=json", path))


@pytest.mark.parametrize("size", [512, 1536, BLOCK, 10 * MIB + 512, 200 * MIB + 7 * 512, (11 << 40) + 512])
def test_sizes_stay_exact(tmp_path, size):
    assert create_qcow2(str(tmp_path / "a"), size).size == size
    assert info(tmp_path / "a")["virtual-size"] == size
    create_raw(str(tmp_path / "b"), size)
    assert (tmp_path / "b").stat().st_size == size and (tmp_path / "b").stat().st_blocks == 0
    assert (tmp_path / "a").stat().st_mode & 0o777 == (tmp_path / "b").stat().st_mode & 0o777 == 0o600


@pytest.mark.parametrize("size", [0, -512, 1, 513, 1 << 70])
def test_other_sizes_are_refused_and_leave_nothing(tmp_path, size):
    for create in (create_qcow2, create_raw):
        with pytest.raises(InvalidInputError):
            create(str(tmp_path / "a"), size)
    assert os.listdir(tmp_path) == []


def test_a_backing_name_is_kept_as_it_is(tmp_path):
    """Relative, never opened: the parent need not even be there, and the directory can move."""
    (tmp_path / "p1").mkdir()
    create_qcow2(str(tmp_path / "p1" / "disk0.qcow2"), MIB, "../p0/disk0.qcow2")
    header = read_qcow2_header(str(tmp_path / "p1" / "disk0.qcow2"), "../p0/disk0.qcow2")
    assert (header.backing_file, header.backing_format) == ("../p0/disk0.qcow2", "qcow2")


@pytest.mark.parametrize(
    "name", ["/etc/shadow", "json:{}", "nbd://h/x", "a:b", "-b", "", "a/../../b", "a b", "{{x}}", "a\nb", "../.hidden"]
)
def test_other_backing_names_are_refused(tmp_path, name):
    with pytest.raises(InvalidInputError):
        create_qcow2(str(tmp_path / "a"), MIB, name)
    assert os.listdir(tmp_path) == []


def test_nothing_is_overwritten(tmp_path):
    (tmp_path / "a").write_bytes(b"precious")
    (tmp_path / "link").symlink_to(tmp_path / "elsewhere")
    for name in ("a", "link"):
        for create in (create_qcow2, create_raw):
            with pytest.raises(MachineExistsError):
                create(str(tmp_path / name), MIB)
    assert (tmp_path / "a").read_bytes() == b"precious" and not (tmp_path / "elsewhere").exists()
    with pytest.raises(RepositoryIoError):
        create_qcow2(str(tmp_path / "absent" / "a"), MIB)


def test_a_full_storage_is_named_and_nothing_is_left(tmp_path):
    where = tmp_path / "small"
    with small_filesystem(where, 1):
        (where / "filler").write_bytes(bytes(MIB - 16 * 4096))
        with pytest.raises(RepositoryFullError):
            create_qcow2(str(where / "disk0.qcow2"), MIB)
        assert os.listdir(where) == ["filler"]


def test_a_file_that_may_not_grow_is_an_error_and_nothing_is_left(tmp_path):
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (64 * 1024, hard))
    try:
        with pytest.raises(RepositoryIoError):
            create_qcow2(str(tmp_path / "disk0.qcow2"), MIB)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert os.listdir(tmp_path) == []


def test_missing_qemu_img_is_named(tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(DependencyMissingError):
        create_qcow2(str(tmp_path / "a"), MIB)
    assert os.listdir(tmp_path) == []


def test_paths_with_qemu_syntax_are_just_paths(tmp_path):
    odd = tmp_path / "a,b=c json:{} nbd:x"
    odd.mkdir()
    create_qcow2(str(odd / "disk0.qcow2"), MIB)
    qemu_io_node = node_filename(qcow2_node(str(odd / "disk0.qcow2")))
    subprocess.run(["qemu-io", "-c", "write -P 7 0 64k", qemu_io_node], check=True, capture_output=True)
    assert allocated_ranges(str(odd / "disk0.qcow2")) == [Extent(0, BLOCK, True, False)]


def test_an_explicit_chain_ignores_what_headers_say(tmp_path):
    """A header that names a secret file is not followed where the chain is stated."""
    (tmp_path / "secret").write_bytes(CANARY.ljust(MIB, b"!"))
    for name in ("base", "top"):
        qemu_img("create", "-q", "-f", "qcow2", "-b", tmp_path / "secret", "-F", "raw", tmp_path / name, MIB)
    qemu_io(tmp_path / "top", "write -P 7 0 64k")
    create_raw(str(tmp_path / "expected"), MIB)
    with open(tmp_path / "expected", "r+b") as stream:
        stream.write(b"\7" * BLOCK)
    node = chain(tmp_path / "base", tmp_path / "top")
    assert compare(tmp_path / "expected", node)
    assert node_paths(node) == [str(tmp_path / "top"), str(tmp_path / "base")]
    assert node["backing"]["read-only"] and node["backing"]["backing"] is None


def test_a_raw_node_stays_raw(tmp_path):
    qemu_img("create", "-q", "-f", "qcow2", "-b", "/etc/hostname", "-F", "raw", tmp_path / "guest", MIB)
    qemu_img("convert", "-O", "raw", node_filename(raw_node(str(tmp_path / "guest"))), tmp_path / "copy")
    length = (tmp_path / "guest").stat().st_size
    assert (tmp_path / "copy").read_bytes()[:length] == (tmp_path / "guest").read_bytes()


def test_options_of_a_node_reach_the_file(tmp_path):
    create_qcow2(str(tmp_path / "a"), MIB)
    node = qcow2_node(str(tmp_path / "a"), cache_direct=True, aio="threads")
    assert node["file"]["cache"] == {"direct": True, "no-flush": False} and node["file"]["aio"] == "threads"
    qemu_img("map", "--output=json", node_filename(node))


def test_allocated_ranges_are_of_the_top_alone(tmp_path):
    size = 4 * MIB + 512
    create_qcow2(str(tmp_path / "base"), size)
    qemu_io(tmp_path / "base", "write -P 1 0 4M")
    create_qcow2(str(tmp_path / "top"), size, "base")
    qemu_io(tmp_path / "top", "write -P 2 1M 64k", "write -P 2 1088k 64k", "write -z 2M 128k", f"write -P 3 {size - 512} 512")
    assert allocated_ranges(str(tmp_path / "top")) == [
        Extent(MIB, 2 * BLOCK, True, False),
        Extent(2 * MIB, 2 * BLOCK, False, True),
        Extent(4 * MIB, 512, True, False),
    ]


HOSTILE = {
    "old version": ["-o", "compat=0.10"],
    "data file": ["-o", "data_file={dir}/data"],
    "encrypted": ["--object", "secret,id=s,data=abc", "-o", "encrypt.format=aes,encrypt.key-secret=s"],
    "unstated backing format": None,
}


@pytest.mark.parametrize("kind", sorted(HOSTILE))
def test_hostile_images_made_by_qemu_are_refused(tmp_path, kind):
    path = tmp_path / "image"
    if HOSTILE[kind] is None:
        qemu_img("create", "-q", "-f", "qcow2", "-b", "/etc/passwd", "-F", "raw", path, MIB)
        content = bytearray(path.read_bytes())
        content[112:116] = b"\0\0\0\0"  # ends the extensions before the one that states the format
        path.write_bytes(content)
    else:
        qemu_img("create", "-q", "-f", "qcow2", *[word.format(dir=tmp_path) for word in HOSTILE[kind]], path, MIB)
    with pytest.raises(ImageRejectedError):
        read_qcow2_header(str(path))
    with pytest.raises(ImageRejectedError):
        allocated_ranges(str(path))


@pytest.mark.parametrize("name", ["/etc/passwd", 'json:{"driver":"nbd","host":"h"}', "nbd://127.0.0.1:1/x"])
def test_backing_names_that_were_not_expected_are_refused(tmp_path, name):
    qemu_img("create", "-q", "-u", "-f", "qcow2", "-b", name, "-F", "raw", tmp_path / "image", MIB)
    assert read_qcow2_header(str(tmp_path / "image")).backing_file == name
    for expected in (None, "../p0/disk0.qcow2"):
        with pytest.raises(ImageRejectedError):
            read_qcow2_header(str(tmp_path / "image"), expected)


def test_internal_snapshots_are_refused_and_bitmaps_are_not(tmp_path):
    create_qcow2(str(tmp_path / "a"), MIB)
    bitmap(tmp_path / "a", "add", "b0")
    assert read_qcow2_header(str(tmp_path / "a")).has_bitmaps
    qemu_img("snapshot", "-c", "s0", tmp_path / "a")
    with pytest.raises(ImageRejectedError):
        read_qcow2_header(str(tmp_path / "a"))


@pytest.mark.parametrize("options", ["cluster_size=512", "cluster_size=2M", "extended_l2=on", "compression_type=zstd", "lazy_refcounts=on"])
def test_images_that_qemu_makes_otherwise_are_read_right(tmp_path, options):
    qemu_img("create", "-q", "-f", "qcow2", "-o", options, tmp_path / "a", 100 * MIB)
    assert read_qcow2_header(str(tmp_path / "a"), None).size == 100 * MIB


def test_a_cut_off_file_is_refused(tmp_path):
    create_qcow2(str(tmp_path / "a"), MIB)
    os.truncate(tmp_path / "a", 3 * BLOCK)
    with pytest.raises(ImageRejectedError):
        read_qcow2_header(str(tmp_path / "a"))
