# Copyright: (c) 2026, Sendense contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""``backing``: images of a chain that are swapped, replaced, moved, linked, or stand on each other in a circle."""

from __future__ import annotations

import os
import random
import shutil
import subprocess
from itertools import product
from pathlib import Path
from typing import Callable, ClassVar, Dict, List, Tuple

from ansible_collections.sendense.platform.plugins.module_utils.catalog.decision import choose_previous
from ansible_collections.sendense.platform.plugins.module_utils.errors import SendenseError
from ansible_collections.sendense.platform.plugins.module_utils.repositories.local import LocalRepository

from ._base import Outcome
from .apart import ApartFamily
from .damaging import detach, linked_copy
from .workbench import Workbench

#: The chain's images of one disk, base first: what is done to them gives back the index of the deepest bad point.
Trick = Callable[[List[Path], random.Random], int]


def swapped(images: List[Path], source: random.Random) -> int:
    """Two increments change places."""
    middle, top = images[1:3]
    spare = middle.with_name("spare")
    middle.rename(spare)
    top.rename(middle)
    spare.rename(top)
    return 1


def replaced(images: List[Path], source: random.Random) -> int:
    """Another image of the same two sizes instead of the base: no header and no size tells."""
    base = images[0]
    detach(base)
    size = base.stat().st_size
    offset = source.randrange(8) * 65536
    order = f"write -P {source.randrange(1, 256)} {offset} 65536"
    subprocess.run(["qemu-io", "-f", "qcow2", "-c", order, str(base)], check=True, capture_output=True)
    os.truncate(base, max(size, base.stat().st_size))
    return 0


def linked(images: List[Path], source: random.Random) -> int:
    """A link to the very same content, elsewhere."""
    at = source.randrange(3)
    elsewhere = images[at].with_name("elsewhere")
    images[at].rename(elsewhere)
    images[at].symlink_to(elsewhere)
    return at


def circled(images: List[Path], source: random.Random) -> int:
    """The middle's header names the top as its parent, which names the middle."""
    middle, top = images[1:3]
    detach(middle)
    _rebase(middle, f"../{top.parent.name}/{top.name}")
    return 1


def moved(images: List[Path], source: random.Random) -> int:
    """The base lies somewhere else."""
    images[0].rename(images[0].parent.parent / "moved.qcow2")
    return 0


def point_moved(images: List[Path], source: random.Random) -> int:
    """The base's whole directory lies somewhere else; the points above it remain."""
    images[0].parent.rename(images[0].parent.parent.parent / "moved")
    return 0


TRICKS: Dict[str, Trick] = {
    "swapped": swapped, "replaced": replaced, "linked": linked, "circled": circled, "moved": moved, "point moved": point_moved,
}  # fmt: skip
#: What only the data tells: a restore finds it at its end, and nothing finds it sooner but a verification.
BY_DATA = ("swapped", "replaced")


class Backing(ApartFamily):
    """On copies of one chain: a restore gives nothing away, verification names what is bad, and the next backup is full."""

    NAME: ClassVar[str] = "backing"
    FULL: ClassVar[int] = 24
    SHORT: ClassVar[int] = 6

    def inside(self, base: Path, seed: int, count: int) -> Outcome:
        outcome, bench = Outcome(), Workbench(seed)
        try:
            chain = bench.initialise().chain(3)
            for number, (name, disk) in enumerate(_kinds(bench.random, count)):
                copy = bench.directory / f"copy{number}"
                linked_copy(Path(bench.site.repository), copy)
                outcome.attempted += 1
                outcome.hit += 1
                for problem in _problems(bench, copy, chain, name, disk):
                    outcome.missed(f"{name}, {disk}: {problem}")
                outcome.judge(bench.settle() + bench.oracle.jobs())
                shutil.rmtree(copy)
        finally:
            outcome.judge(bench.close())
        return outcome


def _kinds(source: random.Random, count: int) -> List[Tuple[str, str]]:
    found = [kind for _round in range(count) for kind in source.sample(list(product(TRICKS, ("disk0", "disk1"))), 2 * len(TRICKS))]
    return found[:count]


def _problems(bench: Workbench, copy: Path, chain: List[str], name: str, disk: str) -> List[str]:
    points = copy / "machines" / bench.key / "points"
    bad = chain[TRICKS[name]([points / point_id / f"{disk}.qcow2" for point_id in chain], bench.random) :]
    there = [point_id for point_id in bad if (points / point_id).is_dir()]
    problems = []
    refusal, right = bench.restore(str(copy), chain[-1])
    if not refusal and not (right and name in BY_DATA):  # what changed below may be covered by what stands on it
        problems.append(f"the top could be restored, its content is {'right' if right else 'wrong'}")
    elif refusal and name not in BY_DATA and bad[0] not in refusal:
        problems.append(f"the refusal does not name {bad[0]}: {refusal}")
    result = bench.verify(None, str(copy))
    found = [point["point_id"] for point in result["points"] if not point["ok"]]
    if found != there:
        problems.append(f"verification said {found} instead of {there}")
    listed = LocalRepository(str(copy)).list()
    if [point.manifest.point_id for point in listed if point.status != "ok"] != there:
        problems.append(f"not listed as damaged: {there}")
    if choose_previous(listed).reason != "previous_damaged":
        problems.append("the next backup would not be a full one")
    try:
        LocalRepository(str(copy)).open_for_read(bench.key, chain[-1])
        problems.append("the top can be opened after verification")
    except SendenseError as error:
        problems += [] if bad[0] in str(error.msg) else [f"the refusal after verification does not name {bad[0]}: {error.msg}"]
    return problems


def _rebase(image: Path, backing: str) -> None:
    """Only the name in the header; nothing is opened."""
    subprocess.run(["qemu-img", "rebase", "-u", "-f", "qcow2", "-F", "qcow2", "-b", backing, str(image)], check=True, capture_output=True)
