# Copyright: (c) 2026, Sendense contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The campaign: a short round of every family, and that it turns red when it must."""

from __future__ import annotations

import json
import os
import random
import re
from pathlib import Path
from typing import Any, Callable, Dict

import pytest

from tests.e2e.site import ROOT
from tests.faults.campaign import kill_prune, kill_steps, lying_bitmap, merge_kill, places
from tests.faults.campaign.__main__ import campaign
from tests.faults.campaign._base import Family, Outcome
from tests.faults.campaign.registry import FAMILIES
from tests.faults.campaign.report import Report


@pytest.mark.parametrize("family", FAMILIES, ids=lambda family: family.NAME)
def test_a_short_round(lab_base: Path, family: Family) -> None:
    seed = int(os.environ.get("SENDENSE_SEED") or random.SystemRandom().randrange(1 << 32))
    print(f"SENDENSE_SEED={seed}")
    outcome = family.run(lab_base, seed, family.SHORT)
    print(f"{family.NAME}: {outcome.hit} of {outcome.attempted} hit")
    assert outcome.faults(family.SHORT) == [], "\n".join(outcome.problems)


def test_every_step_is_one_that_a_family_kills_at() -> None:
    """A new ``reached`` in the code belongs into kill_steps.py, or into the family that has the others."""
    code = "".join(path.read_text() for path in (ROOT / "plugins" / "module_utils").rglob("*.py"))
    found = set(re.findall(r'reached\(f?"([^"]+)"\)', code))
    planned = {fault.step for wave in kill_steps.waves(10) for fault in wave.faults}
    planned.update([*kill_steps.CLEANUP_STEPS, *kill_steps.DELETE_STEPS, *kill_steps.DAMAGE_STEPS])
    planned.update([*merge_kill.STEPS, *(kill.step for kill in kill_prune.KILLS), *lying_bitmap.KILLED_AT, *places.OPENED, *places.COMMIT])
    planned.discard("")  # any moment, or none
    # Part of a name may be put in at run time: {role}:keeper-started.
    patterns = {step: re.sub(r"\{[^}]*\}", "[a-z0-9-]+", step) for step in found}
    assert len(patterns) >= 66
    assert [step for step, pattern in patterns.items() if not any(re.fullmatch(pattern, one) for one in planned)] == []
    assert [one for one in planned if not any(re.fullmatch(pattern, one) for pattern in patterns.values())] == []


def test_families_have_names_and_counts_of_their_own() -> None:
    assert len({family.NAME for family in FAMILIES}) == len(FAMILIES)
    assert all(0 < family.SHORT <= family.FULL for family in FAMILIES)


class _Planned(Family):
    NAME = "planned"
    FULL = 4
    SHORT = 2

    def __init__(self, outcome: Callable[[], Outcome]) -> None:
        self._outcome = outcome

    def run(self, base: Path, seed: int, count: int) -> Outcome:
        return self._outcome()


def _campaign(tmp_path: Path, outcome: Callable[[], Outcome], short: bool = False) -> Dict[str, Any]:
    report = Report(tmp_path / "report.json")
    good = campaign([_Planned(outcome)], report, tmp_path, seed=7, short=short)
    document = dict(json.loads(report.path.read_text()))
    assert good == document["ok"]
    return document


def test_enough_hits_and_no_finding_are_good(tmp_path: Path) -> None:
    assert _campaign(tmp_path, lambda: Outcome(attempted=5, hit=4))["ok"]
    assert _campaign(tmp_path, lambda: Outcome(attempted=2, hit=2), short=True)["ok"]


def test_attempts_are_not_hits(tmp_path: Path) -> None:
    document = _campaign(tmp_path, lambda: Outcome(attempted=9, hit=3))
    assert not document["ok"]
    assert document["families"]["planned"]["faults"] == ["only 3 of 4 faults hit"]


@pytest.mark.parametrize(
    ("finding", "total"),
    [("O1 p: wrong", "wrong_ok_points"), ("O2 job", "leaks"), ("O3 port", "leaks"), ("O4 x", "wrong_ok_points"), ("O6 secret", "leaks")],
)
def test_every_finding_of_the_oracle_counts(tmp_path: Path, finding: str, total: str) -> None:
    def found() -> Outcome:
        outcome = Outcome(attempted=4, hit=4)
        outcome.judge([finding])
        return outcome

    document = _campaign(tmp_path, found)
    assert (document["ok"], document[total]) == (False, 1)
    assert document["families"]["planned"]["problems"] == [finding]


def test_a_failed_next_backup_and_an_unnoticed_fault_are_bad(tmp_path: Path) -> None:
    def failed() -> Outcome:
        outcome = Outcome(attempted=4, hit=4)
        outcome.judge(["O5 m00: not backed up"])
        return outcome

    def unnoticed() -> Outcome:
        outcome = Outcome(attempted=4, hit=4)
        outcome.missed("a flip")
        return outcome

    assert not _campaign(tmp_path, failed)["ok"]
    assert _campaign(tmp_path, unnoticed)["undetected"] == 1


def test_a_family_that_breaks_down_is_bad_and_says_why(tmp_path: Path) -> None:
    def broken() -> Outcome:
        raise AssertionError("no libvirtd")

    document = _campaign(tmp_path, broken)
    assert not document["ok"]
    assert "no libvirtd" in document["families"]["planned"]["problems"][0]


def test_one_family_replaces_only_its_own_entry(tmp_path: Path) -> None:
    report = Report(tmp_path / "report.json")
    report.put("a", Outcome(hit=3, leaks=1), seed=1, required=3)
    report.put("b", Outcome(hit=2, wrong_ok_points=1), seed=1, required=2)
    again = Report.load(report.path)
    again.put("a", Outcome(hit=3), seed=2, required=3)
    document = json.loads(report.path.read_text())
    assert (document["leaks"], document["wrong_ok_points"], document["hit"], document["ok"]) == (0, 1, 5, False)
    assert (document["families"]["a"]["seed"], document["families"]["b"]["seed"]) == (2, 1)
