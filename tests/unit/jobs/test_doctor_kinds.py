# Copyright: (c) 2026, Sendense contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The doctor's catalogue of kinds, and what it is asked to mend."""

from __future__ import annotations

from typing import Any, List

import pytest

from ansible_collections.sendense.platform.plugins.module_utils.errors import InvalidInputError
from ansible_collections.sendense.platform.plugins.module_utils.jobs.doctor.kinds import (
    KINDS,
    MENDABLE,
    SEVERITIES,
    Diagnosis,
    kinds_to_mend,
    ordered,
)
from ansible_collections.sendense.platform.plugins.module_utils.jobs.doctor.storage import file_system_of
from ansible_collections.sendense.platform.plugins.module_utils.platforms._base import TRACKING_FINDINGS

MOUNTS = r"""
22 1 8:1 / / rw,relatime shared:1 - ext4 /dev/sda1 rw
30 22 0:24 / /srv rw shared:2 - vfat /dev/sdb1 rw
31 22 0:25 / /srv/back\040ups rw shared:3 - xfs /dev/sdc1 rw
nonsense
"""


def test_every_kind_explains_itself() -> None:
    for kind in KINDS.values():
        assert kind.severity in SEVERITIES and kind.meaning.endswith(".") and (not kind.mending or kind.mending.endswith("."))


def test_everything_that_a_platform_may_report_is_a_kind() -> None:
    assert set(TRACKING_FINDINGS) <= set(KINDS)


@pytest.mark.parametrize("asked", [True, "true", "yes", ["all"], ["True"], "all", ["dead_job", "all"]])
def test_all_that_can_be_mended(asked: Any) -> None:
    assert kinds_to_mend(asked) == MENDABLE


@pytest.mark.parametrize("asked", [None, False, "", [], "false", ["False"], "no", [""]])
def test_nothing_is_to_be_mended(asked: Any) -> None:
    assert kinds_to_mend(asked) == frozenset()


@pytest.mark.parametrize("asked", [["dead_job", "partial_orphan"], "dead_job,partial_orphan", "dead_job, partial_orphan"])
def test_some_kinds_are_to_be_mended(asked: Any) -> None:
    assert kinds_to_mend(asked) == {"dead_job", "partial_orphan"}


@pytest.mark.parametrize("asked", [["point_damaged"], "nonsense", ["dead_job", "hung_job"]])
def test_what_cannot_be_mended_is_refused_by_name(asked: Any) -> None:
    with pytest.raises(InvalidInputError) as refused:
        kinds_to_mend(asked)
    assert "partial_orphan" in refused.value.msg and refused.value.details["unknown"]


def test_the_worst_comes_first_and_nothing_comes_twice() -> None:
    found: List[Diagnosis] = [
        Diagnosis("stale_lease", "b", "x"),
        Diagnosis("dead_job", "z", "x"),
        Diagnosis("no_sound_point", "m", "x", machine_key="m"),
        Diagnosis("dead_job", "z", "x"),
        Diagnosis("stale_lease", "a", "x"),
    ]
    assert [(one.kind, one.object) for one in ordered(found)] == [
        ("no_sound_point", "m"),
        ("dead_job", "z"),
        ("stale_lease", "a"),
        ("stale_lease", "b"),
    ]


@pytest.mark.parametrize(
    ("path", "kind"),
    [("/", "ext4"), ("/home/x", "ext4"), ("/srv", "vfat"), ("/srv/other", "vfat"), ("/srv/back ups/x", "xfs"), ("/srvx", "ext4")],
)
def test_the_file_system_below_a_path(path: str, kind: str) -> None:
    assert file_system_of(path, MOUNTS) == kind


def test_a_file_system_that_cannot_be_told_is_none() -> None:
    assert file_system_of("/x", "") == ""
