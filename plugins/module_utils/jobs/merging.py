# Copyright: (c) 2026, Sendense contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""One merge of a prune at the hub: leases, journal, the merger, the checker, the new form of the survivor.

A merge that is interrupted anywhere is gone on with by the next prune (docs/design/retention.md). ``Work`` is plain data, for
the calls of the module that follow each other.
"""

from __future__ import annotations

import time
from dataclasses import asdict
from typing import Any, Dict, List, Optional

from ..catalog import chain
from ..catalog.times import utc_from_seconds
from ..errors import FencedError, PointDamagedError, VerificationFailedError
from ..repositories._base import MergeDisk, OpenMerge, PointFilter, Repository
from ..steps import reached
from .following import FollowedChild, disk_results, follow
from .place import JobPlace
from .point_leases import hold_alone
from .reading import image_path, start_readers, stop_readers

Work = Dict[str, Any]
MOVE, CHECK = "move", "check"
#: How often the data of a merge is moved and proved, before it is given up: a second time, for the first may have been the storage's fault.
ATTEMPTS = 2


def begin_work(place: JobPlace, repository: Repository, key: str, survivor: str, consumed: List[str], number: int) -> Work:
    """Take the leases and write the journal. JobRunningError if a point is being read; errors of ``begin_merge``."""
    owner = str(repository.identity()["owner"])
    manifests = {point.manifest.point_id: point.manifest for point in repository.list(PointFilter(machine_key=key))}
    lowest = consumed[0] if consumed else survivor
    hold_alone(place, owner, key, [lowest, survivor, *consumed, *chain.descendants(manifests, lowest)])
    reached("prune:points-leased")
    with place.beating():
        merge = repository.begin_merge(key, survivor, consumed, place.job_id)
    reached("prune:merge-begun")
    return {"merge": asdict(merge), "stage": "", "number": number, "attempt": 1}


def begin_again(place: JobPlace, repository: Repository, work: Work, number: int) -> Work:
    """The same merge from its beginning, once more. FencedError if it is not this job's any more: to begin would take it over."""
    merge = open_merge(work)
    if merge.job_id not in [present.job_id for present in repository.open_merges(merge.machine_key)]:
        raise FencedError(
            f"Cannot repeat the merge into point {merge.survivor} of machine {merge.machine_key}: another job has taken it over."
            " Prune again.",
            details={"machine_key": merge.machine_key, "point_id": merge.survivor},
        )
    with place.beating():
        again = repository.begin_merge(merge.machine_key, merge.survivor, merge.consumed, place.job_id)
    return {"merge": asdict(again), "stage": "", "number": number, "attempt": work["attempt"] + 1}


def open_merge(work: Work) -> OpenMerge:
    """The merge of this work."""
    data = dict(work["merge"])
    return OpenMerge(**dict(data, disks=[MergeDisk(**disk) for disk in data["disks"]]))


def advance(place: JobPlace, repository: Repository, work: Work, phase: str) -> Optional[FollowedChild]:
    """Go on as far as the phase allows: the child that runs, or None when the merge is finished.

    VerificationFailedError, PointDamagedError: what was merged is not what the hashes say.
    """
    merge = open_merge(work)
    moved = [disk for disk in merge.disks if disk.action != "keep"]
    if not moved:
        _finish(place, repository, merge, {}, dict(repository.get(merge.machine_key, merge.survivor).manifest.verified))
        return None
    mover = FollowedChild(place.job, place.client, f"merge-{work['number']}", "merger")
    checker = FollowedChild(place.job, place.client, f"check-{work['number']}", "checker")
    if not work["stage"]:
        mover.start(place.agent_path, {"disks": [_job(disk) for disk in moved], "options": {}})
        work["stage"] = MOVE
        reached("prune:merger-started")
    if work["stage"] == MOVE:
        if follow(mover, phase) is None:
            return mover
        reached("prune:data-moved")
        _start_check(place, repository, merge, checker)
        work["stage"] = CHECK
        reached("prune:checker-started")
    status = follow(checker, phase)
    if status is None:
        return checker
    stop_readers(place)
    _finish(place, repository, merge, {disk["key"]: disk["digest"] for disk in disk_results(status)}, _verified(repository))
    return None


def abandon(place: JobPlace, repository: Repository, work: Work, reason: str) -> List[str]:
    """Give a merge up whose data is not what the hashes say; the points marked as damaged. FencedError."""
    stop_readers(place)
    merge = open_merge(work)
    with place.beating():
        return repository.abandon_merge(merge.machine_key, reason, merge.job_id)


def is_disproof(error: Exception) -> bool:
    """Whether an error says that the merged data is wrong, and not only that something did not work."""
    return isinstance(error, (VerificationFailedError, PointDamagedError))


def _job(disk: MergeDisk) -> Dict[str, Any]:
    return {name: getattr(disk, name) for name in ("key", "action", "top", "base", "size_bytes")}


def _start_check(place: JobPlace, repository: Repository, merge: OpenMerge, checker: FollowedChild) -> None:
    """Fresh processes read back what the merger stored, and compare it with the composed hashes; the files are digested."""
    with place.beating():
        images = repository.merged_images(merge)
        hashes = repository.merged_hashes(merge)
    sizes = {disk.key: disk.size_bytes for disk in merge.disks}
    uris = start_readers(place, images, sizes)
    algorithms = {disk.key: disk.hash_algorithm for disk in repository.get(merge.machine_key, merge.survivor).manifest.disks}
    disks = [
        {"key": key, "uri": uri, "size_bytes": sizes[key], "hashes": [hashes[key]], "mode": "held"} for key, uri in sorted(uris.items())
    ]
    digests = [{"key": key, "path": image_path(image), "algorithm": algorithms[key]} for key, image in sorted(images.items())]
    checker.start(place.agent_path, {"disks": disks, "options": {}, "digests": digests})


def _verified(repository: Repository) -> Dict[str, str]:
    direct = repository.capabilities().direct_reread
    return {
        "at": utc_from_seconds(time.time()),
        "method": "direct" if direct else "cached",
        "reason": "" if direct else "the file system of the repository does not support direct reads",
    }


def _finish(place: JobPlace, repository: Repository, merge: OpenMerge, digests: Dict[str, str], verified: Dict[str, str]) -> None:
    with place.beating():
        repository.finish_merge(merge, digests, verified)
    reached("prune:merge-finished")
