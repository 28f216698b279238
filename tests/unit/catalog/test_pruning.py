# Copyright: (c) 2026, Sendense contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""From expired points to deletions and merges."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Dict, List, Mapping, Set

from hypothesis import given
from hypothesis import strategies as st

from ansible_collections.sendense.platform.plugins.module_utils.catalog.manifest import Manifest, unreadable_manifest
from ansible_collections.sendense.platform.plugins.module_utils.catalog.pruning import Left, Merge, immutables, plan
from tests.unit.catalog.manifests import ListedPoint, a_manifest, chain_of_points, point_id


def ids(*numbers: int) -> List[str]:
    return [point_id(number) for number in numbers]


@dataclass
class ProtectedPoint(ListedPoint):
    immutable_until: str = ""


def tree(parents: Mapping[int, int]) -> List[ProtectedPoint]:
    return [ProtectedPoint(a_manifest(number, parent)) for number, parent in parents.items()]


def test_a_run_in_the_middle_is_merged_into_what_stands_on_it() -> None:
    made = plan(chain_of_points(5), set(ids(2, 3)), {})
    assert made.merge == [Merge(ids(2, 3), point_id(4))]
    assert (made.delete, made.left, made.going) == ([], [], set(ids(2, 3)))


def test_an_expired_full_is_consumed_too_and_runs_are_separate() -> None:
    made = plan(chain_of_points(7), set(ids(1, 3, 4, 6)), {})
    assert made.merge == [Merge(ids(1), point_id(2)), Merge(ids(3, 4), point_id(5)), Merge(ids(6), point_id(7))]


def test_the_end_of_a_chain_and_whole_chains_are_deleted_newest_first() -> None:
    assert plan(chain_of_points(4), set(ids(3, 4)), {}).delete == ids(4, 3)
    points = tree({1: 0, 2: 1, 5: 0, 6: 5})
    made = plan(points, set(ids(1, 2, 5)), {})
    assert made.delete == ids(2, 1) and made.merge == [Merge(ids(5), point_id(6))]


def test_a_point_with_two_children_stays_but_what_is_below_goes_into_it() -> None:
    points = tree({1: 0, 2: 1, 3: 2, 4: 2})
    made = plan(points, set(ids(1, 2)), {})
    assert made.merge == [Merge(ids(1), point_id(2))]
    assert made.left == [Left(point_id(2), f"more than one backup stands on it: {', '.join(ids(3, 4))}")]


def test_one_of_two_children_is_deleted_and_the_run_goes_into_the_other() -> None:
    made = plan(tree({1: 0, 2: 1, 3: 2, 4: 2}), set(ids(2, 3)), {})
    assert made.delete == ids(3) and made.merge == [Merge(ids(2), point_id(4))] and made.left == []


def test_what_is_protected_stays_and_is_not_changed() -> None:
    made = plan(chain_of_points(4), set(ids(1, 2)), {point_id(2): "it is being read"})
    assert made.left == [
        Left(point_id(1), f"{point_id(2)}, which stands on it, cannot be changed: it is being read"),
        Left(point_id(2), "it is being read"),
    ]
    assert made.going == set()
    survivor = plan(chain_of_points(4), set(ids(2)), {point_id(3): "it is being read"})
    assert survivor.merge == [] and survivor.left[0].point_id == point_id(2)


def test_an_immutable_point_protects_itself_and_all_that_it_stands_on() -> None:
    points = tree({1: 0, 2: 1, 3: 2, 4: 3})
    points[2].immutable_until = "2026-12-01T00:00:00Z"
    found = immutables(points, "2026-11-20T00:00:00Z")
    assert sorted(found) == ids(1, 2, 3)
    assert found[point_id(3)] == "it is immutable until 2026-12-01T00:00:00Z" and point_id(3) in found[point_id(1)]
    assert immutables(points, "2026-12-01T00:00:00Z") == {}


def test_damaged_points_are_deleted_at_the_end_of_a_chain_but_never_merged() -> None:
    points = chain_of_points(4)
    for point in points[1:]:
        point.status = "damaged"
    made = plan(points, set(ids(3, 4)), {})
    assert made.delete == ids(4, 3)
    made = plan(points, set(ids(2, 3)), {})
    assert made.going == set() and [one.point_id for one in made.left] == ids(2, 3)
    made = plan(points, set(ids(1)), {})
    assert made.left == [Left(point_id(1), f"{point_id(2)}, which stands on it, is damaged")]


def test_an_unreadable_point_goes_only_if_nothing_stands_on_it() -> None:
    unreadable = ListedPoint(unreadable_manifest("memory-a", point_id(1)), "damaged")
    assert plan([unreadable], set(ids(1)), {}).delete == ids(1)
    child = ListedPoint(a_manifest(2, 1), "damaged")
    assert plan([unreadable, child], set(ids(1)), {}).left[0].point_id == point_id(1)


def test_what_is_being_merged_is_left_to_its_merge() -> None:
    points = chain_of_points(4)
    points[1].status = "merging"
    made = plan(points, set(ids(1, 2)), {})
    assert made.going == set() and made.left == [Left(point_id(1), f"{point_id(2)}, which stands on it, is merging")]


def test_a_circle_is_not_taken_apart() -> None:
    points = [ListedPoint(a_manifest(1, 2)), ListedPoint(a_manifest(2, 1))]
    made = plan(points, set(ids(1, 2)), {})
    assert made.going == set() and [one.point_id for one in made.left] == ids(1, 2)


def test_unknown_ids_and_nothing_to_do() -> None:
    assert plan(chain_of_points(3), {"20200101T000000Z-00000000"}, {}).going == set()
    assert plan([], set(ids(1)), {}).left == []


@st.composite
def forests(draw: st.DrawFn) -> Dict[int, int]:
    count = draw(st.integers(1, 14))
    return {number: draw(st.integers(max(0, number - 3), number - 1)) for number in range(1, count + 1)}


@given(forests(), st.sets(st.integers(1, 14)), st.sets(st.integers(1, 14)), st.sets(st.integers(1, 14)))
def test_whatever_the_chains_every_expired_point_is_in_one_place_and_every_kept_one_still_stands(
    parents: Dict[int, int], expired: Set[int], protected: Set[int], damaged: Set[int]
) -> None:
    points = tree(parents)
    for point in points:
        below = _below({one.manifest.point_id: one.manifest for one in points}, point.manifest.point_id)
        point.status = "damaged" if {*below, point.manifest.point_id} & set(ids(*damaged)) else "ok"
    made = plan(points, set(ids(*expired)), dict.fromkeys(ids(*protected), "x"))
    consumed = [one for merge in made.merge for one in merge.consumed]
    accounted = [*made.delete, *consumed, *(one.point_id for one in made.left)]
    assert sorted(accounted) == ids(*sorted(expired & set(parents)))
    # Redo it on a model: a deletion needs no child, a merge hands the survivor the parent of what it consumed.
    parent = {point.manifest.point_id: point.manifest.parent_id for point in points}
    sound = {point.manifest.point_id for point in points if point.status == "ok"}
    for one in made.delete:
        assert one not in parent.values() and one not in ids(*protected)
        del parent[one]
    for merge in made.merge:
        chain = [*merge.consumed, merge.survivor]
        assert [parent[above] for above in chain[1:]] == merge.consumed
        assert all(list(parent.values()).count(one) == 1 for one in merge.consumed)
        assert set(chain) <= sound and not set(chain) & set(ids(*protected))
        parent[merge.survivor] = parent[merge.consumed[0]]
        for one in merge.consumed:
            del parent[one]
    assert all(below in parent for below in parent.values() if below)


def _below(manifests: Dict[str, Manifest], one: str) -> List[str]:
    found = []
    while manifests[one].parent_id:
        one = manifests[one].parent_id
        found.append(one)
    return found
