# Copyright: (c) 2026, Sendense contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Native AIO of export servers, as long as the kernel has room for it.

To use up the kernel's places would disturb every other program of the machine. So a ``qemu-nbd`` that comes first in PATH says what the
real one then says, and runs the real one otherwise.
"""

from __future__ import annotations

import os
import shutil

import pytest

from ansible_collections.sendense.platform.plugins.module_utils.datapath import exports
from ansible_collections.sendense.platform.plugins.module_utils.datapath.exports import check_export
from ansible_collections.sendense.platform.plugins.module_utils.errors import ExportFailedError
from ansible_collections.sendense.platform.plugins.module_utils.jobs.serving import start_server
from tests.integration.keeper.conftest import SIZE, node
from tests.lab.processes import command_line

SERVER = """#!/bin/sh
case " $* " in *" --aio=native "*)
    echo "qemu-nbd: Unable to use native AIO: {words}" >&2
    exit 1
esac
exec {real} "$@"
"""
FULL = "failed to create linux AIO context: Resource temporarily unavailable"


@pytest.fixture
def crowded(tmp_path, monkeypatch):
    """Makes a machine whose kernel refuses a server's queue, although there seemed to be room."""

    def make(words=FULL):
        folder = tmp_path / "bin"
        folder.mkdir()
        server = folder / "qemu-nbd"
        server.write_text(SERVER.format(words=words, real=shutil.which("qemu-nbd")))
        server.chmod(0o755)
        monkeypatch.setenv("PATH", f"{folder}:{os.environ['PATH']}")
        monkeypatch.setattr(exports, "has_room", lambda: True)

    return make


def serve(started, image):
    record = {"machine": "libvirt-1", "export": "libvirt-1-disk0", "socket": started.socket()}
    start_server(started.client, "target-disk0", node(image), record, writable=True)
    check_export(f"nbd+unix:///libvirt-1-disk0?socket={started.socket()}", SIZE)
    return command_line(started.client.ping()["children"]["target-disk0"]["pid"])


def test_a_server_uses_native_aio(start, image, monkeypatch):
    monkeypatch.setattr(exports, "has_room", lambda: True)
    assert "--aio=native" in serve(start(), image)


def test_where_others_need_the_rest_a_server_uses_threads(start, image, monkeypatch):
    monkeypatch.setattr(exports, "has_room", lambda: False)
    assert "--aio=threads" in serve(start(), image)


def test_a_server_whose_queue_the_kernel_refuses_uses_threads(start, image, crowded):
    crowded()
    assert "--aio=threads" in serve(start(), image)


def test_what_else_a_server_says_is_an_error_at_once(start, image, crowded):
    crowded(words="aio=native was specified, but is not supported in this build.")
    with pytest.raises(ExportFailedError, match="not supported in this build"):
        serve(start(), image)
