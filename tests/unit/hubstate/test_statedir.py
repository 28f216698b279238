# Copyright: (c) 2026, Sendense contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

import multiprocessing
import os
import re
import tempfile
from pathlib import Path

import pytest

from ansible_collections.sendense.platform.plugins.module_utils.errors import InvalidInputError
from ansible_collections.sendense.platform.plugins.module_utils.hubstate.files import read_json, read_tail, write_json
from ansible_collections.sendense.platform.plugins.module_utils.hubstate.jobs import JobDir
from ansible_collections.sendense.platform.plugins.module_utils.hubstate.statedir import MAX_SOCKET_BYTES, SOCKET_TAIL_BYTES, StateDir
from ansible_collections.sendense.platform.plugins.module_utils.platforms.libvirt.naming import socket_path

JOB = "a" * 32


def _modes(root):
    for folder, folders, names in os.walk(root):
        for name in folders + names:
            path = os.path.join(folder, name)
            yield path, os.lstat(path).st_mode & 0o777


def test_the_constructor_touches_nothing(tmp_path):
    StateDir(str(tmp_path / "none"))
    assert not (tmp_path / "none").exists()


def test_everything_is_private(state):
    job = JobDir.create(state, "a" * 32, "hub", {"machine_key": "libvirt-1"})
    job.save_undos([{"name": "x", "argv": ["true"]}])
    job.cancel()
    state.hub_id()
    old = os.umask(0)
    try:
        write_json(os.path.join(state.path, "open.json"), {})
    finally:
        os.umask(old)
    for path, mode in _modes(state.path):
        assert mode == (0o700 if os.path.isdir(path) else 0o600), path
    job.lock.release()


def test_create_twice_changes_nothing(state):
    before = sorted(os.listdir(state.path))
    state.create()
    assert sorted(os.listdir(state.path)) == before


def test_a_path_too_long_for_sockets_is_refused_before_anything_is_made(tmp_path):
    path = str(tmp_path / ("x" * 60))
    with pytest.raises(InvalidInputError, match="too long"):
        StateDir(path).create()
    assert not os.path.exists(path)


def test_the_longest_accepted_path_leaves_room_for_every_socket():
    with tempfile.TemporaryDirectory(prefix="ssd-") as folder:
        accepted = os.path.join(folder, "x" * (MAX_SOCKET_BYTES - SOCKET_TAIL_BYTES - len(folder) - 1))
        work = JobDir(StateDir(accepted).create(), JOB, "node").path
        for longest in (os.path.join(work, "reread-disk100.sock"), socket_path(work, JOB, "b" * 8)):
            assert len(longest) <= MAX_SOCKET_BYTES
        with pytest.raises(InvalidInputError, match="too long"):
            StateDir(f"{accepted}x").create()
        assert not os.path.exists(f"{accepted}x")


def test_the_longest_socket_name_is_the_platforms():
    state = StateDir("/s")
    assert len(socket_path(JobDir(state, JOB, "node").path, JOB, "b" * 8)) == len("/s") + SOCKET_TAIL_BYTES


def _id(path, queue):
    queue.put(StateDir(path).hub_id())


def test_hub_id_is_made_once_even_by_many(state):
    context = multiprocessing.get_context("fork")
    queue = context.Queue()
    makers = [context.Process(target=_id, args=(state.path, queue)) for _ in range(8)]
    for maker in makers:
        maker.start()
    found = {queue.get(timeout=30) for _ in makers}
    for maker in makers:
        maker.join()
    queue.close()
    queue.join_thread()
    assert found == {state.hub_id()}
    assert re.fullmatch(r"[0-9a-f-]{36}", found.pop())
    assert [name for name in os.listdir(state.path) if name.startswith("hub_id.")] == []


def test_a_damaged_hub_id_is_not_replaced_silently(state):
    with open(os.path.join(state.path, "hub_id"), "w", encoding="ascii") as stream:
        stream.write("../../etc\n")
    with pytest.raises(InvalidInputError, match="identity"):
        state.hub_id()


def test_json_files_are_replaced_whole(tmp_path):
    path = str(tmp_path / "x.json")
    write_json(path, {"a": 1}, durable=True)
    with pytest.raises(TypeError):
        write_json(path, {"a": object()})
    assert read_json(path) == {"a": 1}
    assert os.listdir(tmp_path) == ["x.json"]


def test_unreadable_json_is_the_default(tmp_path):
    (tmp_path / "half.json").write_text('{"a": ')
    assert read_json(str(tmp_path / "half.json"), 7) == 7
    assert read_json(str(tmp_path / "none.json"), []) == []


def test_the_tail_of_a_file(tmp_path):
    (tmp_path / "log").write_bytes(b"x" * 5000 + b"\xff last words\n")
    assert read_tail(str(tmp_path / "log"), 12) == "last words"
    assert read_tail(str(tmp_path / "none")) == ""


def test_the_identity_is_of_the_directory_and_not_of_its_name(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "b").mkdir()
    (tmp_path / "link").symlink_to("a")
    names = [StateDir(str(tmp_path / name)).identity() for name in ("a", "link", "b", "none")]
    assert names[0] == names[1] != names[2] and names[3] == ""
