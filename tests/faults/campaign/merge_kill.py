# Copyright: (c) 2026, Sendense contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""``merge-kill``: kill a merge at each of its steps and at random moments of its qemu-img, again while it is gone on with.

Repository and merger are called as the job calls them, in a process of their own, so that one kill costs about a second.
"""

from __future__ import annotations

import copy
import os
import random
import shutil
import signal
import sys
import tempfile
import time
import traceback
from dataclasses import dataclass
from itertools import cycle
from pathlib import Path
from typing import ClassVar, Dict, Iterator, List

from ansible_collections.sendense.platform.plugins.module_utils.datapath.merger import MergeJob, MergeOptions, merge
from ansible_collections.sendense.platform.plugins.module_utils.errors import SendenseError
from ansible_collections.sendense.platform.plugins.module_utils.repositories import local_files
from ansible_collections.sendense.platform.plugins.module_utils.repositories.local import LocalRepository
from ansible_collections.sendense.platform.plugins.module_utils.steps import HOOK_VARIABLE
from tests.contract.merge_steps import prove_and_finish
from tests.contract.point_writer import Guest, read_disks, read_node

from ._base import Family, Outcome

SIZES = {"serial-a": 3 << 20, "serial-b": (1 << 20) + 512}
LENGTH = 5
#: The points 1 and 2 of the chain go into point 3.
BASE, CONSUMED, SURVIVOR, TOP = 0, slice(1, 3), 3, 4
STEPS = (
    "merge:journal-written", "merge:data-committed", "merge:hashes-composed", "merge:manifest-written", "merge:prepared",
    "merge:exchanged", "merge:moved-aside", "delete:renamed", "delete:removed", "merge:consumed-removed", "merge:journal-removed",
)  # fmt: skip
#: Of the kills, so many are at random moments of the data's way down, where a merge spends its life.
RANDOM_SHARE = 0.6
#: Bytes per second in merges that are killed at random, so that the way down lasts long enough to be hit.
RATE = 12 << 20
#: One in so many merges is killed again while it is gone on with.
AGAIN_EVERY = 3
#: After one in so many the next backup is made, too.
NEXT_BACKUP_EVERY = 5
JOB = "a" * 32


@dataclass
class Kill:
    """At a step, or so many seconds after the data began to move if the step is empty."""

    step: str
    after_s: float


class MergeKill(Family):
    """A chain is made once; every merge is killed in a copy of it."""

    NAME: ClassVar[str] = "merge-kill"
    FULL: ClassVar[int] = 50
    SHORT: ClassVar[int] = 12

    def run(self, base: Path, seed: int, count: int) -> Outcome:
        outcome, source = Outcome(), random.Random(seed)
        with tempfile.TemporaryDirectory(prefix="mk-") as work:
            template = Estate(Path(work) / "template").made(source)
            steps, number = cycle(STEPS), 0
            while outcome.hit < count and number < 3 * count:
                number += 1
                estate = template.copied(Path(work) / "copy")
                kills = [_drawn(source, steps) for _again in range(2 if number % AGAIN_EVERY == 0 else 1)]
                for kill in kills:
                    outcome.attempted += 1
                    status = estate.struck(kill)
                    outcome.hit += os.WIFSIGNALED(status)
                    if os.WIFEXITED(status) and os.WEXITSTATUS(status):
                        outcome.problems.append(
                            f"the merge failed by itself instead of being killed ({kill}); its words are on standard error"
                        )
                    outcome.judge([f"{text} ({kill})" for text in estate.findings()])
                outcome.judge([f"{text} ({kills})" for text in estate.end(number % NEXT_BACKUP_EVERY == 0)])
                shutil.rmtree(estate.root.parent)
        return outcome


def _drawn(source: random.Random, steps: Iterator[str]) -> Kill:
    """Every step comes before any comes again; between them the random moments."""
    after_s = source.uniform(0.0, 0.45)
    if source.random() < RANDOM_SHARE:
        return Kill("", after_s)
    return Kill(next(steps), 0.0)


class Estate:
    """One repository with one chain, what every point of it holds, and the merge in it."""

    def __init__(self, directory: Path) -> None:
        self.root = directory / "repository"
        self.hook = directory / "hook"
        self.guest = Guest(sizes=SIZES)
        self.ids: List[str] = []

    @property
    def repository(self) -> LocalRepository:
        """A fresh view."""
        return LocalRepository(str(self.root), reserve_bytes=0)

    @property
    def points(self) -> Path:
        """Where the points lie."""
        return self.root / "machines" / self.guest.key / "points"

    @property
    def survivors(self) -> List[str]:
        """The points that are promised, whatever happens."""
        return [self.ids[BASE], self.ids[SURVIVOR], self.ids[TOP]]

    def made(self, source: random.Random) -> "Estate":
        """Make the chain."""
        self.root.mkdir(parents=True)
        self.repository.initialise()
        for _number in range(LENGTH):
            for disk in self.guest.disks:
                for _write in range(len(disk.blocks) * 2 // 3):
                    disk.write(source.randrange(len(disk.blocks)), source.choice([0, *range(1, 9)]))
            point = self.guest.backup(self.repository, self.ids[-1] if self.ids else "")
            self.ids.append(point.manifest.point_id)
        return self

    def copied(self, directory: Path) -> "Estate":
        """The same at another place."""
        other = Estate(directory)
        shutil.copytree(self.root, other.root)
        other.guest, other.ids = copy.deepcopy(self.guest), list(self.ids)
        return other

    def struck(self, kill: Kill) -> int:
        """Merge, or go on merging, until the kill; the wait status of the process. A merge that is over before it is no hit."""
        self.hook.write_text("")
        self.hook.with_name("hook.kill").write_text(f"{kill.step}\n" if kill.step else "")
        pid = os.fork()
        if pid == 0:
            os._exit(self._child(kill))
        if not kill.step:
            deadline = time.monotonic() + 30
            while "merge:journal-written" not in self.hook.read_text() and time.monotonic() < deadline:
                if os.waitid(os.P_PID, pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is not None:
                    break
                time.sleep(0.002)
            time.sleep(kill.after_s)
            os.kill(pid, signal.SIGKILL)
        _pid, status = os.waitpid(pid, 0)
        return status

    def _child(self, kill: Kill) -> int:
        """The merge, in a process of its own; never returns into the test."""
        os.environ[HOOK_VARIABLE] = str(self.hook)
        if kill.step == "merge:moved-aside":
            local_files._renameat2 = None
        try:
            self.go_on(RATE if not kill.step else 0)
        except Exception:  # noqa: BLE001 the end of the process
            traceback.print_exc(file=sys.stderr)
            return 1
        return 0

    def go_on(self, rate: int = 0) -> None:
        """What every prune does: recover, then merge, or go on with it."""
        repository, key = self.repository, self.guest.key
        repository.recover(key)
        if self.ids[1] not in {point.manifest.point_id for point in repository.list()}:
            return
        opened = repository.begin_merge(key, self.ids[SURVIVOR], self.ids[CONSUMED], JOB)
        moved = merge([MergeJob(**order) for order in opened.orders], MergeOptions(bandwidth_bytes_per_s=rate))
        assert moved.state == "done", moved.error
        prove_and_finish(repository, opened)

    def findings(self) -> List[str]:
        """What is not as promised: what is ok must be right, what is promised must be ok, and nothing may still run."""
        found = [f"O3 qemu-img {pid} still works" for pid in self._workers()]
        try:
            listed = {point.manifest.point_id: point for point in self.repository.list()}
            for point_id in self.survivors:
                if point_id not in listed or listed[point_id].status != "ok":
                    found.append(f"O4 {point_id} is {listed[point_id].status if point_id in listed else 'gone'}")
            begun = (self.points.parent / "merge.json").exists()
            for point_id, point in listed.items():
                if point.status == "ok":
                    found += self._judge(point_id)
                if begun and point.status == "ok" and point_id in self.ids[CONSUMED]:
                    found.append(f"O1 {point_id} is offered while it is being merged")
        except SendenseError as error:
            found.append(f"O1 {error.msg}")
        return found

    def _judge(self, point_id: str) -> List[str]:
        """One point, by the product's checks, through its chain, and by hand with nothing but qemu-img."""
        wanted, repository = self.guest.contents[point_id], self.repository
        found = [f"O1 {point_id}: {finding.message}" for finding in repository.structure_check(self.guest.key, point_id)]
        found += [f"O1 {point_id}: {finding.message}" for finding in repository.digest_check(self.guest.key, point_id)]
        if found:
            return found
        if read_disks(repository, repository.get(self.guest.key, point_id)) != wanted:
            found.append(f"O1 {point_id} does not hold what it held")
        by_hand: Dict[str, bytes] = {}
        for at, disk in enumerate(self.guest.disks):
            path = str(self.points / point_id / f"disk{at}.qcow2")
            by_hand[disk.id] = read_node({"driver": "qcow2", "file": {"driver": "file", "filename": path}})
        return found + ([f"O1 {point_id} restored by hand is not what it was"] if by_hand != wanted else [])

    def _workers(self) -> List[int]:
        """Processes of qemu-img that work in this repository. They die with their parent, but not in the same instant."""
        deadline = time.monotonic() + 5
        while (found := _qemu_imgs(str(self.root))) and time.monotonic() < deadline:
            time.sleep(0.01)
        return found

    def end(self, next_backup: bool) -> List[str]:
        """Go on with the merge to its end: it succeeds, and nothing of it is left. O5, if asked: the next backup."""
        try:
            self.go_on()
            self.repository.sweep(self.guest.key)
            found = [] if sorted(os.listdir(self.points)) == self.survivors else [f"O3 left: {sorted(os.listdir(self.points))}"]
            if (self.points.parent / "merge.json").exists():
                found.append("O3 the journal is left")
            if next_backup:
                self.guest.scribble(99)
                point = self.guest.backup(self.repository, self.ids[TOP])
                found += self._judge(point.manifest.point_id)
        except (SendenseError, AssertionError) as error:
            return [f"O5 the merge could not be gone on with: {error}"]
        return found + self.findings()


def _qemu_imgs(root: str) -> List[int]:
    found = []
    for entry in filter(str.isdigit, os.listdir("/proc")):
        try:
            line = Path("/proc", entry, "cmdline").read_bytes()
            where = os.readlink(f"/proc/{entry}/cwd") if line.startswith(b"qemu-img\0") else ""
        except (FileNotFoundError, ProcessLookupError):
            continue
        if where and (where.startswith(root) or root.encode() in line):
            found.append(int(entry))
    return found
