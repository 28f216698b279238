# Copyright: (c) 2026, Sendense contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Where damage began, and how much stands on it."""

from __future__ import annotations

import pytest

from ansible_collections.sendense.platform.plugins.module_utils.jobs.doctor.damage import damaged
from ansible_collections.sendense.platform.plugins.module_utils.repositories._base import Point
from tests.unit.catalog.manifests import a_manifest, point_id


@pytest.mark.parametrize(
    "dependants, text",
    [(0, "a block differs"), (1, "a block differs; 1 backup depends on it"), (2, "a block differs; 2 backups depend on it")],
)
def test_what_depends_on_damage_is_counted(dependants, text):
    points = [Point(a_manifest(1), "damaged", "a block differs")]
    points += [Point(a_manifest(number, parent=number - 1), "damaged", "below") for number in range(2, dependants + 2)]
    (found,) = damaged(points)
    assert (found.kind, found.object, found.found) == ("point_damaged", point_id(1), text)
