# Copyright: (c) 2026, Sendense contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The in-memory source against the contract."""

from __future__ import annotations

from pathlib import Path
from typing import Iterator

import pytest

from ansible_collections.sendense.platform.plugins.module_utils.platforms._base import Source
from tests.contract.source_contract import SourceContract, SourceLab
from tests.contract.source_doctor import SourceDoctorContract
from tests.doubles.memory_hypervisor import MemoryHypervisor, unkind_hypervisor
from tests.doubles.memory_platform import MemorySource


class MemorySourceLab(SourceLab):
    """The unkind hypervisor's first machine."""

    machine_id = "../../etc/x"

    def __init__(self, hypervisor: MemoryHypervisor, work_dir: Path) -> None:
        self.hypervisor = hypervisor
        self.work_dir = work_dir

    def source(self) -> Source:
        return MemorySource({"hypervisor": self.hypervisor})

    def write(self, disk: int, pattern: int, offset: int, length: int) -> None:
        self.hypervisor.write(self.machine_id, disk, offset, bytes([pattern]) * length)

    def content(self, disk: int) -> bytes:
        return bytes(self.hypervisor.machines[self.machine_id].disks[disk].content)

    def power(self, state: str) -> None:
        self.hypervisor.machines[self.machine_id].power = state

    def state(self) -> str:
        return repr(self.hypervisor.machines)


@pytest.fixture
def memory_lab(tmp_path: Path) -> Iterator[MemorySourceLab]:
    served, work = tmp_path / "s", tmp_path / "w"
    served.mkdir()
    work.mkdir()
    hypervisor = unkind_hypervisor(served)
    yield MemorySourceLab(hypervisor, work)
    hypervisor.close()


class TestMemorySource(SourceContract, SourceDoctorContract):
    """Machines with siblings, hostile ids and names, odd sizes."""

    @pytest.fixture
    def lab(self, memory_lab: MemorySourceLab) -> MemorySourceLab:
        return memory_lab
