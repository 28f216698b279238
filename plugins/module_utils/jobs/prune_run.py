# Copyright: (c) 2026, Sendense contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A prune at work: open merges of earlier runs first, then the plan, the guard, deletions (newest first), merges one by one.

What a lease of another job holds back today is reported as left, and is no failure.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Dict, List, Optional

from ..catalog.pruning import Merge
from ..errors import (
    CapabilityMissingError,
    JobRunningError,
    PointDamagedError,
    PointImmutableError,
    PointInUseError,
    RepositoryFullError,
    SendenseError,
)
from ..repositories._base import PointFilter, Repository
from ..steps import reached
from . import merging
from .expiry import DELETED, KEPT, LEFT, MERGED, Row, look, outcome, refusal, stored_bytes
from .following import FollowedChild
from .place import JobPlace
from .point_leases import alone

Result = Dict[str, Any]
#: Why a merge cannot be begun today, with nothing changed.
_NOT_TODAY = (JobRunningError, PointInUseError, PointImmutableError, RepositoryFullError, CapabilityMissingError)
#: Of a point that an earlier run had merged almost to the end.
_UNKNOWN: Row = {"created_at": "", "level": "", "status": "merging", "stored_bytes": 0, "reasons": ["an earlier run had merged it"]}


@dataclass
class Pruning:
    """A prune at work. ``state`` is plain data that the module keeps between its calls."""

    place: JobPlace
    repository: Repository
    key: str
    params: Dict[str, Any]
    state: Dict[str, Any]

    @classmethod
    def of(cls, place: JobPlace, repository: Repository, key: str, params: Dict[str, Any]) -> "Pruning":
        """A new one; ``phase`` of ``params`` decides how long it waits for its children."""
        state: Dict[str, Any] = {
            "rows": None,
            "open": None,
            "todo": [],
            "work": {},
            "count": 0,
            "deleted": [],
            "merged": {},
            "left": {},
            "damaged": [],
        }
        return cls(place, repository, key, params, dict(state, synthetic=""))

    def advance(self) -> Optional[FollowedChild]:
        """Work until a child takes long (that child) or everything is done (None)."""
        phase = self.params["phase"]
        if self.state["open"] is None:
            self._take_over()
        while True:
            if self.state["work"]:
                child = self._go_on(phase)
                if child is not None:
                    self.place.save("prune", self.state)
                    return child
            elif self.state["open"]:
                merge = self.state["open"].pop(0)
                self._begin(Merge(merge["consumed"], merge["survivor"]), merge["job_id"])
            elif self.state["rows"] is None:
                self._plan()
            elif self.state["todo"]:
                merge = self.state["todo"].pop(0)
                self._begin(Merge(merge["consumed"], merge["survivor"]), self.place.job_id)
            else:
                return None

    def _take_over(self) -> None:
        """The machine is ours: what dead jobs left goes, and what they had almost finished is finished."""
        with self.place.beating():
            for stale in self.repository.partials(self.key):
                self.repository.abort(self.key, stale.job_id)
            before = self.repository.open_merges(self.key)
            self.repository.recover(self.key)
            self.repository.raise_generation(self.key)
            still = self.repository.open_merges(self.key)
        for merge in before:
            if merge not in still:
                self.state["merged"].update(dict.fromkeys(merge.consumed, merge.survivor))
        self.state["open"] = [{"consumed": one.consumed, "survivor": one.survivor, "job_id": one.job_id} for one in still]
        reached("prune:taken-over")

    def _plan(self) -> None:
        """Look again, now that nobody else writes; then the guard, and the deletions, which cost nothing."""
        found = look(self.repository, self.key, self.params, self.place.job_id)
        if found.refused:
            raise refusal(found, self.key)
        self.state["rows"] = found.rows()
        self.state["todo"] = [{"consumed": merge.consumed, "survivor": merge.survivor} for merge in [*found.plan.merge, *found.synthetic]]
        reached("prune:planned")
        owner = str(self.repository.identity()["owner"])
        for point_id in found.plan.delete:
            self._delete(owner, point_id)

    def _delete(self, owner: str, point_id: str) -> None:
        self.place.client.ping()  # a job that was cancelled or given up deletes nothing more: the machine is not its own any longer
        try:
            with alone(self.place, owner, self.key, point_id), self.place.beating():
                self.repository.delete(self.key, point_id)
        except (JobRunningError, PointInUseError, PointImmutableError) as error:
            self.state["left"][point_id] = error.msg
            return
        self.state["deleted"].append(point_id)
        reached("prune:deleted")

    def _begin(self, merge: Merge, owner: str) -> None:
        """``owner``: the job that the merge belongs to before it is begun."""
        try:
            self.state["work"] = merging.begin_work(
                self.place, self.repository, self.key, merge.survivor, merge.consumed, self._next_number()
            )
        except _NOT_TODAY as error:
            self.state["left"].update(dict.fromkeys(merge.consumed, error.msg))
        except PointDamagedError as error:
            self._note_damage(self.repository.abandon_merge(self.key, error.msg, owner))
            self._note_damage(self.repository.mark_damaged(self.key, merge.survivor, error.msg))
            self.state["left"].update(dict.fromkeys(merge.consumed, error.msg))

    def _go_on(self, phase: str) -> Optional[FollowedChild]:
        work = self.state["work"]
        merge = merging.open_merge(work)
        try:
            child = merging.advance(self.place, self.repository, work, phase)
        except RepositoryFullError as error:
            # The deletions that come after an open merge may be what makes room for it.
            merging.stop_readers(self.place)
            self.state["work"] = {}
            if not merge.consumed:
                # Nothing waits for a synthetic full; half of one would keep the storage full, for other backups, too.
                merging.abandon(self.place, self.repository, work, error.msg)
            self.state["left"].update(dict.fromkeys(merge.consumed, error.msg))
            return None
        except SendenseError as error:
            if not merging.is_disproof(error):
                raise
            self._disproved(work, error)
            return None
        if child is None:
            self.state["work"] = {}
            self.state["merged"].update(dict.fromkeys(merge.consumed, merge.survivor))
            if not merge.consumed:
                self.state["synthetic"] = merge.survivor
        return child

    def _disproved(self, work: merging.Work, error: SendenseError) -> None:
        """Once more; if the data is wrong again, it was wrong before the merge, and that is said of the points."""
        if work["attempt"] < merging.ATTEMPTS:
            merging.stop_readers(self.place)
            self.state["work"] = merging.begin_again(self.place, self.repository, work, self._next_number())
            return
        self.state["work"] = {}
        merge = merging.open_merge(work)
        self._note_damage(merging.abandon(self.place, self.repository, work, error.msg))
        if not merge.consumed:  # then nothing has changed, so what was read of the point was wrong
            self._note_damage(self.repository.mark_damaged(self.key, merge.survivor, error.msg))
        self.state["left"].update(dict.fromkeys(merge.consumed, error.msg))

    def _note_damage(self, marked: List[str]) -> None:
        self.state["damaged"] += [point_id for point_id in marked if point_id not in self.state["damaged"]]

    def _next_number(self) -> int:
        self.state["count"] += 1
        return int(self.state["count"])

    def result(self) -> Result:
        """What has become of every point."""
        rows = [self._outcome(row) for row in self.state["rows"]]
        known = {row["point_id"] for row in rows}
        early = [point_id for point_id in self.state["merged"] if point_id not in known]
        rows = [*({"point_id": one, "action": MERGED, "into": self.state["merged"][one], **_UNKNOWN} for one in sorted(early)), *rows]
        there = {one.manifest.point_id: stored_bytes(one) for one in self.repository.list(PointFilter(machine_key=self.key))}
        freed = sum(row["stored_bytes"] - there.get(row["point_id"], 0) for row in rows)
        changed = bool(self.state["deleted"] or self.state["merged"] or self.state["damaged"] or self.state["synthetic"])
        told = {"damaged": self.state["damaged"], "synthetic_full": self.state["synthetic"], "bytes_freed": max(0, freed)}
        return dict(outcome(rows, changed=changed), **told)

    def _outcome(self, row: Row) -> Row:
        point_id, reasons = row["point_id"], row["reasons"]
        if point_id in self.state["deleted"]:
            return dict(row, action=DELETED)
        if point_id in self.state["merged"]:
            return dict(row, action=MERGED, into=self.state["merged"][point_id])
        if row["action"] == KEPT:
            return row
        why = self.state["left"].get(point_id)
        return dict(row, action=LEFT, into="", reasons=[*reasons, f"but {why}"] if why else reasons)
