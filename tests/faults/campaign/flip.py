# Copyright: (c) 2026, Sendense contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""``flip``: flips and truncations of every kind of file, in base, middle and top of a chain beside a sound one."""

from __future__ import annotations

import random
import shutil
from concurrent.futures import ThreadPoolExecutor
from itertools import product
from pathlib import Path
from typing import ClassVar, List, Tuple

from ansible_collections.sendense.platform.plugins.module_utils.catalog.decision import choose_previous
from ansible_collections.sendense.platform.plugins.module_utils.errors import PointDamagedError
from ansible_collections.sendense.platform.plugins.module_utils.repositories.local import LocalRepository

from ._base import Family, Outcome
from .damaging import damage, detach, linked_copy
from .workbench import Workbench

FILES = ("disk0.qcow2", "disk1.qcow2", "disk0.hashes", "disk1.hashes", "manifest.json", "machine.native", "nvram.fd")
HOW = ("flip", "flip", "flip", "cut 1", "cut 512", "cut 4096", "cut 65536", "empty", "append 512")
#: One in so many damages is looked for in the whole repository; the others in the damaged chain, which is all that could change.
ALL_POINTS_EVERY = 8
#: Damages looked for at the same time: a verification mostly waits for its children.
AT_ONCE = 2

Damage = Tuple[int, str, str, int]


class Flip(Family):
    """A sound full stands beside the damaged chain, and its points must stay as they are."""

    NAME: ClassVar[str] = "flip"
    FULL: ClassVar[int] = 200
    SHORT: ClassVar[int] = 12

    def run(self, base: Path, seed: int, count: int) -> Outcome:
        outcome, bench = Outcome(), Workbench(seed)
        try:
            bench.initialise()
            sound = bench.chain(1)
            full = bench.backup(full=True)
            bench.scribble()
            chain = [full.point_id, *bench.chain(2)]
            assert bench.verify()["ok"] is True
            before = bench.oracle.committed_files()
            work = [(bench, number, sound, chain, one) for number, one in enumerate(_damages(bench.random, count))]
            with ThreadPoolExecutor(AT_ONCE) as pool:
                for problem in pool.map(_try, work):
                    outcome.attempted += 1
                    outcome.hit += 1
                    if problem:
                        outcome.missed(problem)
            outcome.judge(bench.oracle.check(before))
        finally:
            outcome.judge(bench.close())
        return outcome


def _damages(source: random.Random, count: int) -> List[Damage]:
    """Every kind of file, place and damage before any comes again, in random order, each with a seed of its own."""
    kinds = list(product(range(3), FILES, HOW))
    found: List[Damage] = []
    while len(found) < count:
        source.shuffle(kinds)
        found += [(position, name, how, source.randrange(1 << 32)) for position, name, how in kinds]
    return found[:count]


def _try(work: Tuple[Workbench, int, List[str], List[str], Damage]) -> str:
    """Damage one file of a copy, verify, and compare with what had to come out; what is wrong."""
    bench, number, sound, chain, (position, name, how, seed) = work
    copy = bench.directory / f"copy{number}"
    linked_copy(Path(bench.site.repository), copy)
    try:
        path = copy / "machines" / bench.key / "points" / chain[position] / name
        detach(path)
        damage(path, how, random.Random(seed))
        result = bench.verify(None if number % ALL_POINTS_EVERY == 0 else chain[-1:], str(copy))
        bad = [point["point_id"] for point in result["points"] if not point["ok"]]
        wrong = [] if (result["ok"], bad) == (False, chain[position:]) else [f"verification said {bad}"]
        wrong += _state(LocalRepository(str(copy)), bench.key, sound, chain, position)
    finally:
        shutil.rmtree(copy)
    return f"{how} of {name} in point {position} of the chain (seed {seed}): {'; '.join(wrong)}" if wrong else ""


def _state(repository: LocalRepository, key: str, sound: List[str], chain: List[str], position: int) -> List[str]:
    """What is damaged cannot be opened, what is below and beside still can, and the next backup is a full one."""
    listed = repository.list()
    wrong = []
    good = [point.manifest.point_id for point in listed if point.status == "ok"]
    if good != [*sound, *chain[:position]]:
        wrong.append(f"listed as ok: {good}")
    if choose_previous(listed).reason != "previous_damaged":
        wrong.append("the next backup would not be a full one")
    for point_id in [*sound, *chain]:
        opened = True
        try:
            repository.open_for_read(key, point_id)
        except PointDamagedError:
            opened = False
        if opened != (point_id in [*sound, *chain[:position]]):
            wrong.append(f"{point_id} {'could' if opened else 'could not'} be opened")
    return wrong
