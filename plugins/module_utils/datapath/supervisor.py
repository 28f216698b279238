# Copyright: (c) 2026, Sendense contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What the main thread of a mover or verifier does meanwhile, and how their work ended."""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from typing import Any, Dict, List, Optional, Sequence

from ..errors import JobAbandonedError, JobCancelledError
from .cap import Cap
from .loop import Stop
from .status import RUNNING, DiskProgress, StatusReport, write_status


@dataclass
class MoveResult:
    """How a copy ended: one entry per disk in ``disks``, in the shape of the status file."""

    state: str
    """``done``, ``failed`` or ``cancelled``."""
    error: Optional[Dict[str, Any]]
    """The first error, as ``SendenseError.as_result``."""
    disks: Dict[str, Dict[str, Any]] = field(default_factory=dict)
    document: Dict[str, Any] = field(default_factory=dict)
    """The last status document."""


class Supervisor:
    """What the main thread of a mover or verifier does meanwhile: status file, cancel file, the end."""

    def __init__(
        self,
        progress: List[DiskProgress],
        stop: Stop,
        status_path: str = "",
        cancel_path: str = "",
        also: Sequence[DiskProgress] = (),
        cap: Optional[Cap] = None,
    ) -> None:
        self.report = StatusReport(progress, also)
        self._cap = cap
        self.stop = stop
        self._status_path = status_path
        self._cancel_path = cancel_path

    def tick(self) -> None:
        """Called several times a second."""
        if self._cap is not None:
            self.report.cap = self._cap.refresh()
        if self._cancel_path and not self.stop.is_set() and os.path.exists(self._cancel_path):
            self.stop.request(JobCancelledError("The job was cancelled: its cancel file appeared."))
        self.publish(self.report.build(RUNNING))

    def publish(self, document: Dict[str, Any]) -> None:
        """Replace the status file; a missing job directory means that the job was given up."""
        if not self._status_path:
            return
        try:
            write_status(self._status_path, document)
        except FileNotFoundError:
            self.stop.request(JobAbandonedError(f"The directory of {self._status_path!r} is gone: the job was given up."))
        except OSError:
            pass  # a full file system delays the news, not the copy; the next tick tries again
