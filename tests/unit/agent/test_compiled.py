# Copyright: (c) 2026, Sendense contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The agent with byte code beside the stored one."""

from __future__ import annotations

import os
import subprocess
import sys
import zipfile

import pytest

from ansible_collections.sendense.platform.plugins.module_utils.agent.build import NAMESPACE, build_agent
from ansible_collections.sendense.platform.plugins.module_utils.agent.store import compiled


@pytest.fixture
def agent(tmp_path):
    """A stored agent."""
    path = tmp_path / "0123.pyz"
    path.write_bytes(build_agent()[0])
    return path


def imported(path, flag=""):
    """Where the interpreter says that it has the agent's main module from; ``flag`` is one of its options."""
    code = f"import sys; sys.path[0] = {str(path)!r}; import {NAMESPACE.replace('/', '.')}.agent.main as m; print(m.__cached__)"
    argv = [sys.executable, *([flag] if flag else []), "-c", code]
    return subprocess.run(argv, check=True, capture_output=True, text=True).stdout.strip()


def test_byte_code_is_used_and_the_stored_agent_stays_as_it_is(agent):
    before = agent.read_bytes()
    fast = compiled(str(agent))
    assert fast == str(agent.with_name(f"0123.{sys.implementation.cache_tag}.pyz"))
    assert agent.read_bytes() == before and sorted(os.listdir(agent.parent)) == sorted([agent.name, os.path.basename(fast)])
    assert imported(fast).endswith("main.pyc") and not imported(agent).endswith("main.pyc")
    assert os.stat(fast).st_mode & 0o777 == 0o600
    answer = subprocess.run([sys.executable, fast, "keeper", "--help"], capture_output=True, text=True, check=False)
    assert answer.returncode == 0 and "--job-id" in answer.stdout


def test_it_is_made_once(agent):
    inode = os.stat(compiled(str(agent))).st_ino
    assert os.stat(compiled(str(agent))).st_ino == inode


def test_every_source_file_comes_with_its_byte_code(agent):
    names = zipfile.ZipFile(compiled(str(agent))).namelist()
    sources = [name for name in names if name.endswith(".py")]
    assert sorted(names) == sorted(sources + [f"{name}c" for name in sources]) and len(sources) > 50


def test_another_interpreter_reads_the_source(agent):
    """Byte code with a foreign magic number is passed over."""
    fast = compiled(str(agent))
    foreign = agent.with_name("foreign.pyz")
    with zipfile.ZipFile(fast) as archive, zipfile.ZipFile(foreign, "w") as result:
        for name in archive.namelist():
            content = archive.read(name)
            result.writestr(name, b"\0\0\r\n" + content[4:] if name.endswith(".pyc") else content)
    assert imported(foreign).endswith("main.pyc") is False


@pytest.mark.parametrize("content", [None, b"", b"this is no zip file"])
def test_what_cannot_be_compiled_is_run_as_it_is(tmp_path, content):
    path = tmp_path / "broken.pyz"
    if content is not None:
        path.write_bytes(content)
    assert compiled(str(path)) == str(path)
    assert os.listdir(tmp_path) == ([path.name] if content is not None else [])


def test_a_directory_that_cannot_be_written_does_not_matter(tmp_path):
    folder = tmp_path / ("x" * 240)
    folder.mkdir()
    path = folder / f"{'0' * 245}.pyz"  # a longer name is refused by the file system
    path.write_bytes(build_agent()[0])
    assert compiled(str(path)) == str(path)
