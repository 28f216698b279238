# Copyright: (c) 2026, Sendense contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What every source must do. A platform subclasses :class:`SourceContract` and gives it a :class:`SourceLab`.

The suite reads every byte that a source offers and compares it with what the machine really held at that instant.
"""

from __future__ import annotations

import json
import re
import uuid
from abc import ABC, abstractmethod
from contextlib import ExitStack
from pathlib import Path
from typing import Dict, Iterator, List, Optional

import pytest

from ansible_collections.sendense.platform.plugins.module_utils.errors import (
    CapabilityMissingError,
    ForeignJobError,
    JobRunningError,
    MachineNotFoundError,
    PlatformUnreachableError,
    SendenseError,
)
from ansible_collections.sendense.platform.plugins.module_utils.model import Machine
from ansible_collections.sendense.platform.plugins.module_utils.platforms._base import (
    CRASH,
    FULL,
    INCREMENTAL,
    REASONS,
    PreviousDisk,
    Snapshot,
    SnapshotPlan,
    SnapshotRequest,
    Source,
)
from tests.contract.reading import applied, changed_ranges, connected, led, read_all, served
from tests.doubles.faulty_platform import Fault, FaultySource

BLOCK = 65536
OWNER, OTHER_OWNER = "aaaaaaaa", "bbbbbbbb"


class SourceLab(ABC):
    """One machine that runs, with at least two disks, the first two of which can be tracked and hold 1 MiB or more."""

    machine_id: str
    work_dir: Path
    #: Whether the paths of its disks are paths of this place.
    paths_are_ours: bool = True

    @abstractmethod
    def source(self) -> Source:
        """A new source of this platform, not yet connected."""

    @abstractmethod
    def write(self, disk: int, pattern: int, offset: int, length: int) -> None:
        """The machine writes one byte value (0: zeros) to the disk at this position in its list."""

    @abstractmethod
    def content(self, disk: int) -> bytes:
        """What the disk holds now."""

    @abstractmethod
    def power(self, state: str) -> None:
        """Bring the machine to ``running`` or ``off``."""

    @abstractmethod
    def state(self) -> str:
        """Everything about the machine that planning could change, as text that is equal if nothing changed."""


class Runner:
    """Backups of the lab's machine as the product makes them, with the content of each kept for comparison."""

    def __init__(self, lab: SourceLab, owner: str = OWNER) -> None:
        self.lab = lab
        self.owner = owner
        self.previous: Optional[List[PreviousDisk]] = None
        self.content: Dict[str, bytes] = {}

    def request(self, **changes: object) -> SnapshotRequest:
        known = [disk.change_id for disk in self.previous or []]
        values: Dict[str, object] = {"machine_id": self.lab.machine_id, "job_id": uuid.uuid4().hex, "owner": self.owner}
        values.update(previous=self.previous, known_change_ids=known, consistency=CRASH, work_dir=str(self.lab.work_dir))
        return SnapshotRequest(**{**values, **changes})  # type: ignore[arg-type]

    def plan(self, source: Source, **changes: object) -> SnapshotPlan:
        return source.plan(self.request(**changes))

    def open(self, source: Source, **changes: object) -> Snapshot:
        request = self.request(**changes)
        return source.open_snapshot(request, source.plan(request))

    def take(self, source: Source, snapshot: Snapshot) -> None:
        """Read the snapshot and remember it as the newest committed backup."""
        found: Dict[str, bytes] = {}
        with led(snapshot), ExitStack() as stack:
            uris = {disk.key: stack.enter_context(served(disk, str(self.lab.work_dir))) for disk in snapshot.disks}
            for disk in snapshot.disks:
                found[disk.disk_id] = applied(uris[disk.key], disk, self.content.get(disk.disk_id, b""))
        self.content = found
        self.previous = [PreviousDisk(disk.disk_id, disk.size_bytes, disk.change_id) for disk in snapshot.disks]

    def end(self, source: Source, snapshot: Snapshot, committed: bool = True) -> List[str]:
        known = [disk.change_id for disk in self.previous or [] if disk.change_id]
        return source.close_snapshot(self.lab.machine_id, snapshot.job_id, self.owner, committed, known)

    def backup(self, source: Source) -> Snapshot:
        """One whole backup; its content must be what the machine holds at its instant."""
        expected = self.expected(source)
        snapshot = self.open(source)
        self.take(source, snapshot)
        self.end(source, snapshot)
        assert self.content == expected
        return snapshot

    def expected(self, source: Source) -> Dict[str, bytes]:
        machine = source.machine(self.lab.machine_id)
        return {disk.id: self.lab.content(position) for position, disk in enumerate(machine.disks)}


def levels(snapshot: Snapshot) -> List[str]:
    """The levels of the two disks that can be tracked."""
    return [disk.level for disk in snapshot.disks[:2]]


class SourceContract:
    """Subclass it, and define the fixture ``lab``."""

    @pytest.fixture
    def lab(self) -> SourceLab:
        raise LookupError(f"{type(self).__name__} must define the fixture 'lab'")

    @pytest.fixture
    def runner(self, lab: SourceLab) -> Runner:
        return Runner(lab)

    @pytest.fixture
    def source(self, lab: SourceLab) -> Iterator[Source]:
        with lab.source() as source:
            yield source

    # --- looking ---------------------------------------------------------------------------------------------------

    def test_connecting_and_closing_may_be_repeated(self, lab: SourceLab) -> None:
        source = lab.source()
        source.close()
        source.connect()
        source.connect()
        assert source.machine(lab.machine_id).id == lab.machine_id
        source.close()
        source.close()

    def test_discovery_finds_the_machine_and_changes_nothing(self, lab: SourceLab, source: Source) -> None:
        before = lab.state()
        machines = source.discover()
        assert [machine.id for machine in machines] == sorted(machine.id for machine in machines)
        (found,) = [machine for machine in machines if machine.id == lab.machine_id]
        assert found == source.machine(lab.machine_id)
        assert found.power in ("running", "paused")
        assert len({disk.id for disk in found.disks}) == len(found.disks) >= 2
        assert [disk.size_bytes for disk in found.disks] == [len(lab.content(at)) for at in range(len(found.disks))]
        assert found == Machine.from_dict(json.loads(json.dumps(found.to_dict())))
        assert lab.state() == before

    def test_a_machine_keeps_its_identity(self, lab: SourceLab, source: Source) -> None:
        before = source.machine(lab.machine_id)
        lab.power("off")
        lab.power("running")
        after = source.machine(lab.machine_id)
        assert (after.key, [disk.id for disk in after.disks]) == (before.key, [disk.id for disk in before.disks])

    @pytest.mark.parametrize("machine_id", ["", "../../x", "{{ 7 * 7 }}", "00000000-0000-4000-8000-000000000000"])
    def test_an_unknown_machine_is_a_typed_error(self, source: Source, runner: Runner, machine_id: str) -> None:
        with pytest.raises(MachineNotFoundError):
            source.machine(machine_id)
        with pytest.raises(MachineNotFoundError):
            runner.plan(source, machine_id=machine_id)
        assert source.stale(machine_id) == []
        assert source.close_snapshot(machine_id, uuid.uuid4().hex, OWNER, False, []) == []

    # --- planning --------------------------------------------------------------------------------------------------

    def test_a_first_plan_is_full_for_the_reason_that_was_given(self, source: Source, runner: Runner) -> None:
        plan = runner.plan(source, full_reason="previous_damaged")
        assert {(disk.level, disk.reason, disk.change_id) for disk in plan.disks} == {(FULL, "previous_damaged", "")}
        assert [disk.key for disk in plan.disks] == [f"disk{at}" for at in range(len(plan.disks))]
        assert 0 <= plan.expected_bytes <= sum(disk.size_bytes for disk in plan.disks)

    def test_planning_changes_nothing(self, lab: SourceLab, source: Source, runner: Runner) -> None:
        runner.backup(source)
        before = lab.state()
        first = runner.plan(source, job_id="1" * 32)
        assert runner.plan(source, job_id="1" * 32) == first
        assert [disk.level for disk in first.disks[:2]] == [INCREMENTAL, INCREMENTAL]
        assert lab.state() == before

    def test_every_reason_is_a_documented_one(self, source: Source, runner: Runner) -> None:
        runner.backup(source)
        for disk in runner.plan(source).disks:
            assert disk.reason == "change_tracking" if disk.level == INCREMENTAL else disk.reason in REASONS

    def test_a_disk_that_the_last_backup_lacks_is_full(self, source: Source, runner: Runner) -> None:
        runner.backup(source)
        plan = runner.plan(source, previous=(runner.previous or [])[1:])
        assert (plan.disks[0].level, plan.disks[0].reason) == (FULL, "disk_set_changed")
        assert plan.disks[1].level == INCREMENTAL

    def test_a_disk_of_another_size_is_full(self, source: Source, runner: Runner) -> None:
        runner.backup(source)
        first, *others = runner.previous or []
        grown = PreviousDisk(first.disk_id, first.size_bytes - 512, first.change_id)
        plan = runner.plan(source, previous=[grown, *others])
        assert (plan.disks[0].level, plan.disks[0].reason) == (FULL, "disk_size_changed")
        assert plan.disks[1].level == INCREMENTAL

    @pytest.mark.parametrize("text", ["", "x", "{}", "[]", '{"v":1}', '{"v":99,"checkpoint":"y"}', "null", "\x00", "{{ 7 * 7 }}"])
    def test_a_change_id_that_means_nothing_here_is_full(self, source: Source, runner: Runner, text: str) -> None:
        machine = source.machine(runner.lab.machine_id)
        runner.previous = [PreviousDisk(disk.id, disk.size_bytes, text) for disk in machine.disks]
        wanted = "tracking_missing" if not text else "change_id_of_another_epoch"
        plan = runner.plan(source)
        assert [(disk.level, disk.reason) for disk in plan.disks[:2]] == [(FULL, wanted)] * 2

    def test_a_change_id_of_another_owner_is_full(self, lab: SourceLab, source: Source, runner: Runner) -> None:
        runner.backup(source)
        thief = Runner(lab, OTHER_OWNER)
        thief.previous = runner.previous
        assert {disk.reason for disk in thief.plan(source).disks[:2]} == {"change_id_of_another_epoch"}

    def test_a_change_id_whose_tracking_is_gone_is_full(self, source: Source, runner: Runner) -> None:
        runner.backup(source)
        kept = runner.previous
        runner.backup(source)
        runner.previous = kept
        plan = runner.plan(source)
        assert [(disk.level, disk.reason) for disk in plan.disks[:2]] == [(FULL, "tracking_missing")] * 2

    # --- reading ---------------------------------------------------------------------------------------------------

    def test_a_full_is_the_instant_at_which_it_was_opened(self, lab: SourceLab, source: Source, runner: Runner) -> None:
        lab.write(0, 0x11, 0, BLOCK)
        expected = runner.expected(source)
        snapshot = runner.open(source)
        lab.write(0, 0x22, 0, 2 * BLOCK)
        lab.write(1, 0x33, BLOCK, BLOCK)
        runner.take(source, snapshot)
        runner.end(source, snapshot)
        assert runner.content == expected

    def test_every_export_has_its_size_and_admits_ten_clients(self, lab: SourceLab, source: Source, runner: Runner) -> None:
        snapshot = runner.open(source)
        for disk in snapshot.disks:
            with led(snapshot), served(disk, str(lab.work_dir)) as uri, ExitStack() as stack:
                handles = [stack.enter_context(connected(uri)) for _number in range(10)]
                assert {handle.get_size() for handle in handles} == {disk.size_bytes}
                assert all(handle.is_read_only() for handle in handles)
        runner.end(source, snapshot, committed=False)

    def test_an_incremental_says_what_changed_and_nothing_else(self, lab: SourceLab, source: Source, runner: Runner) -> None:
        lab.write(0, 0x11, 0, 8 * BLOCK)
        runner.backup(source)
        lab.write(0, 0x44, 3 * BLOCK, 512)
        lab.write(0, 0, 5 * BLOCK, BLOCK)
        expected = runner.expected(source)
        snapshot = runner.open(source)
        with led(snapshot), served(snapshot.disks[0], str(lab.work_dir)) as uri:
            first = snapshot.disks[0]
            changed = changed_ranges(uri, first.changed_context, first.changed_flag)
        assert changed == [(3 * BLOCK, BLOCK), (5 * BLOCK, BLOCK)]
        with led(snapshot), served(snapshot.disks[1], str(lab.work_dir)) as uri:
            assert changed_ranges(uri, snapshot.disks[1].changed_context, snapshot.disks[1].changed_flag) == []
        runner.take(source, snapshot)
        runner.end(source, snapshot)
        assert levels(snapshot) == [INCREMENTAL, INCREMENTAL]
        assert runner.content == expected

    def test_the_short_last_block_of_a_disk_is_tracked(self, lab: SourceLab, source: Source, runner: Runner) -> None:
        runner.backup(source)
        for disk in (0, 1):
            lab.write(disk, 0x77, len(lab.content(disk)) - 512, 512)
        assert levels(runner.backup(source)) == [INCREMENTAL, INCREMENTAL]

    def test_writes_during_a_backup_are_in_the_next_one(self, lab: SourceLab, source: Source, runner: Runner) -> None:
        runner.backup(source)
        snapshot = runner.open(source)
        lab.write(0, 0x55, 2 * BLOCK, BLOCK)
        runner.take(source, snapshot)
        runner.end(source, snapshot)
        assert levels(runner.backup(source)) == [INCREMENTAL, INCREMENTAL]

    def test_a_backup_that_was_not_committed_changes_nothing(self, lab: SourceLab, source: Source, runner: Runner) -> None:
        lab.write(1, 0x66, 0, BLOCK)
        runner.backup(source)
        before = source.stale(lab.machine_id)
        lab.write(0, 0x12, BLOCK, BLOCK)
        snapshot = runner.open(source)
        runner.end(source, snapshot, committed=False)
        assert source.stale(lab.machine_id) == before
        assert levels(runner.backup(source)) == [INCREMENTAL, INCREMENTAL]

    def test_two_owners_alternate_and_both_stay_incremental(self, lab: SourceLab, source: Source, runner: Runner) -> None:
        other = Runner(lab, OTHER_OWNER)
        runner.backup(source)
        other.backup(source)
        for number in range(1, 4):
            lab.write(0, number, number * BLOCK, BLOCK)
            assert levels(runner.backup(source)) == [INCREMENTAL, INCREMENTAL]
            lab.write(1, number, number * BLOCK, BLOCK)
            assert levels(other.backup(source)) == [INCREMENTAL, INCREMENTAL]
        assert {left["owner"] for left in source.stale(lab.machine_id)} == {OWNER, OTHER_OWNER}

    def test_a_machine_that_is_off_goes_through_the_same_chain(self, lab: SourceLab, source: Source, runner: Runner) -> None:
        if not source.CAPABILITIES.powered_off:
            lab.power("off")
            with pytest.raises(CapabilityMissingError):
                runner.plan(source)
            return
        lab.write(0, 0x21, 0, BLOCK)
        runner.backup(source)
        lab.write(0, 0x22, BLOCK, BLOCK)
        lab.power("off")
        assert levels(runner.backup(source)) == [INCREMENTAL, INCREMENTAL]
        assert levels(runner.backup(source)) == [INCREMENTAL, INCREMENTAL]
        snapshot = runner.open(source)
        runner.end(source, snapshot, committed=False)
        lab.power("running")
        lab.write(0, 0x23, 2 * BLOCK, BLOCK)
        assert levels(runner.backup(source)) == [INCREMENTAL, INCREMENTAL]

    def test_a_snapshot_is_plain_data(self, lab: SourceLab, source: Source, runner: Runner) -> None:
        snapshot = runner.open(source)
        again = Snapshot.from_dict(json.loads(json.dumps(snapshot.to_dict())))
        runner.end(source, snapshot, committed=False)
        assert again == snapshot
        assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ", snapshot.created_at)
        assert all(re.fullmatch(r"[A-Za-z0-9._-]{1,200}", disk.export) for disk in snapshot.disks)
        assert snapshot.consistency == CRASH

    # --- ending ----------------------------------------------------------------------------------------------------

    def test_closing_may_be_repeated_and_done_by_another_process(self, lab: SourceLab, source: Source, runner: Runner) -> None:
        snapshot = runner.open(source)
        uris = [disk.uri for disk in snapshot.disks if disk.uri]
        with lab.source() as another:
            assert runner.end(another, snapshot, committed=False)
            assert runner.end(another, snapshot, committed=False) == []
        assert runner.end(source, snapshot, committed=False) == []
        assert source.stale(lab.machine_id) == []
        for uri in uris:
            with pytest.raises(Exception, match="nbd_connect_uri"):
                read_all(uri)

    def test_ending_without_an_owner_keeps_the_tracking_state(self, lab: SourceLab, source: Source, runner: Runner) -> None:
        snapshot = runner.open(source)
        runner.take(source, snapshot)
        source.close_snapshot(lab.machine_id, snapshot.job_id, "", False, [])
        assert [left["kind"] for left in source.stale(lab.machine_id)] == ["checkpoint"]
        assert levels(runner.backup(source)) == [INCREMENTAL, INCREMENTAL]

    def test_stale_names_what_jobs_left(self, lab: SourceLab, source: Source, runner: Runner) -> None:
        snapshot = runner.open(source)
        left = source.stale(lab.machine_id)
        assert {(entry["job_id"], entry["owner"]) for entry in left} == {(snapshot.job_id, OWNER)}
        assert {"checkpoint"} <= {entry["kind"] for entry in left} <= {"job", "checkpoint"}
        assert snapshot.token in [entry["name"] for entry in left]
        assert all(entry["name"] in disk.change_id for entry in left if entry["kind"] == "checkpoint" for disk in snapshot.disks[:2])
        runner.end(source, snapshot, committed=False)

    def test_a_dead_predecessor_is_cleaned_up_by_its_job_id(self, lab: SourceLab, source: Source, runner: Runner) -> None:
        runner.backup(source)
        dead = runner.open(source)
        del dead
        for entry in source.stale(lab.machine_id):
            known = [disk.change_id for disk in runner.previous or []]
            if entry["kind"] == "job" or not any(entry["name"] in change_id for change_id in known):
                source.close_snapshot(lab.machine_id, entry["job_id"], OWNER, True, known)
        assert [entry["kind"] for entry in source.stale(lab.machine_id)] == ["checkpoint"]
        assert levels(runner.backup(source)) == [INCREMENTAL, INCREMENTAL]

    def test_a_second_job_is_refused_and_the_first_goes_on(self, lab: SourceLab, source: Source, runner: Runner) -> None:
        other = Runner(lab, OTHER_OWNER)
        expected = runner.expected(source)
        snapshot = runner.open(source)
        with pytest.raises((ForeignJobError, JobRunningError)) as refused:
            other.open(source)
        assert refused.value.retryable
        assert source.close_snapshot(lab.machine_id, "f" * 32, OTHER_OWNER, False, []) == []
        runner.take(source, snapshot)
        runner.end(source, snapshot)
        assert runner.content == expected

    @pytest.mark.parametrize("lost", ["request", "reply"])
    def test_whatever_call_fails_the_next_run_succeeds(self, lab: SourceLab, source: Source, runner: Runner, lost: str) -> None:
        """Each call of a backup is lost in turn, before or after it took effect; clean-up and a new run must cure it."""
        runner.backup(source)
        for number in range(1, 8):
            lab.write(0, number, number * BLOCK, 512)
            fault = Fault(number, lost)
            failed = FaultySource(lab.source(), fault)
            try:
                failed.connect()
                snapshot = runner.open(failed)
                runner.take(failed, snapshot)
                runner.end(failed, snapshot)
            except PlatformUnreachableError:
                assert fault.happened
            failed.inner.close()
            self._clean_up(source, runner)
            assert levels(runner.backup(source)) == [INCREMENTAL, INCREMENTAL]
            if not fault.happened:
                return
        raise AssertionError("a backup has more calls than this test loses")

    @staticmethod
    def _clean_up(source: Source, runner: Runner) -> None:
        known = [disk.change_id for disk in runner.previous or [] if disk.change_id]
        for entry in source.stale(runner.lab.machine_id):
            if entry["kind"] == "job" or not any(entry["name"] in change_id for change_id in known):
                source.close_snapshot(runner.lab.machine_id, entry["job_id"], runner.owner, True, known)
        left = source.stale(runner.lab.machine_id)
        assert all(entry["kind"] == "checkpoint" and any(entry["name"] in change_id for change_id in known) for entry in left)

    def test_errors_have_the_shape_that_plays_need(self, source: Source) -> None:
        with pytest.raises(SendenseError) as failed:
            source.machine("no such machine")
        result = failed.value.as_result()
        assert result["error_code"] == "MACHINE_NOT_FOUND" and "no such machine" in result["msg"] and not result["retryable"]
