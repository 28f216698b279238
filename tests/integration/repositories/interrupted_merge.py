# Copyright: (c) 2026, Sendense contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A process that merges in a repository and is killed at a named step, or anywhere: ``python -m ... ROOT HOOK [plain]``.

The repository holds the chain that :func:`written_chain` makes. ``plain`` does without the kernel's exchange of two names.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Dict, List

from ansible_collections.sendense.platform.plugins.module_utils.repositories import local_files
from ansible_collections.sendense.platform.plugins.module_utils.repositories.local import LocalRepository
from ansible_collections.sendense.platform.plugins.module_utils.steps import HOOK_VARIABLE
from tests.contract.merge_steps import merged
from tests.contract.point_writer import Guest
from tests.contract.repository_place import chain_of

SIZES = {"serial-a": 4 * 65536, "serial-b": 65536 + 512}
LENGTH = 5


def new_guest() -> Guest:
    """The guest before its first backup."""
    guest = Guest(sizes=SIZES)
    guest.scribble(1)
    return guest


def written_chain(root: Path) -> "tuple[Guest, List[str]]":
    """A chain of points in a new repository; the guest and their ids. Points 1 and 2 are to go into point 3."""
    repository = LocalRepository(str(root), reserve_bytes=0)
    repository.initialise()
    guest = new_guest()
    return guest, [point.manifest.point_id for point in chain_of(repository, guest, LENGTH)]


def go_on(repository: LocalRepository, key: str, ids: List[str]) -> None:
    """What the next prune does: recover, end an open merge, or merge if there is nothing of one."""
    repository.recover(key)
    for opened in repository.open_merges(key):
        merged(repository, key, opened.survivor, opened.consumed)
    if ids[1] in [point.manifest.point_id for point in repository.list()]:
        merged(repository, key, ids[3], ids[1:3])


def listed_states(repository: LocalRepository) -> Dict[str, str]:
    """Every point's status, by id."""
    return {point.manifest.point_id: point.status for point in repository.list()}


def main(root: str, hook: str, how: str = "") -> None:
    """Merge with the hook on."""
    if how == "plain":
        local_files._renameat2 = None
    repository = LocalRepository(root, reserve_bytes=0)
    ids = sorted(point.manifest.point_id for point in repository.list())
    os.environ[HOOK_VARIABLE] = hook
    go_on(repository, new_guest().key, ids)


if __name__ == "__main__":
    main(*sys.argv[1:])
