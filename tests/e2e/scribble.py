# Copyright: (c) 2026, Sendense contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Random writes to the disks of a guest whose processor stands still, repeatable by their seed."""

from __future__ import annotations

import random
from typing import Dict, Iterator, List, Tuple

from tests.lab.guest import Guest

SECTOR, BLOCK, MIB = 512, 64 << 10, 1 << 20
OVERWRITES, ZEROS, TRIMS, MIXED, ONE_DISK, NOTHING = "overwrites", "zeros", "trims", "mixed", "one disk", "nothing"
KINDS = (OVERWRITES, ZEROS, TRIMS, MIXED, ONE_DISK, NOTHING)


class Scribbler:
    """Writes of one guest. Remembers where data is, so that zeros and trims meet data and not only holes."""

    def __init__(self, guest: Guest, seed: int) -> None:
        self.guest = guest
        self._random = random.Random(f"{seed} {guest.name}")
        self._written: Dict[str, List[Tuple[int, int]]] = {target: [] for target in guest.disks}
        self._kinds = self._deal()

    def _deal(self) -> Iterator[str]:
        """Every kind as often as any other, in random order."""
        while True:
            yield from self._random.sample(KINDS, len(KINDS))

    def fill(self) -> None:
        """The first content: data on every disk, in its last, short block too."""
        for target, disk in self.guest.disks.items():
            for _ in range(6):
                self._write(target)
            tail = min(disk.size_bytes, BLOCK + disk.size_bytes % BLOCK)
            self._write_at(target, disk.size_bytes - tail, tail)
        self.guest.flush()

    def scribble(self) -> str:
        """One round of a random kind; returns the kind."""
        kind = next(self._kinds)
        targets = [] if kind == NOTHING else list(self.guest.disks)
        if kind == ONE_DISK:
            targets = [self._random.choice(targets)]
        for target in targets:
            for _ in range(self._random.randint(2, 6)):
                self._act(kind, target)
        self.guest.flush()
        return kind

    def _act(self, kind: str, target: str) -> None:
        mixed = {OVERWRITES: self._overwrite, ZEROS: self._zero, TRIMS: self._trim}
        mixed.get(kind, self._random.choice([*mixed.values(), self._write]))(target)

    def _write(self, target: str) -> None:
        self._write_at(target, *self._anywhere(target))

    def _overwrite(self, target: str) -> None:
        self._write_at(target, *self._over_data(target))

    def _zero(self, target: str) -> None:
        self.guest.zero(target, *self._over_data(target))

    def _trim(self, target: str) -> None:
        self.guest.discard(target, *self._over_data(target))

    def _write_at(self, target: str, offset: int, length: int) -> None:
        self.guest.write(target, self._random.randint(1, 255), offset, length)
        self._written[target].append((offset, length))

    def _anywhere(self, target: str) -> Tuple[int, int]:
        """Lengths from a sector to a MiB, half of them on whole blocks."""
        size = self.guest.disks[target].size_bytes
        unit = self._random.choice((SECTOR, BLOCK))
        length = self._random.randint(1, self._random.choice((BLOCK, MIB)) // unit) * unit
        return self._random.randrange(0, size - length, unit), length

    def _over_data(self, target: str) -> Tuple[int, int]:
        """All of a range that was written, or any part of it."""
        offset, length = self._random.choice(self._written[target])
        if self._random.random() < 0.5:
            return offset, length
        sectors = length // SECTOR
        first = self._random.randrange(sectors)
        return offset + first * SECTOR, self._random.randint(1, sectors - first) * SECTOR
