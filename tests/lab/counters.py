# Copyright: (c) 2026, Sendense contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The counter that proves that disks are of one instant, and the record that tells a guest what to do at boot.

The guest increases one counter and writes it to its disks in turn, each with fsync. At any instant
``c1 >= c2 >= ... >= cn >= c1 - 1`` holds; disks taken at different instants break it.
"""

from __future__ import annotations

import re
from typing import List, Optional, Sequence

from .disks import ImageFile, info, read

_RECORD_BYTES = 512
#: On the first disk: start of the partition ``lab-counter``, in bytes. On every other disk: its last 512 bytes.
COUNTER_OFFSET = 86016 * 512
#: On the first disk: the control record, one page behind, so that the guest's page cache never writes it back.
CONTROL_OFFSET = COUNTER_OFFSET + 4096
_COUNTER = re.compile(rb"SENDENSE-COUNTER ([0-9]{1,18}) *\n")


def counter_offset(position: int, size_bytes: int) -> int:
    """Where the disk at this position in the machine (0 = first) has its counter record, in bytes."""
    return COUNTER_OFFSET if position == 0 else size_bytes - _RECORD_BYTES


def read_counters(images: Sequence[ImageFile]) -> List[Optional[int]]:
    """The counters on a machine's disks, in machine order; None where there is no record. LabError if unreadable."""
    counters: List[Optional[int]] = []
    for position, image in enumerate(images):
        offset = counter_offset(position, int(info(image)["virtual-size"]))
        match = _COUNTER.match(read(image, offset, _RECORD_BYTES))
        counters.append(int(match.group(1)) if match else None)
    return counters


def one_instant(counters: Sequence[Optional[int]]) -> bool:
    """Whether these counters can be of one instant: all there, never rising, the last at most one behind."""
    numbers = [counter for counter in counters if counter is not None]
    if len(numbers) != len(counters) or not numbers:
        return False
    return numbers == sorted(numbers, reverse=True) and numbers[-1] >= numbers[0] - 1


def control_record(writer: bool = True, churn: bool = True, interval_ms: int = 50) -> bytes:
    """The sector that the guest reads at boot: whether it writes counters and files, and the pause between rounds."""
    switches = {True: "on", False: "off"}
    text = f"LAB-CONTROL writer={switches[writer]} churn={switches[churn]} interval_ms={interval_ms}\n"
    return text.encode().ljust(_RECORD_BYTES, b"\0")
