# Copyright: (c) 2026, Sendense contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What every source must tell the doctor, and mend for it. Subclass it beside :class:`SourceContract`, whose fixtures it uses."""

from __future__ import annotations

from typing import List

import pytest

from ansible_collections.sendense.platform.plugins.module_utils.platforms._base import (
    FULL,
    INCREMENTAL,
    TRACKING_FINDINGS,
    Snapshot,
    Source,
)
from tests.contract.source_contract import OTHER_OWNER, OWNER, Runner, SourceLab, levels


def known(runner: Runner) -> List[str]:
    """The change ids that the newest backup needs."""
    return [disk.change_id for disk in runner.previous or [] if disk.change_id]


def changes(snapshot: Snapshot) -> List[str]:
    """The change ids that a snapshot gives."""
    return [disk.change_id for disk in snapshot.disks if disk.change_id]


class SourceDoctorContract:
    """Every finding that a platform can have without knowing it from inside."""

    @pytest.mark.parametrize("power", ["running", "off"])
    def test_a_healthy_machine_has_no_findings(self, lab: SourceLab, source: Source, runner: Runner, power: str) -> None:
        assert source.tracking_findings(lab.machine_id, OWNER, []) == []
        for _number in range(2):
            runner.backup(source)
        if power == "off" and source.CAPABILITIES.powered_off:
            lab.power("off")
            runner.backup(source)
        before = lab.state()
        assert source.tracking_findings(lab.machine_id, OWNER, known(runner)) == []
        assert lab.state() == before

    def test_what_no_backup_needs_is_found_and_mended_and_nothing_else_is_touched(
        self, lab: SourceLab, source: Source, runner: Runner
    ) -> None:
        other = Runner(lab, OTHER_OWNER)
        other.backup(source)
        runner.backup(source)
        dead = runner.open(source)
        source.close_snapshot(lab.machine_id, dead.job_id, "", False, [])
        (finding,) = source.tracking_findings(lab.machine_id, OWNER, known(runner))
        assert finding.kind in TRACKING_FINDINGS and finding.name == dead.token and dead.job_id.startswith(finding.job_id or "-")
        assert source.mend_tracking(lab.machine_id, OTHER_OWNER, known(other), finding) is False
        assert source.mend_tracking(lab.machine_id, OWNER, [*known(runner), *changes(dead)], finding) is False
        assert source.mend_tracking(lab.machine_id, OWNER, known(runner), finding) is True
        assert source.mend_tracking(lab.machine_id, OWNER, known(runner), finding) is False
        assert source.tracking_findings(lab.machine_id, OWNER, known(runner)) == []
        assert levels(runner.backup(source)) == levels(other.backup(source)) == [INCREMENTAL, INCREMENTAL]

    def test_what_an_open_job_made_is_no_finding(self, lab: SourceLab, source: Source, runner: Runner) -> None:
        runner.backup(source)
        snapshot = runner.open(source)
        found = source.tracking_findings(lab.machine_id, OWNER, known(runner))
        runner.end(source, snapshot, committed=False)
        assert found == []

    def test_tracking_that_is_gone_is_found_and_the_next_backup_cures_it(self, lab: SourceLab, source: Source, runner: Runner) -> None:
        first = runner.backup(source)
        source.close_snapshot(lab.machine_id, first.job_id, OWNER, True, [])
        found = source.tracking_findings(lab.machine_id, OWNER, known(runner))
        assert [(one.kind, one.name) for one in found] == [("tracking_lost", first.token)]
        assert source.mend_tracking(lab.machine_id, OWNER, known(runner), found[0]) is False
        assert levels(runner.backup(source)) == [FULL, FULL]
        assert source.tracking_findings(lab.machine_id, OWNER, known(runner)) == []

    def test_files_in_use_are_paths_and_looking_changes_nothing(self, lab: SourceLab, source: Source) -> None:
        before, named = lab.state(), {disk.path for disk in source.machine(lab.machine_id).disks if disk.path}
        used = source.files_in_use()
        assert named <= set(used or []) if lab.paths_are_ours else used is None
        assert lab.state() == before

    def test_a_machine_that_is_gone_has_no_findings(self, source: Source) -> None:
        assert source.tracking_findings("00000000-0000-4000-8000-000000000000", OWNER, []) == []
