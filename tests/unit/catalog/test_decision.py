# Copyright: (c) 2026, Sendense contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Which point the next backup may build on, and why none."""

from __future__ import annotations

from dataclasses import replace

import pytest

from ansible_collections.sendense.platform.plugins.module_utils.catalog import decision
from ansible_collections.sendense.platform.plugins.module_utils.catalog.decision import (
    PreviousDisk,
    choose_previous,
    known_change_ids,
)
from ansible_collections.sendense.platform.plugins.module_utils.catalog.manifest import unreadable_manifest
from ansible_collections.sendense.platform.plugins.module_utils.platforms import _base as platforms
from tests.unit.catalog.manifests import ListedPoint, a_manifest, chain_of_points, point_id


def test_the_newest_sound_point_is_chosen() -> None:
    chosen = choose_previous(chain_of_points(3))
    assert (chosen.point_id, chosen.reason) == (point_id(3), "")
    assert chosen.disks == [PreviousDisk("serial-a", 131072, "change-03")]
    assert chosen.to_dict()["disks"] == [{"disk_id": "serial-a", "size_bytes": 131072, "change_id": "change-03"}]


def test_no_points_and_a_wish_for_a_full() -> None:
    assert choose_previous([]).reason == "no_previous_backup"
    chosen = choose_previous(chain_of_points(3), requested_full=True)
    assert (chosen.point_id, chosen.disks, chosen.reason) == ("", None, "requested")


def test_the_chain_ends_at_its_depth() -> None:
    assert choose_previous(chain_of_points(30)).point_id == point_id(30)
    assert choose_previous(chain_of_points(31)).reason == "chain_too_deep"
    assert choose_previous(chain_of_points(3), max_depth=2).reason == "chain_too_deep"
    assert choose_previous(chain_of_points(1), max_depth=0).reason == "chain_too_deep"


@pytest.mark.parametrize("damaged", [0, 1, 2])
def test_damage_anywhere_below_the_newest_makes_a_full(damaged: int) -> None:
    points = chain_of_points(3)
    points[damaged].status = "damaged"
    assert choose_previous(points).reason == "previous_damaged"
    assert known_change_ids(points) == []


def test_a_newest_point_that_is_distrusted_makes_a_full() -> None:
    points = chain_of_points(3)
    points[1].distrusted = "change tracking since then has lied"
    assert choose_previous(points).point_id == point_id(3)
    points[2].distrusted = points[1].distrusted
    assert choose_previous(points).reason == "tracking_lied"
    assert known_change_ids(points) == []


def test_damage_in_an_older_chain_does_not_matter() -> None:
    points = [*chain_of_points(2), ListedPoint(a_manifest(5))]
    points[0].status = points[1].status = "damaged"
    assert choose_previous(points).point_id == point_id(5)


def test_a_missing_parent_makes_a_full() -> None:
    assert choose_previous(chain_of_points(3)[1:]).reason == "previous_damaged"


def test_a_clock_that_was_set_back_changes_nothing() -> None:
    points = [ListedPoint(a_manifest(50, generation=1)), ListedPoint(a_manifest(7, generation=2))]
    assert choose_previous(points).point_id == point_id(7)
    assert choose_previous(points[::-1]).point_id == point_id(7)


def test_an_unreadable_point_counts_where_its_time_puts_it() -> None:
    older = ListedPoint(unreadable_manifest("memory-a", point_id(1)), "damaged")
    newer = ListedPoint(unreadable_manifest("memory-a", point_id(9)), "damaged")
    good = ListedPoint(a_manifest(5))
    assert choose_previous([older, good]).point_id == point_id(5)
    assert choose_previous([good, newer]).reason == "previous_damaged"
    assert choose_previous([newer]).reason == "previous_damaged"


def test_change_ids_of_the_newest_point_are_needed_even_if_the_chain_is_full() -> None:
    points = chain_of_points(40)
    assert choose_previous(points).reason == "chain_too_deep"
    assert known_change_ids(points) == ["change-28"]
    untracked = replace(points[-1].manifest, disks=[replace(points[-1].manifest.disks[0], change_id="")])
    assert known_change_ids([*points[:-1], ListedPoint(untracked)]) == []


def test_the_reasons_are_those_of_the_platforms() -> None:
    reasons = {decision.NO_PREVIOUS_BACKUP, decision.PREVIOUS_DAMAGED, decision.CHAIN_TOO_DEEP, decision.REQUESTED}
    assert reasons <= set(platforms.REASONS)
    assert vars(PreviousDisk("a", 1, "c")) == vars(platforms.PreviousDisk("a", 1, "c"))
