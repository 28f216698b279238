# Copyright: (c) 2026, Sendense contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The in-memory repository keeps the contract: what other tests build on is not softer than the product."""

from __future__ import annotations

from pathlib import Path
from typing import Iterator

import pytest

from ansible_collections.sendense.platform.plugins.module_utils.repositories._base import Repository
from tests.contract.clock import Clock
from tests.contract.repository_contract import RepositoryContract
from tests.contract.repository_place import RepositoryPlace
from tests.doubles.memory_repository import MemoryRepository, MemoryStore


class TestMemoryRepository(RepositoryContract):
    """The suite on a store in memory."""

    @pytest.fixture
    def place(self, tmp_path: Path) -> Iterator[RepositoryPlace]:
        clock = Clock()
        store = MemoryStore(tmp_path / "images", clock=clock)

        def opened(repository_id: str) -> Repository:
            return MemoryRepository(store, repository_id)

        yield RepositoryPlace(
            open=opened,
            lose=lambda: setattr(store, "marker", None),
            exhaust=lambda: setattr(store, "free_bytes", 4096),
            wait_until=clock.set,
        )
