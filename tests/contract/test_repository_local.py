# Copyright: (c) 2026, Sendense contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The local repository keeps the contract, on a real directory."""

from __future__ import annotations

import subprocess
from pathlib import Path
from typing import Iterator

import pytest

from ansible_collections.sendense.platform.plugins.module_utils.repositories._base import Repository
from ansible_collections.sendense.platform.plugins.module_utils.repositories.local import LocalRepository
from tests.contract.clock import Clock
from tests.contract.repository_contract import RepositoryContract
from tests.contract.repository_place import RepositoryPlace


def release(root: Path) -> None:
    """Take immutable flags off, so that the test's directory can be removed."""
    for path in [root, *root.rglob("*")] if root.exists() else []:
        if not path.is_symlink():
            subprocess.run(["chattr", "-i", "--", str(path)], capture_output=True, check=False, timeout=30)


class TestLocalRepository(RepositoryContract):
    """The suite on a directory below tmp_path."""

    @pytest.fixture
    def place(self, tmp_path: Path) -> Iterator[RepositoryPlace]:
        root = tmp_path / "repository"
        clock = Clock()
        reserve = {"bytes": 1 << 20}

        def opened(repository_id: str) -> Repository:
            return LocalRepository(str(root), repository_id, reserve_bytes=reserve["bytes"], clock=clock)

        def lose() -> None:
            root.rename(tmp_path / "unmounted")
            root.mkdir()

        yield RepositoryPlace(open=opened, lose=lose, exhaust=lambda: reserve.update(bytes=1 << 60), wait_until=clock.set)
        release(root)
