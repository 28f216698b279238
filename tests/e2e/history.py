# Copyright: (c) 2026, Sendense contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Backups of several guests in one play each, with what every point must be compared with."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Dict, List

from tests.lab.guest import Guest

from .points import StoredPoint, references, stored_point
from .site import Site


@dataclass
class Order:
    """One guest of the next play. ``still``: it is suspended or off, so its disks are copied before the play."""

    guest: Guest
    repository: str
    what: str = ""
    still: bool = True


@dataclass
class Entry:
    """One backup of one guest; ``references`` are raw copies of its disks at the same instant, if it stood still."""

    name: str
    what: str
    point: StoredPoint
    report: Dict[str, Any]
    references: Dict[str, Path]

    def levels(self) -> Dict[str, str]:
        """Level of every disk by target."""
        return {disk["id"].rpartition("-")[2]: disk["level"] for disk in self.point.manifest["disks"]}

    def reasons(self) -> Dict[str, str]:
        """Why, by target."""
        return {disk["id"].rpartition("-")[2]: disk["reason"] for disk in self.point.manifest["disks"]}

    def moved(self, target: str) -> Dict[str, Any]:
        """What the mover said about one disk."""
        (found,) = [disk for disk in self.report["disks"] if disk["id"].endswith(f"-{target}")]
        return dict(found)

    def differing(self) -> List[str]:
        """Targets whose disk in the point is not the reference, as lines that say how it came about."""
        return [f"{self.name}: {target} after {self.what}" for target in self.point.differing(self.references)]


@dataclass
class History:
    """All backups of some guests, in order, by the guest's name."""

    site: Site
    directory: Path
    entries: Dict[str, List[Entry]] = field(default_factory=dict)
    plays: int = 0

    def back_up(self, orders: List[Order], **extra: Any) -> None:
        """Copy the disks of guests that stand still, then back up all of them in one play, each to its repository."""
        self.plays += 1
        copies = {
            order.guest.name: references(order.guest, self.directory / f"{order.guest.name}-{self.plays}") if order.still else {}
            for order in orders
        }
        places = {order.guest.name: order.repository for order in orders}
        repository = {"path": "{{ e2e_repositories[inventory_hostname] }}", "reserve_bytes": 1 << 20}
        run = self.site.backup(",".join(places), sendense_repository=repository, e2e_repositories=places, **extra)
        for order in orders:
            name = order.guest.name
            report = run.report(name)
            point = stored_point(order.repository, order.guest, report["point"]["id"])
            entry = Entry(f"{name} in play {self.plays}", order.what, point, report, copies[name])
            self.entries.setdefault(name, []).append(entry)

    def differing(self, name: str) -> List[str]:
        """Every disk of every point of a guest that stood still which is not its reference."""
        return [line for entry in self.entries[name] for line in entry.differing()]
