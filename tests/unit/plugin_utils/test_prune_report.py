# Copyright: (c) 2026, Sendense contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What the report of a prune says."""

from __future__ import annotations

from ansible_collections.sendense.platform.plugins.plugin_utils.prune_report import prune_report

PRUNED = {"kept": [{}], "merged": [{"point_id": "a", "level": "full", "into": "b", "reasons": ["no rule keeps it"]}], "synthetic_full": "b"}


def test_a_plan_is_told_from_a_prune() -> None:
    lines = prune_report({"pruned": PRUNED})["lines"]
    assert (lines[0], lines[-1]) == ("1 backup kept, 1 merged", "backup b written anew as a full one")
    lines = prune_report({"pruned": PRUNED, "check_mode": True})["lines"]
    assert (lines[0], lines[-1]) == ("1 backup would be kept, 1 merged", "backup b would be written anew as a full one")
