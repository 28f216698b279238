# Copyright: (c) 2026, Sendense contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Leases on points: who reads one shares its lease and those of all that it stands on; who removes or changes one is alone."""

from __future__ import annotations

import os
from contextlib import contextmanager, suppress
from typing import Dict, Iterable, Iterator

from ..catalog import chain
from ..errors import JobRunningError, LeaseHeldError, RepositoryIoError
from ..hubstate.locks import FileLease, holder
from ..hubstate.statedir import StateDir
from ..repositories._base import PointFilter, Repository
from .place import JobPlace


def lease_name(owner: str, key: str, point_id: str) -> str:
    """The hub's lease on one point of one machine in one repository."""
    return f"point-{owner}-{key}-{point_id}"


def hold_for_reading(place: JobPlace, repository: Repository, key: str, point_ids: Iterable[str]) -> None:
    """Share the points and all that they stand on until the job ends; JobRunningError if one is being removed or changed.

    What is read of the points must be read after this.
    """
    owner = str(repository.identity()["owner"])
    manifests = {point.manifest.point_id: point.manifest for point in repository.list(PointFilter(machine_key=key))}
    wanted = {one for point_id in point_ids for one in [point_id, *chain.known_ancestors(manifests, point_id)]}
    for one in sorted(wanted):
        place.hold(lease_name(owner, key, one), f"point {one}", shared=True)
    # Any job that writes for the machine ends a merge that was cut off with its result complete, and asks for no point's lease: if
    # that is done now, nobody does it while the points are read. Who may not write here can change nothing either.
    with suppress(RepositoryIoError), place.beating():
        repository.recover(key)


def hold_alone(place: JobPlace, owner: str, key: str, point_ids: Iterable[str]) -> None:
    """Hold points until the job ends, alone; JobRunningError if one is being read. What was taken before that is kept."""
    for one in sorted(point_ids):
        place.hold(lease_name(owner, key, one), f"point {one}")


@contextmanager
def alone(place: JobPlace, owner: str, key: str, point_id: str) -> Iterator[None]:
    """Hold a point alone for a moment, in this process; JobRunningError if it is being read."""
    path = os.path.join(place.state.leases, f"{lease_name(owner, key, point_id)}.lease")
    try:
        lease = FileLease.acquire(path, {"job_id": place.job_id, "what": f"point {point_id}"})
    except LeaseHeldError as error:
        raise JobRunningError(f"Point {point_id} is in use by another job. Try again when it has ended.", details=error.details) from error
    try:
        yield
    finally:
        lease.release()


def in_use(state: StateDir, owner: str, key: str, point_ids: Iterable[str], but: str = "") -> Dict[str, str]:
    """Which points are held by a living job other than ``but``, and by which, in words."""
    found = {}
    for one in point_ids:
        who = holder(os.path.join(state.leases, f"{lease_name(owner, key, one)}.lease"))
        if who is not None and not (but and who.get("job_id") == but):
            found[one] = f"it is in use by job {who.get('job_id') or 'of another kind'}"
    return found
