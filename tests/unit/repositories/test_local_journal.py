# Copyright: (c) 2026, Sendense contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The journal of a merge, and the exchange of two names."""

from __future__ import annotations

import errno
import json
import os
from dataclasses import replace
from pathlib import Path

import pytest

from ansible_collections.sendense.platform.plugins.module_utils.errors import PointDamagedError, RepositoryIoError
from ansible_collections.sendense.platform.plugins.module_utils.repositories import local_files, local_journal
from ansible_collections.sendense.platform.plugins.module_utils.repositories.local_journal import Journal
from ansible_collections.sendense.platform.plugins.module_utils.repositories.local_paths import Paths

KEY = "memory-a"
IDS = [f"20261120T12000{number}Z-0000000{number}" for number in range(3)]
GOOD = Journal("merge", IDS[2], IDS[:2], "a" * 32, "2026-11-21T00:00:00Z")


@pytest.fixture
def paths(tmp_path: Path) -> Paths:
    paths = Paths(str(tmp_path))
    paths.make_machine(KEY)
    return paths


def test_a_journal_is_read_as_it_was_written_until_it_is_removed(paths: Paths) -> None:
    assert local_journal.read(paths, KEY) is None
    for journal in (GOOD, replace(GOOD, manifest_sha256="0" * 64), Journal("synthetic", IDS[2], [], "b" * 32, GOOD.began_at)):
        local_journal.write(paths, KEY, journal)
        assert local_journal.read(paths, KEY) == journal
    assert os.stat(paths.journal(KEY)).st_mode & 0o077 == 0
    assert local_journal.remove(paths, KEY) is True
    assert local_journal.remove(paths, KEY) is False


@pytest.mark.parametrize(
    "wrong",
    [
        {"kind": "synthetic"},
        {"consumed": []},
        {"consumed": "all"},
        {"consumed": ["../x"]},
        {"survivor": ".."},
        {"job_id": "me"},
        {"began_at": 7},
        {"schema_version": 2},
    ],
)
def test_a_journal_that_means_nothing_is_refused_even_with_a_right_digest(paths: Paths, wrong: "dict[str, object]") -> None:
    local_journal.write(paths, KEY, replace(GOOD, **wrong))
    with pytest.raises(PointDamagedError):
        local_journal.read(paths, KEY)


def test_a_journal_that_is_no_plain_file_is_refused(paths: Paths, tmp_path: Path) -> None:
    local_journal.write(paths, KEY, GOOD)
    (tmp_path / "aside").write_bytes(Path(paths.journal(KEY)).read_bytes())
    os.unlink(paths.journal(KEY))
    os.symlink(tmp_path / "aside", paths.journal(KEY))
    with pytest.raises(PointDamagedError):
        local_journal.read(paths, KEY)


def test_every_flip_is_noticed(paths: Paths) -> None:
    local_journal.write(paths, KEY, GOOD)
    path = Path(paths.journal(KEY))
    good = path.read_bytes()
    assert json.loads(good)["survivor"] == IDS[2]
    for offset in range(len(good)):
        for bit in (0, 3, 5, 7):
            path.write_bytes(good[:offset] + bytes([good[offset] ^ 1 << bit]) + good[offset + 1 :])
            with pytest.raises(PointDamagedError):
                local_journal.read(paths, KEY)


def test_two_directories_change_places(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "said").write_text(name)
    assert local_files.exchange(str(tmp_path / "one"), str(tmp_path / "two")) is True
    assert (tmp_path / "one" / "said").read_text() == "two" and (tmp_path / "two" / "said").read_text() == "one"
    with pytest.raises(RepositoryIoError) as error:
        local_files.exchange(str(tmp_path / "one"), str(tmp_path / "absent"))
    assert error.value.details["errno"] == errno.ENOENT
    for unable in (errno.EINVAL, errno.ENOSYS):
        monkeypatch.setattr(local_files.ctypes, "get_errno", lambda number=unable: number)
        monkeypatch.setattr(local_files, "_renameat2", lambda *arguments: -1)
        assert local_files.exchange(str(tmp_path / "one"), str(tmp_path / "two")) is False
    monkeypatch.setattr(local_files, "_renameat2", None)
    assert local_files.exchange(str(tmp_path / "one"), str(tmp_path / "two")) is False
    assert (tmp_path / "one" / "said").read_text() == "two"
