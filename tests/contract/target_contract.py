# Copyright: (c) 2026, Sendense contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What every target must do. A platform subclasses :class:`TargetContract` and gives it a :class:`TargetLab`."""

from __future__ import annotations

import json
import os
import uuid
from abc import ABC, abstractmethod
from contextlib import ExitStack
from pathlib import Path
from typing import Dict, Iterator, List, Set

import pytest

from ansible_collections.sendense.platform.plugins.module_utils.errors import (
    InvalidInputError,
    MachineExistsError,
    PlatformUnreachableError,
    RepositoryFullError,
)
from ansible_collections.sendense.platform.plugins.module_utils.model import Disk, Machine, Nic
from ansible_collections.sendense.platform.plugins.module_utils.platforms._base import PreparedMachine, Target, TargetRequest
from tests.contract.reading import connected, serving
from tests.doubles.faulty_platform import Fault, FaultyTarget

BLOCK = 65536


class TargetLab(ABC):
    """An empty target. ``storage`` is where its disks go, ``sockets`` a short directory for export servers."""

    storage: Path
    sockets: Path
    #: A name that this platform can take and that nothing else survives.
    hostile_name: str
    #: The name of a network that exists at the target.
    network: str

    @abstractmethod
    def target(self) -> Target:
        """A new target of this platform, not yet connected."""

    @abstractmethod
    def names(self) -> Set[str]:
        """The names of all machines at the target."""

    @abstractmethod
    def add_machine(self, name: str) -> None:
        """A machine of somebody else."""

    @abstractmethod
    def content(self, machine_id: str) -> Dict[str, bytes]:
        """What the disks of a machine hold, by disk id."""

    @abstractmethod
    def platform(self) -> str:
        """The platform's name in the model."""


def backed_up(lab: TargetLab) -> Machine:
    """The description of a machine as a manifest has it."""
    machine = Machine(lab.platform(), "b3f5c7e0-0000-4000-8000-00000000000a", "the source", cpus=1, memory_bytes=64 << 20)
    machine.nics = [Nic("52:54:00:12:34:56", "virtio", "network", "source-lan")]
    machine.tags, machine.policy = ["web & <db>", "{{ 7 * 7 }}"], "gold"
    machine.disks = [
        Disk("serial-0", 16 * BLOCK, "disk0", "vda", serial="serial-0", boot_order=1, allocated_bytes=BLOCK),
        Disk("serial-1", 5 * BLOCK + 7 * 512, "disk1", "vdb", serial="serial-1", boot_order=2),
    ]
    return machine


class TargetContract:
    """Subclass it, and define the fixture ``lab``."""

    @pytest.fixture
    def lab(self) -> TargetLab:
        raise LookupError(f"{type(self).__name__} must define the fixture 'lab'")

    @pytest.fixture
    def target(self, lab: TargetLab) -> Iterator[Target]:
        with lab.target() as target:
            yield target

    @pytest.fixture
    def wanted(self, lab: TargetLab) -> TargetRequest:
        return TargetRequest(
            backed_up(lab), uuid.uuid4().hex, "restored", str(lab.storage), "20260101T000000Z-01234567", networks={"*": lab.network}
        )

    def restore(self, lab: TargetLab, target: Target, wanted: TargetRequest, pattern: int = 0x41) -> Machine:
        """A whole restore, with one block of data on every disk."""
        prepared = target.prepare(wanted)
        self.fill(lab, prepared, pattern)
        return target.finish(wanted, prepared)

    def fill(self, lab: TargetLab, prepared: PreparedMachine, pattern: int) -> None:
        for disk in prepared.disks:
            with ExitStack() as stack:
                uri = disk.uri
                if disk.image is not None:
                    socket = str(lab.sockets / f"{disk.key}.sock")
                    uri = stack.enter_context(serving(disk.image, disk.key, socket, writable=True))
                handle = stack.enter_context(connected(uri))
                assert handle.get_size() == disk.size_bytes
                handle.pwrite(bytes([pattern]) * 512, disk.size_bytes - 512)
                handle.flush()

    # --- the way through -------------------------------------------------------------------------------------------

    def test_a_restore_makes_the_machine_with_its_data(self, lab: TargetLab, target: Target, wanted: TargetRequest) -> None:
        assert target.check(wanted) == ""
        machine = self.restore(lab, target, wanted)
        assert machine.name == wanted.name and machine.power == "off" and lab.names() == {wanted.name}
        assert [disk.size_bytes for disk in machine.disks] == [16 * BLOCK, 5 * BLOCK + 7 * 512]
        for content in lab.content(machine.id).values():
            assert content[-512:] == b"A" * 512 and not any(content[:-512])
        assert machine.id != wanted.machine.id

    def test_a_prepared_machine_is_plain_data(self, lab: TargetLab, target: Target, wanted: TargetRequest) -> None:
        prepared = target.prepare(wanted)
        assert PreparedMachine.from_dict(json.loads(json.dumps(prepared.to_dict()))) == prepared
        assert [disk.key for disk in prepared.disks] == ["disk0", "disk1"]
        target.destroy(prepared)

    def test_checking_changes_nothing(self, lab: TargetLab, target: Target, wanted: TargetRequest) -> None:
        target.check(wanted)
        assert lab.names() == set() and list(lab.storage.iterdir()) == []

    def test_finishing_may_be_repeated(self, lab: TargetLab, target: Target, wanted: TargetRequest) -> None:
        prepared = target.prepare(wanted)
        self.fill(lab, prepared, 1)
        with lab.target() as another:
            assert another.finish(wanted, prepared) == target.finish(wanted, prepared)
        assert lab.names() == {wanted.name}

    def test_the_same_restore_again_is_recognised(self, lab: TargetLab, target: Target, wanted: TargetRequest) -> None:
        machine = self.restore(lab, target, wanted)
        again = TargetRequest(**{**vars(wanted), "job_id": uuid.uuid4().hex})
        before = sorted(path.name for path in lab.storage.iterdir())
        assert target.check(again) == machine.id
        prepared = target.prepare(again)
        assert (prepared.existing_id, prepared.disks) == (machine.id, [])
        assert target.finish(again, prepared) == machine
        assert target.destroy(prepared) == [] and lab.names() == {wanted.name}
        assert sorted(path.name for path in lab.storage.iterdir()) == before

    def test_a_part_of_the_disks_can_be_restored(self, lab: TargetLab, target: Target, wanted: TargetRequest) -> None:
        wanted.disks = ["disk1"]
        machine = self.restore(lab, target, wanted)
        assert [disk.size_bytes for disk in machine.disks] == [5 * BLOCK + 7 * 512]
        wanted.disks = []
        with pytest.raises(MachineExistsError):
            target.check(wanted)

    def test_power(self, lab: TargetLab, target: Target, wanted: TargetRequest) -> None:
        machine = self.restore(lab, target, wanted)
        assert [target.power_on(machine.id), target.power_on(machine.id)] == [True, False]
        assert [target.power_off(machine.id), target.power_off(machine.id)] == [True, False]

    def test_a_hostile_name_is_only_a_name(
        self, lab: TargetLab, target: Target, wanted: TargetRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.chdir(tmp_path)
        before = sorted(os.listdir())
        wanted.name = lab.hostile_name
        machine = self.restore(lab, target, wanted)
        assert machine.name == lab.hostile_name and lab.names() == {lab.hostile_name}
        assert sorted(os.listdir()) == before
        assert all(wanted.job_id in path.name for path in lab.storage.iterdir())

    # --- refusing --------------------------------------------------------------------------------------------------

    def test_another_machine_of_that_name_is_not_touched(self, lab: TargetLab, target: Target, wanted: TargetRequest) -> None:
        lab.add_machine(wanted.name)
        for step in (target.check, target.prepare):
            with pytest.raises(MachineExistsError):
                step(wanted)
        assert list(lab.storage.iterdir()) == [] and lab.names() == {wanted.name}

    def test_a_restore_of_another_point_is_another_restore(self, lab: TargetLab, target: Target, wanted: TargetRequest) -> None:
        self.restore(lab, target, wanted)
        other = TargetRequest(**{**vars(wanted), "job_id": uuid.uuid4().hex, "point_id": "20260102T000000Z-01234567"})
        with pytest.raises(MachineExistsError):
            target.check(other)

    def test_a_machine_that_appears_meanwhile_is_not_touched(self, lab: TargetLab, target: Target, wanted: TargetRequest) -> None:
        prepared = target.prepare(wanted)
        lab.add_machine(wanted.name)
        with pytest.raises(MachineExistsError):
            target.finish(wanted, prepared)
        assert all(not entry.startswith("machine") for entry in target.destroy(prepared))
        assert lab.names() == {wanted.name} and list(lab.storage.iterdir()) == []

    def test_a_file_that_is_there_is_not_overwritten(self, lab: TargetLab, target: Target, wanted: TargetRequest) -> None:
        prepared = target.prepare(wanted)
        paths = [Path(disk.path) for disk in prepared.disks if disk.path]
        target.destroy(prepared)
        assert len(paths) == len(prepared.disks) > 0
        for path in paths:
            path.write_text("precious")
            with pytest.raises(MachineExistsError):
                target.prepare(wanted)
            assert path.read_text() == "precious" and [entry.name for entry in lab.storage.iterdir()] == [path.name]
            path.unlink()

    @pytest.mark.parametrize(
        "changes",
        [{"networks": {"*": "no such network"}}, {"networks": {}}, {"disks": ["disk7"]}, {"storage": "/nonexistent/storage"}],
        ids=["network", "unmapped network", "disk", "storage"],
    )
    def test_what_does_not_exist_is_refused(
        self, lab: TargetLab, target: Target, wanted: TargetRequest, changes: Dict[str, object]
    ) -> None:
        with pytest.raises(InvalidInputError):
            target.prepare(TargetRequest(**{**vars(wanted), **changes}))
        assert list(lab.storage.iterdir()) == []

    def test_too_little_space_is_noticed_before_anything_is_made(self, lab: TargetLab, target: Target, wanted: TargetRequest) -> None:
        wanted.machine.disks[1].size_bytes = 1 << 60
        with pytest.raises(RepositoryFullError):
            target.prepare(wanted)
        assert list(lab.storage.iterdir()) == []

    # --- taking back -----------------------------------------------------------------------------------------------

    @pytest.mark.parametrize("finished", [False, True])
    def test_destroying_takes_back_this_job_only(self, lab: TargetLab, target: Target, wanted: TargetRequest, finished: bool) -> None:
        other = TargetRequest(**{**vars(wanted), "job_id": uuid.uuid4().hex, "name": "the other"})
        kept = self.restore(lab, target, other)
        prepared = target.prepare(wanted)
        if finished:
            target.power_on(target.finish(wanted, prepared).id)
        removed = target.destroy(prepared)
        assert len(removed) == 2 + finished and target.destroy(prepared) == []
        assert lab.names() == {"the other"} and len(lab.content(kept.id)) == 2

    def test_what_is_planned_takes_back_what_was_prepared(self, lab: TargetLab, target: Target, wanted: TargetRequest) -> None:
        before = sorted(os.listdir(lab.storage))
        planned = target.planned(wanted)
        assert sorted(os.listdir(lab.storage)) == before
        target.prepare(wanted)
        assert sorted(os.listdir(lab.storage)) != before
        target.destroy(PreparedMachine.from_dict(planned.to_dict()))
        assert sorted(os.listdir(lab.storage)) == before

    def test_files_of_another_job_are_never_removed(self, lab: TargetLab, target: Target, wanted: TargetRequest) -> None:
        precious = lab.storage / "precious.qcow2"
        precious.write_text("x")
        prepared = target.prepare(wanted)
        forged = PreparedMachine.from_dict(prepared.to_dict())
        forged.disks[0].path = str(precious)
        target.destroy(forged)
        assert precious.exists()
        target.destroy(prepared)

    @pytest.mark.parametrize("lost", ["request", "reply"])
    def test_whatever_call_fails_a_new_restore_succeeds(self, lab: TargetLab, target: Target, wanted: TargetRequest, lost: str) -> None:
        for number in range(2, 6):
            request = TargetRequest(**{**vars(wanted), "job_id": uuid.uuid4().hex, "name": f"restored {number}"})
            fault = Fault(number, lost)
            failed = FaultyTarget(lab.target(), fault)
            failed.connect()
            try:
                self.restore(lab, failed, request)
            except PlatformUnreachableError:
                assert fault.happened
            failed.inner.close()
            request.job_id = uuid.uuid4().hex
            self.restore(lab, target, request)
            assert request.name in lab.names()
            if not fault.happened:
                return
        raise AssertionError("a restore has more calls than this test loses")


def known_names(names: List[str]) -> Set[str]:
    """Names as a set, with every name once."""
    assert len(set(names)) == len(names)
    return set(names)
