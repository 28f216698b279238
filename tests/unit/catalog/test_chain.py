# Copyright: (c) 2026, Sendense contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Chains: what stands on what, and what is wrong with it."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ansible_collections.sendense.platform.plugins.module_utils.catalog import chain
from ansible_collections.sendense.platform.plugins.module_utils.errors import PointDamagedError, PointNotFoundError
from tests.unit.catalog.manifests import a_manifest, chain_of_points, point_id, reparented


def manifests_of(length: int) -> dict:
    return {point.manifest.point_id: point.manifest for point in chain_of_points(length)}


def test_ancestors_descendants_and_depth() -> None:
    found = manifests_of(4)
    sibling = replace(reparented(a_manifest(9, 1), point_id(2), f"{2:064x}"))
    found[point_id(9)] = sibling
    assert chain.ancestors(found, point_id(4)) == [point_id(3), point_id(2), point_id(1)]
    assert chain.ancestors(found, point_id(1)) == []
    assert chain.depth(found, point_id(9)) == 2
    assert chain.descendants(found, point_id(2)) == [point_id(3), point_id(4), point_id(9)]
    assert chain.descendants(found, point_id(4)) == []
    assert [layer for layer, _disk in chain.disk_layers(found, point_id(3), "serial-a")] == [point_id(1), point_id(2), point_id(3)]
    assert all(chain.fault(found, one) == "" for one in found)


def test_a_missing_parent_is_named_and_its_children_are_still_known() -> None:
    found = manifests_of(3)
    del found[point_id(2)]
    assert point_id(2) in chain.fault(found, point_id(3))
    assert chain.fault(found, point_id(1)) == ""
    assert chain.descendants(found, point_id(2)) == [point_id(3)]
    with pytest.raises(PointDamagedError):
        chain.disk_layers(found, point_id(3), "serial-a")
    with pytest.raises(PointNotFoundError):
        chain.ancestors(found, point_id(2))


@given(length=st.integers(2, 6), at=st.data())
def test_every_circle_ends_and_is_damage(length: int, at: st.DataObject) -> None:
    found = manifests_of(length)
    back_to = at.draw(st.integers(2, length))
    found[point_id(1)] = reparented(a_manifest(1, back_to), point_id(back_to), f"{back_to:064x}")
    for number in range(1, length + 1):
        assert "circle" in chain.fault(found, point_id(number))
        assert point_id(number) not in chain.descendants(found, point_id(number))


def test_a_parent_of_another_content_is_damage() -> None:
    found = manifests_of(3)
    other = found[point_id(1)]
    found[point_id(1)] = replace(other, disks=[replace(other.disks[0], root="ff" * 32)])
    assert "not the content" in chain.fault(found, point_id(2))
    assert "not the content" in chain.fault(found, point_id(3))


@pytest.mark.parametrize("change", [{"size_bytes": 512}, {"hash_algorithm": "sha256"}, {"block_bytes": 4096}, {"id": "other"}])
def test_a_parent_whose_disk_does_not_fit_is_damage(change: dict) -> None:
    found = manifests_of(2)
    other = found[point_id(1)]
    found[point_id(1)] = replace(other, disks=[replace(other.disks[0], **change)])
    assert chain.fault(found, point_id(2)) != ""


def test_layers_end_at_the_disks_own_full() -> None:
    found = manifests_of(3)
    middle = found[point_id(2)]
    full = replace(middle.disks[0], level="full", parent_id="", parent_root="")
    found[point_id(2)] = replace(middle, disks=[full, replace(middle.disks[0], key="disk1", id="serial-b")])
    assert [layer for layer, _disk in chain.disk_layers(found, point_id(3), "serial-a")] == [point_id(2), point_id(3)]
    with pytest.raises(PointDamagedError):
        chain.disk_layers(found, point_id(3), "serial-b")


def test_a_merge_below_leaves_the_children_sound() -> None:
    found = manifests_of(3)
    merged = found.pop(point_id(2))
    del found[point_id(1)]
    disk = replace(merged.disks[0], level="full", parent_id="", parent_root="")
    found[point_id(2)] = replace(merged, level="full", parent_id="", chain_depth=0, disks=[disk])
    assert chain.fault(found, point_id(3)) == ""
    assert chain.depth(found, point_id(3)) == 1
