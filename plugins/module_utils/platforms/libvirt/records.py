# Copyright: (c) 2026, Sendense contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What is kept beside the disks of a snapshot: its time and the firmware's variables."""

from __future__ import annotations

import os
import time
from typing import List, Tuple

from ...errors import SnapshotFailedError
from ...model import Machine
from .client import Client


def iso_time(seconds: float) -> str:
    """UTC, ISO 8601, whole seconds."""
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(seconds))


def save_nvram(client: Client, machine: Machine, work_dir: str) -> Tuple[str, List[str]]:
    """Copy the firmware's variables into the job's directory; returns the copy's path (empty if none) and warnings.

    SnapshotFailedError if they exist and cannot be copied: without them the machine may not boot again.
    """
    if not machine.nvram_path:
        return "", []
    target = os.path.join(work_dir, "nvram.fd")
    try:
        variables = client.files.read(machine.nvram_path)
        if variables is None:
            return "", ["the machine has no firmware variables yet: it was never started"]
        with open(target, "wb") as stream:
            stream.write(variables)
    except OSError as exc:
        raise SnapshotFailedError(
            f"Cannot copy the firmware variables of machine {machine.id} from {machine.nvram_path}: {exc.strerror}.",
            details={"machine_id": machine.id, "path": machine.nvram_path},
        ) from exc
    return target, []
