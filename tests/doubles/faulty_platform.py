# Copyright: (c) 2026, Sendense contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A source and a target that lose one call of another one: the request before it took effect, or the reply after."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Callable, ClassVar, Dict, List, Optional

from ansible_collections.sendense.platform.plugins.module_utils.errors import PlatformUnreachableError
from ansible_collections.sendense.platform.plugins.module_utils.model import Machine
from ansible_collections.sendense.platform.plugins.module_utils.platforms._base import (
    PreparedMachine,
    Snapshot,
    SnapshotPlan,
    SnapshotRequest,
    Source,
    SourceCapabilities,
    Target,
    TargetRequest,
    TrackingFinding,
)


@dataclass
class Fault:
    """The ``number``-th call (from 1; 0: none) is lost: ``request`` or ``reply``. Every later one finds the line dead."""

    number: int = 0
    lost: str = "request"
    calls: int = 0

    @property
    def happened(self) -> bool:
        """Whether the call was reached."""
        return 0 < self.number <= self.calls

    def around(self, call: Callable[[], Any], name: str) -> Any:
        """Make the call, or lose it."""
        dead = self.happened
        self.calls += 1
        if dead or (self.calls == self.number and self.lost == "request"):
            raise PlatformUnreachableError(f"Planned fault: call {self.calls}, {name}, was lost.")
        result = call()
        if self.calls == self.number:
            raise PlatformUnreachableError(f"Planned fault: the reply to call {self.calls}, {name}, was lost.")
        return result


class FaultySource(Source):
    """Another source with a planned fault."""

    NAME: ClassVar[str] = "faulty"

    def __init__(self, inner: Source, fault: Fault) -> None:
        self.inner = inner
        self.fault = fault
        self.CAPABILITIES: SourceCapabilities = inner.CAPABILITIES  # type: ignore[misc]

    def connect(self) -> None:
        self.fault.around(self.inner.connect, "connect")

    def close(self) -> None:
        self.inner.close()

    def discover(self) -> List[Machine]:
        return self.fault.around(self.inner.discover, "discover")

    def machine(self, machine_id: str) -> Machine:
        return self.fault.around(lambda: self.inner.machine(machine_id), "machine")

    def plan(self, request: SnapshotRequest) -> SnapshotPlan:
        return self.fault.around(lambda: self.inner.plan(request), "plan")

    def open_snapshot(self, request: SnapshotRequest, plan: SnapshotPlan) -> Snapshot:
        return self.fault.around(lambda: self.inner.open_snapshot(request, plan), "open_snapshot")

    def close_snapshot(self, machine_id: str, job_id: str, owner: str, committed: bool, known_change_ids: List[str]) -> List[str]:
        call = lambda: self.inner.close_snapshot(machine_id, job_id, owner, committed, known_change_ids)  # noqa: E731
        return self.fault.around(call, "close_snapshot")

    def stale(self, machine_id: str) -> List[Dict[str, str]]:
        return self.fault.around(lambda: self.inner.stale(machine_id), "stale")

    def tracking_findings(self, machine_id: str, owner: str, known_change_ids: List[str]) -> List[TrackingFinding]:
        return self.fault.around(lambda: self.inner.tracking_findings(machine_id, owner, known_change_ids), "tracking_findings")

    def mend_tracking(self, machine_id: str, owner: str, known_change_ids: List[str], finding: TrackingFinding) -> bool:
        call = lambda: self.inner.mend_tracking(machine_id, owner, known_change_ids, finding)  # noqa: E731
        return self.fault.around(call, "mend_tracking")

    def files_in_use(self) -> Optional[List[str]]:
        return self.fault.around(self.inner.files_in_use, "files_in_use")


class FaultyTarget(Target):
    """Another target with a planned fault."""

    NAME: ClassVar[str] = "faulty"

    def __init__(self, inner: Target, fault: Fault) -> None:
        self.inner = inner
        self.fault = fault

    def connect(self) -> None:
        self.fault.around(self.inner.connect, "connect")

    def close(self) -> None:
        self.inner.close()

    def check(self, request: TargetRequest) -> str:
        return self.fault.around(lambda: self.inner.check(request), "check")

    def planned(self, request: TargetRequest) -> PreparedMachine:
        return self.inner.planned(request)

    def prepare(self, request: TargetRequest) -> PreparedMachine:
        return self.fault.around(lambda: self.inner.prepare(request), "prepare")

    def finish(self, request: TargetRequest, prepared: PreparedMachine) -> Machine:
        return self.fault.around(lambda: self.inner.finish(request, prepared), "finish")

    def power_on(self, machine_id: str) -> bool:
        return self.fault.around(lambda: self.inner.power_on(machine_id), "power_on")

    def power_off(self, machine_id: str) -> bool:
        return self.fault.around(lambda: self.inner.power_off(machine_id), "power_off")

    def destroy(self, prepared: PreparedMachine) -> List[str]:
        return self.fault.around(lambda: self.inner.destroy(prepared), "destroy")
