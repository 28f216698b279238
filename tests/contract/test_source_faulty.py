# Copyright: (c) 2026, Sendense contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The faulty source is transparent until its fault comes, and then says so."""

from __future__ import annotations

from pathlib import Path
from typing import Iterator

import pytest

from ansible_collections.sendense.platform.plugins.module_utils.errors import PlatformUnreachableError
from ansible_collections.sendense.platform.plugins.module_utils.platforms._base import Source
from tests.contract.source_contract import SourceContract
from tests.contract.source_doctor import SourceDoctorContract
from tests.contract.test_source_memory import MemorySourceLab
from tests.doubles.faulty_platform import Fault, FaultySource
from tests.doubles.memory_hypervisor import unkind_hypervisor


class FaultyLab(MemorySourceLab):
    """Every source is wrapped, without a fault."""

    def source(self) -> Source:
        return FaultySource(super().source(), Fault())


class TestFaultySource(SourceContract, SourceDoctorContract):
    @pytest.fixture
    def lab(self, tmp_path: Path) -> Iterator[FaultyLab]:
        served, work = tmp_path / "s", tmp_path / "w"
        served.mkdir()
        work.mkdir()
        hypervisor = unkind_hypervisor(served)
        yield FaultyLab(hypervisor, work)
        hypervisor.close()

    @pytest.mark.parametrize(("lost", "took_effect"), [("request", False), ("reply", True)])
    def test_the_fault_comes_at_its_call_and_stays(self, lab: FaultyLab, lost: str, took_effect: bool) -> None:
        source = FaultySource(lab.source(), Fault(2, lost))
        source.connect()
        with pytest.raises(PlatformUnreachableError, match="call 2, discover"):
            source.discover()
        with pytest.raises(PlatformUnreachableError, match="call 3, machine"):
            source.machine(lab.machine_id)
        inner = source.inner
        assert isinstance(inner, FaultySource)
        assert inner.fault.calls == 1 + took_effect
