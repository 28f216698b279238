# Copyright: (c) 2026, Sendense contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Reused buffers: one anonymous memory arena per thread, cut into slots that libnbd reads into and writes from."""

from __future__ import annotations

import mmap
from typing import Any, Dict, List, Optional, Tuple

from .nbd_handle import new_buffer


class Slot:
    """One buffer of ``size`` bytes; parts of it are shared views, never copies."""

    def __init__(self, view: memoryview) -> None:
        self._view = view
        # libnbd's binding never forgets what it was given (seen in 1.14), so each part is made once and used again.
        self._parts: Dict[Tuple[int, int], Any] = {}

    def buffer(self, length: int, start: int = 0) -> Any:
        """A libnbd buffer over a part of the slot; the same one for the same part."""
        part = (start, length)
        if part not in self._parts:
            self._parts[part] = new_buffer(self._view[start : start + length])
        return self._parts[part]


class SlotPool:
    """The slots of one thread. Not shared between threads."""

    def __init__(self, count: int, size: int) -> None:
        self.size = size
        arena = memoryview(mmap.mmap(-1, (count + 1) * size, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS))
        self._free: List[Slot] = [Slot(arena[index * size : (index + 1) * size]) for index in range(count)]
        #: Zeros, for servers that cannot write zeros themselves. Never written to.
        self.zeros = Slot(arena[count * size :])

    def take(self) -> Optional[Slot]:
        """A free slot, or None."""
        return self._free.pop() if self._free else None

    def give(self, slot: Slot) -> None:
        """Return a slot that nothing uses any more."""
        self._free.append(slot)

    def free(self) -> int:
        """How many are free."""
        return len(self._free)
