# Copyright: (c) 2026, Sendense contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The in-memory target against the contract, plain and behind the faulty one."""

from __future__ import annotations

from pathlib import Path
from typing import Dict, Iterator, Set

import pytest

from ansible_collections.sendense.platform.plugins.module_utils.platforms._base import Target
from tests.contract.target_contract import TargetContract, TargetLab, known_names
from tests.doubles.faulty_platform import Fault, FaultyTarget
from tests.doubles.memory_hypervisor import MemoryHypervisor, MemoryMachine
from tests.doubles.memory_platform import MemoryTarget


class MemoryTargetLab(TargetLab):
    """An empty hypervisor."""

    hostile_name = "/../x"
    network = "lan"

    def __init__(self, hypervisor: MemoryHypervisor, storage: Path, sockets: Path) -> None:
        self.hypervisor, self.storage, self.sockets = hypervisor, storage, sockets

    def target(self) -> Target:
        return MemoryTarget({"hypervisor": self.hypervisor})

    def names(self) -> Set[str]:
        return known_names([machine.name for machine in self.hypervisor.machines.values()])

    def add_machine(self, name: str) -> None:
        self.hypervisor.add(MemoryMachine(f"foreign {name}", name, []))

    def content(self, machine_id: str) -> Dict[str, bytes]:
        return {disk.id: bytes(disk.content) for disk in self.hypervisor.machines[machine_id].disks}

    def platform(self) -> str:
        return "memory"


class FaultyTargetLab(MemoryTargetLab):
    """Every target is wrapped, without a fault."""

    def target(self) -> Target:
        return FaultyTarget(super().target(), Fault())


@pytest.fixture
def parts(tmp_path: Path) -> Iterator["tuple[MemoryHypervisor, Path, Path]"]:
    for name in ("h", "storage", "s"):
        (tmp_path / name).mkdir()
    hypervisor = MemoryHypervisor(tmp_path / "h")
    yield hypervisor, tmp_path / "storage", tmp_path / "s"
    hypervisor.close()


class TestMemoryTarget(TargetContract):
    @pytest.fixture
    def lab(self, parts: "tuple[MemoryHypervisor, Path, Path]") -> MemoryTargetLab:
        return MemoryTargetLab(*parts)


class TestFaultyTarget(TargetContract):
    @pytest.fixture
    def lab(self, parts: "tuple[MemoryHypervisor, Path, Path]") -> MemoryTargetLab:
        return FaultyTargetLab(*parts)
