# Copyright: (c) 2026, Sendense contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

import hashlib
import io
import os
import subprocess
import zipfile

import pytest

from ansible_collections.sendense.platform.plugins.module_utils.agent.build import NAMESPACE, build_agent
from ansible_collections.sendense.platform.plugins.module_utils.agent.store import agent_path, is_stored, store_agent
from ansible_collections.sendense.platform.plugins.module_utils.errors import DependencyMissingError, InvalidInputError
from ansible_collections.sendense.platform.plugins.module_utils.hubstate.statedir import StateDir

PYTHON = "/usr/bin/python3"


@pytest.fixture(scope="module")
def built():
    return build_agent()


@pytest.fixture
def stored(built, tmp_path):
    path = tmp_path / "agent.pyz"
    path.write_bytes(built[0])
    return str(path)


def _source(root, order):
    for name in order:
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(f"# {name}\n")
    (root / "agent" / "__pycache__").mkdir()
    (root / "agent" / "__pycache__" / "main.pyc").write_bytes(os.urandom(8))
    return str(root)


def test_the_same_source_gives_the_same_bytes_wherever_and_whenever(tmp_path):
    names = ["agent/main.py", "agent/__init__.py", "errors.py", "__init__.py", "deep/er/x.py"]
    one, two = _source(tmp_path / "a", names), _source(tmp_path / "b", list(reversed(names)))
    os.utime(os.path.join(two, "errors.py"), (1, 1))
    os.chmod(os.path.join(two, "errors.py"), 0o600)
    assert build_agent(one) == build_agent(two)
    with open(os.path.join(two, "errors.py"), "a", encoding="ascii") as stream:
        stream.write("x = 1\n")
    assert build_agent(one)[1] != build_agent(two)[1]


def test_the_digest_is_that_of_the_bytes(built):
    assert hashlib.sha256(built[0]).hexdigest() == built[1]


def test_every_level_is_a_package(built):
    names = set(zipfile.ZipFile(io.BytesIO(built[0])).namelist())
    for name in names - {"__main__.py"}:
        parts = name.split("/")
        assert name.endswith(".py")
        for depth in range(1, len(parts)):
            assert "/".join(parts[:depth] + ["__init__.py"]) in names
    assert f"{NAMESPACE}/hubstate/locks.py" in names


def test_a_directory_without_source_is_refused(tmp_path):
    with pytest.raises(DependencyMissingError, match="no source code"):
        build_agent(str(tmp_path))


def _run(stored, *arguments):
    # -I: nothing of this checkout can leak in; -W error: the agent starts without a warning.
    return subprocess.run([PYTHON, "-I", "-W", "error", stored, *arguments], capture_output=True, text=True, timeout=60, cwd="/")


def test_it_runs_with_nothing_but_a_python(stored):
    help_text = _run(stored, "--help")
    assert help_text.returncode == 0 and "keeper,merger,mover,release,verifier" in help_text.stdout
    for wrong in ([], ["nonsense"], ["../keeper"]):
        refused = _run(stored, *wrong)
        assert refused.returncode == 2 and refused.stderr.startswith("usage:")


@pytest.mark.parametrize("command", ["keeper", "mover", "verifier", "release"])
def test_every_command_is_there(stored, command):
    answer = _run(stored, command, "--help")
    assert answer.returncode == 0, answer.stderr
    assert "--" in answer.stdout


def test_a_typed_error_is_one_line_of_json(stored, tmp_path):
    answer = _run(stored, "keeper", "--state-dir", str(tmp_path), "--job-id", "a" * 32, "--role", "hub")
    assert answer.returncode == 1
    assert '"error_code": "JOB_NOT_FOUND"' in answer.stderr and "Traceback" not in answer.stderr


def test_storing_is_atomic_and_repeatable(built, tmp_path):
    state = StateDir(str(tmp_path))
    os.mkdir(state.agent)
    path = store_agent(state, *built)
    assert path == agent_path(state, built[1]) and is_stored(state, built[1])
    inode = os.stat(path).st_ino
    assert store_agent(state, *built) == path
    assert os.stat(path).st_ino == inode
    assert os.listdir(state.agent) == [f"{built[1]}.pyz"]
    assert os.stat(path).st_mode & 0o777 == 0o600


def test_a_damaged_copy_is_replaced(built, tmp_path):
    state = StateDir(str(tmp_path))
    os.mkdir(state.agent)
    path = store_agent(state, *built)
    with open(path, "r+b") as stream:
        stream.truncate(100)
    assert not is_stored(state, built[1])
    store_agent(state, *built)
    assert is_stored(state, built[1])


def test_content_of_another_digest_is_refused(built, tmp_path):
    state = StateDir(str(tmp_path))
    os.mkdir(state.agent)
    with pytest.raises(InvalidInputError, match="damaged on its way"):
        store_agent(state, built[0] + b"x", built[1])
    for digest in ("", "../" + "a" * 61, "A" * 64):
        with pytest.raises(InvalidInputError):
            store_agent(state, built[0], digest)
    assert os.listdir(state.agent) == []
