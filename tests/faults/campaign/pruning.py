# Copyright: (c) 2026, Sendense contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What the prune families share: a workbench with backups to let go, a pruner, and the oracle of retention.

The policy is ``keep_last``, so what must be there afterwards is known without the product's arithmetic.
"""

from __future__ import annotations

from typing import Any, Dict, List

from ansible_collections.sendense.platform.plugins.module_utils.jobs import place

from .hub_process import HubProcess
from .workbench import Workbench

KEEP = 2
#: The bench's own clock begins in 2027, and its backups are a minute apart; the pruner's clock is past all of them.
NOW = 1_900_000_000


def params(bench: Workbench, keep: int = KEEP) -> Dict[str, Any]:
    """The arguments of ``backup_prune`` on the bench."""
    policy = {"keep_last": keep, "minimum_sound": 1}
    given = {"policy": policy, "point_ids": [], "confirm_expiry": True, "synthetic_full": False}
    return dict(bench.common(), **given, job_id=place.new_job_id(), now=NOW)


def prune(bench: Workbench, keep: int = KEEP) -> Dict[str, Any]:
    """A whole prune that nobody disturbs."""
    return HubProcess.start("prune", params(bench, keep), bench.directory).outcome()


def history(bench: Workbench) -> None:
    """A new chain on top of what there is: the old one is there to be deleted, the new one's full and first to be merged."""
    for number in range(KEEP + 1):
        attempt = bench.backup(full=number == 0)
        assert attempt.ok, attempt
        bench.scribble()


def let_go(bench: Workbench, keep: int = KEEP) -> List[str]:
    """Ids of the points that the policy keeps; the oracle is told which may go, and which one a merge may write anew."""
    ids = bench.point_ids()
    bench.oracle.released.update(ids[:-keep] + ids[-keep : len(ids) - keep + 1])
    return ids[-keep:]


def retention(bench: Workbench, keep: int = KEEP) -> List[str]:
    """Whether exactly what the policy keeps is there and sound, after a prune that was not disturbed."""
    there = {point.manifest.point_id: point for point in bench.repository.list()}
    newest = sorted(there, key=lambda point_id: there[point_id].manifest.generation)[-keep:]
    found = [f"O1 {point_id} has expired and is still there" for point_id in there if point_id not in newest]
    unsound = [point_id for point_id in newest if there[point_id].status != "ok"]
    return found + [f"O1 {point_id} is {there[point_id].status}, though the policy keeps it" for point_id in unsound]
