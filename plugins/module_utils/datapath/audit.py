# Copyright: (c) 2026, Sendense contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The audit of change tracking: what an incremental does not copy must still be what its parent says.

The hub has chosen blocks and written their digests, as the parent's chain composes them, into a hash file. Those of them that
this copy does not take are read from the same frozen snapshot and compared, before the first byte moves. A block that
differs was changed without being reported. An audit that cannot read a block is no lie: it is reported, and the copy goes on. A source
that is dead or hangs ends the job, as it would end the copy.
"""

from __future__ import annotations

from typing import Any, Callable, Dict, List, Optional, Sequence, Tuple

from ..errors import CopyStalledError, ExportFailedError, SendenseError, SourceVanishedError, TrackingLiedError
from .bandwidth import TokenBucket
from .blockhashes import BlockHashFile
from .extents import Run, without
from .loop import Stop
from .mover_plan import DiskJob, MoverOptions, spare_connections
from .status import DONE
from .transfer import Transfer
from .verifier import HELD, CompareHandler, Verification, VerifyJob, verify_disks

#: How many differing blocks are named: the hub traces each of them to the points that have it wrong.
NAMED_BLOCKS = 1000

#: What a source says that will answer the copy no better.
DEAD = (CopyStalledError, ExportFailedError, SourceVanishedError)


class Audit(Verification):
    """The audit of one prepared transfer, in the stages of a verification."""

    named = NAMED_BLOCKS

    def __init__(self, transfer: Transfer, options: MoverOptions, cancelled: Callable[[], bool]) -> None:
        job = transfer.job
        super().__init__(VerifyJob(job.key, job.source_uri, [job.audit_path], HELD, job.size_bytes), options, cancelled)
        self.transfer = transfer
        self.verdict: Optional[SendenseError] = None
        """Why nothing may be copied: blocks differ, or the source is dead."""

    def _wanted(self, layers: List[BlockHashFile]) -> Tuple[List[Run], Callable[[int, int], bytes]]:
        chosen, expected = super()._wanted(layers)
        return without(chosen, self.transfer.planned()), expected

    def _judgement(self, handler: CompareHandler) -> SendenseError:
        count = handler.mismatch_count
        return TrackingLiedError(
            f"{self.job.key}: {count} of {handler.checked} audited blocks have changed since the previous backup (first: "
            f"{handler.mismatches[:5]}), but the platform's change tracking does not report them. Nothing was committed; back "
            "the machine up in full. See docs/runbooks/change-tracking-lied.md.",
            details={
                "disk": self.job.key,
                "mismatches": list(handler.mismatches),
                "count": count,
                "complete": count == len(handler.mismatches),
            },
        )

    def fail(self, error: SendenseError) -> None:
        super().fail(error)
        if isinstance(error, (TrackingLiedError, *DEAD)):
            self.verdict = error

    def summary(self) -> Dict[str, Any]:
        """What the result of the copied disk says of its audit. Bytes and seconds are the audit's own."""
        progress = self.progress
        return {
            "ok": progress.state == DONE,
            "blocks_checked": progress.extra["blocks_checked"],
            "mismatch_count": progress.extra["mismatch_count"],
            "bytes_read": progress.bytes_read,
            "seconds": progress.seconds(),
            "error": progress.error,
        }


def audit_disks(
    audits: Sequence[Audit],
    jobs: List[DiskJob],
    options: MoverOptions,
    stop: Stop,
    bucket: Optional[TokenBucket],
    tick: Callable[[], None],
) -> None:
    """Audit all disks to the end, so that every lie is known; then ``stop`` is set if nothing may be copied.

    So many at once as their servers have connections left beside those of all jobs.
    """
    room = spare_connections(jobs)
    for first in range(0, len(audits), room):
        verify_disks(audits[first : first + room], options, stop, bucket, tick)
    for audit in audits:
        audit.transfer.progress.extra["audit"] = audit.summary()
        if audit.verdict is not None:
            stop.request(audit.verdict, audit.job.key)
