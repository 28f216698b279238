# Copyright: (c) 2026, Sendense contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The limit: what can be received from one export, primed, and then forgotten.

    python -m tests.benchmarks.receive URI

prints the seconds from the first request to the last answer. Connecting, block status and priming come before.
"""

from __future__ import annotations

import sys
import time
from typing import Any, List

from ansible_collections.sendense.platform.plugins.module_utils.datapath.extents import ALLOCATION, allocation, plan_full
from ansible_collections.sendense.platform.plugins.module_utils.datapath.loop import DiskLoop, Stop
from ansible_collections.sendense.platform.plugins.module_utils.datapath.nbd_handle import NbdConnection
from ansible_collections.sendense.platform.plugins.module_utils.datapath.pipeline import Chunk, Piece, Pipeline, PipelineOptions, chunks
from ansible_collections.sendense.platform.plugins.module_utils.datapath.status import DiskProgress
from ansible_collections.sendense.platform.plugins.module_utils.datapath.targets import parse_uri
from ansible_collections.sendense.platform.plugins.module_utils.errors import SendenseError

REQUEST_BYTES, DEPTH, PRIME_BYTES = 1 << 20, 4, 16 << 20


class Forget:
    """Does nothing with what arrives."""

    def blocks(self, chunk: Chunk, buffer: Any) -> List[Piece]:
        """Nothing is to be written."""
        return []

    def zeros(self, chunk: Chunk) -> None:
        """Never called: a full reads no zeros that are known."""


def receive(uri: str) -> float:
    """Seconds to receive all data of the export. SendenseError."""
    connection = NbdConnection.open(parse_uri(uri), contexts=[ALLOCATION])
    plan = plan_full(allocation(connection, connection.size), connection.size)
    connection.read_discard(0, PRIME_BYTES)
    failures: List[SendenseError] = []
    pipeline = Pipeline(connection, None, chunks(plan, REQUEST_BYTES), Forget(), DiskProgress("disk0"), PipelineOptions(depth=DEPTH))
    loop = DiskLoop([pipeline], REQUEST_BYTES, Stop(), lambda _ended: None, lambda _ended, error: failures.append(error))
    began = time.monotonic()
    loop.run()
    seconds = time.monotonic() - began
    connection.close()
    if failures:
        raise failures[0]
    return seconds


if __name__ == "__main__":
    print(receive(sys.argv[1]))
