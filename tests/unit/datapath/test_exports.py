# Copyright: (c) 2026, Sendense contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

import json

import pytest

from ansible_collections.sendense.platform.plugins.module_utils.datapath.exports import export_argv, node_files, supports_direct
from ansible_collections.sendense.platform.plugins.module_utils.errors import InvalidInputError

HOSTILE = ["-rf", "--help", "$(id)", "`id`", ";id", "{{ 7*7 }}", "../../etc/passwd", "a,b=c", "%2e", "naïve", "a b", "'\"", "x\ny"]


@pytest.fixture
def image(tmp_path):
    path = tmp_path / "disk0.qcow2"
    path.write_bytes(b"\0" * 65536)
    return str(path)


@pytest.fixture
def node(image):
    return {"driver": "qcow2", "backing": None, "file": {"driver": "file", "filename": image}}


def test_a_writable_export_on_a_port(node):
    argv, env = export_argv(node, export="libvirt-1-disk0", port=10100, writable=True, cache="none", aio="native")
    assert argv[:-1] == [
        "qemu-nbd",
        "--persistent",
        "--shared=10",
        "--export-name=libvirt-1-disk0",
        "--cache=none",
        "--aio=native",
        "--bind=127.0.0.1",
        "--port=10100",
        "--discard=unmap",
        "--detect-zeroes=unmap",
    ]
    assert argv[-1].startswith("json:") and json.loads(argv[-1][5:]) == node
    assert env == {"MALLOC_MMAP_THRESHOLD_": "8388608", "MALLOC_TRIM_THRESHOLD_": "16777216", "MALLOC_ARENA_MAX": "1"}


def test_a_read_only_export_on_a_socket_with_a_bitmap(node):
    argv, _env = export_argv(node, export="x", socket="/run/x.sock", bitmap="chk", cache="writeback")
    assert "--read-only" in argv and "--bitmap=chk" in argv and "--socket=/run/x.sock" in argv and "--aio=threads" in argv
    assert not [word for word in argv if word.startswith(("--discard", "--port", "--bind"))]


def test_the_page_cache_is_bypassed_where_every_layer_allows_it(node, image, monkeypatch):
    module = "ansible_collections.sendense.platform.plugins.module_utils.datapath.exports.supports_direct"
    chain = dict(node, backing={"driver": "raw", "file": {"driver": "file", "filename": "/base"}})
    assert sorted(node_files(chain)) == sorted([image, "/base"])
    monkeypatch.setattr(module, lambda path: True)
    assert "--cache=none" in export_argv(chain, export="x", port=1)[0]
    monkeypatch.setattr(module, lambda path: path != "/base")
    argv = export_argv(chain, export="x", port=1)[0]
    assert "--cache=writeback" in argv and "--aio=threads" in argv


def test_the_probe_looks_at_the_real_file_system(image):
    assert supports_direct(image) in (True, False)
    # /proc serves no direct I/O at all.
    assert supports_direct("/proc/self/stat") is False
    with pytest.raises(FileNotFoundError):
        supports_direct(image + ".none")


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_names_stay_inside_their_own_argument(node, name):
    argv, _env = export_argv(node, export=name, port=10100, bitmap=name)
    assert argv.count(f"--export-name={name}") == 1 and argv.count(f"--bitmap={name}") == 1
    assert all(word == "qemu-nbd" or word.startswith(("--", "json:")) for word in argv)


@pytest.mark.parametrize("name", ["", "a\0b", "x" * 4097, "\udcff"])
def test_names_that_nbd_cannot_carry_are_refused(node, name):
    with pytest.raises(InvalidInputError):
        export_argv(node, export=name, port=10100)
    with pytest.raises(InvalidInputError):
        export_argv(node, export="x", port=10100, bitmap=name)


@pytest.mark.parametrize("where", [{}, {"port": 1, "socket": "/x"}, {"port": 0}, {"port": 65536}, {"port": "1"}, {"port": -1}])
@pytest.mark.parametrize("writable", [True, False])
def test_an_export_listens_at_exactly_one_place(node, where, writable):
    with pytest.raises(InvalidInputError):
        export_argv(node, export="x", writable=writable, **where)


@pytest.mark.parametrize("socket", ["", "x.sock", "/" + "x" * 107, "/a\0b"])
def test_sockets_that_cannot_be_bound_are_refused(node, socket):
    with pytest.raises(InvalidInputError):
        export_argv(node, export="x", socket=socket)


@pytest.mark.parametrize(
    "bad",
    [
        {},
        {"driver": "qcow2"},
        {"file": {"driver": "file", "filename": "/x"}},
        {"driver": "qcow2", "file": {"driver": "file", "filename": "/x"}},
        {"driver": "qcow2", "backing": "/x", "file": {"driver": "file", "filename": "/x"}},
        {"driver": "qcow2", "backing": {}, "file": {"driver": "file", "filename": "/x"}},
        {"driver": "raw", "file": {"driver": "nbd", "host": "evil", "port": "1"}},
        {"driver": "raw", "file": {"driver": "file", "filename": "relative"}},
        {"driver": "raw", "file": {"driver": "file", "filename": "nbd://evil"}},
        {"driver": "raw", "file": {"driver": "file", "filename": "json:{}"}},
        {"driver": "raw", "file": "/x"},
        {"driver": "vvfat", "dir": "/etc"},
        "/x",
    ],
)
def test_nodes_that_leave_anything_to_guesses_are_refused(bad):
    with pytest.raises(InvalidInputError):
        export_argv(bad, export="x", port=1, cache="none")


@pytest.mark.parametrize("modes", [{"cache": "fast"}, {"aio": "magic"}, {"cache": "writeback", "aio": "native"}, {"clients": 0}])
def test_modes_that_qemu_does_not_know_are_refused(node, modes):
    with pytest.raises(InvalidInputError):
        export_argv(node, export="x", port=1, **modes)
