# Copyright: (c) 2026, Sendense contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""``repository-gone``: unmounted, read-only, or another repository in its place, before a backup or in the middle of it.

Nothing is ever written into the bare mountpoint or into the foreign repository, and afterwards everything goes on.
"""

from __future__ import annotations

import os
import subprocess
from contextlib import ExitStack, contextmanager
from itertools import product
from pathlib import Path
from typing import Callable, ClassVar, ContextManager, Dict, Iterator, List

from ansible_collections.sendense.platform.plugins.module_utils.repositories.local import LocalRepository

from ._base import Outcome
from .apart import ApartFamily
from .workbench import COPIED, OPENED, SERVED, Workbench

BEFORE = "before"
#: What the operator is told, by what was done.
CODES = {
    "unmounted": "REPOSITORY_MISSING",
    "replaced": "REPOSITORY_MISMATCH",
    "unmarked": "REPOSITORY_MISSING",
    "read-only": "REPOSITORY_IO",
}


class Mountpoint:
    """The repository's directory, bound to where the product looks for it, so that it can be taken away."""

    def __init__(self, bench: Workbench) -> None:
        self.store, self.foreign, self.where = bench.rig / "store", bench.rig / "foreign", bench.directory / "mounted"
        for path in (self.store, self.foreign, self.where):
            path.mkdir()
        LocalRepository(str(self.foreign)).initialise()
        bench.site.repository = str(self.where)

    @contextmanager
    def mounted(self) -> Iterator[None]:
        """The repository as it should be."""
        self.bind(self.store)
        try:
            yield
        finally:
            self.unbind()

    def bind(self, path: Path) -> None:
        """Mount a directory here."""
        subprocess.run(["mount", "--bind", str(path), str(self.where)], check=True)

    def unbind(self) -> None:
        """Unmount what is here, whoever still uses it."""
        subprocess.run(["umount", "--lazy", str(self.where)], check=True)

    @contextmanager
    def unmounted(self) -> Iterator[None]:
        """An empty directory instead."""
        self.unbind()
        try:
            yield
        finally:
            self.bind(self.store)

    @contextmanager
    def replaced(self) -> Iterator[None]:
        """Another repository instead."""
        self.bind(self.foreign)
        try:
            yield
        finally:
            self.unbind()

    @contextmanager
    def unmarked(self) -> Iterator[None]:
        """The repository without its marker."""
        marker = self.store / "sendense-repository.json"
        marker.rename(marker.with_suffix(".away"))
        try:
            yield
        finally:
            marker.with_suffix(".away").rename(marker)

    @contextmanager
    def read_only(self) -> Iterator[None]:
        """The repository, but nothing can be opened for writing any more."""
        subprocess.run(["mount", "--bind", "-o", "ro", str(self.where), str(self.where)], check=True)
        subprocess.run(["mount", "-o", "remount,bind,ro", str(self.where)], check=True)
        try:
            yield
        finally:
            self.unbind()

    def strangers(self) -> List[str]:
        """What somebody has written where nothing of ours may be."""
        self.unbind()
        found = [f"O3 {name} was made in the bare mountpoint" for name in os.listdir(self.where)]
        self.bind(self.store)
        return found + [f"O3 {name} was made in the foreign repository" for name in os.listdir(self.foreign) if name == "machines"]


class RepositoryGone(ApartFamily):
    """Every way at every moment before any comes again."""

    NAME: ClassVar[str] = "repository-gone"
    FULL: ClassVar[int] = 32
    SHORT: ClassVar[int] = 4

    def inside(self, base: Path, seed: int, count: int) -> Outcome:
        outcome, bench = Outcome(), Workbench(seed)
        try:
            point = Mountpoint(bench)
            with point.mounted():
                bench.initialise()
                bench.chain(1)
                ways = {"unmounted": point.unmounted, "replaced": point.replaced, "unmarked": point.unmarked, "read-only": point.read_only}
                for way, moment in _kinds(bench, list(ways), count):
                    _fault(bench, outcome, point, ways[way], f"{way} {moment}", moment)
        finally:
            outcome.judge(bench.close())
        return outcome


def _kinds(bench: Workbench, ways: List[str], count: int) -> List["tuple[str, str]"]:
    kinds = list(product(ways, (BEFORE, OPENED, SERVED, COPIED)))
    found: List["tuple[str, str]"] = []
    while len(found) < count:
        bench.random.shuffle(kinds)
        found += kinds
    return found[:count]


def _fault(bench: Workbench, outcome: Outcome, point: Mountpoint, way: Callable[[], ContextManager[None]], what: str, moment: str) -> None:
    outcome.attempted += 1
    before = bench.renew()
    # Before a backup only the id can tell the wrong repository; once it has begun, it knows which one it is in.
    named = moment == BEFORE or bench.random.random() < 0.5
    bench.repository_id = str(bench.repository.identity()["repository_id"]) if named else ""
    with ExitStack() as gone:
        hooks: Dict[str, Callable[[], None]] = {moment: lambda: gone.enter_context(way())}
        if moment == BEFORE:
            hooks.pop(moment)()
        attempt = bench.backup(hooks)
        found = bench.settle()
    outcome.hit += 1
    if attempt.ok:
        outcome.missed(f"a backup succeeded although its repository was {what}")
    elif attempt.code != CODES[what.split(" ")[0]]:
        found.append(f"O5 {attempt.code} instead of {CODES[what.split(' ')[0]]}: {attempt.error}")
    partial = [text for text in bench.remains(attempt, before) if "unfinished point" not in text]  # it could not be reached
    found += partial + point.strangers() + bench.goes_on(attempt) + bench.oracle.leaks()
    outcome.judge([f"{text} ({what}; {attempt.code})" for text in found])
