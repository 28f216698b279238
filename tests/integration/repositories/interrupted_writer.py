# Copyright: (c) 2026, Sendense contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A process that changes a repository and is killed at a named step: ``python -m ... ROOT OPERATION``.

It makes one full backup in peace, then sets the step hook and does the operation. See ``module_utils/steps.py``.
"""

from __future__ import annotations

import os
import sys

from ansible_collections.sendense.platform.plugins.module_utils.repositories.local import LocalRepository
from ansible_collections.sendense.platform.plugins.module_utils.steps import HOOK_VARIABLE
from tests.contract.point_writer import Guest

SIZES = {"serial-a": 2 * 65536, "serial-b": 65536 + 512}


def prepared_guest() -> Guest:
    """The guest as it is before its first backup, the same in every process."""
    guest = Guest(sizes=SIZES)
    guest.scribble(1)
    return guest


def main(root: str, operation: str, hook: str) -> None:
    """Do the operation with the hook on."""
    repository = LocalRepository(root, reserve_bytes=0)
    repository.initialise()
    guest = prepared_guest()
    full = guest.backup(repository).manifest.point_id
    guest.scribble(2)
    os.environ[HOOK_VARIABLE] = hook
    if operation == "backup":
        guest.backup(repository, full)
    elif operation == "delete":
        repository.delete(guest.key, full)
    elif operation == "damage":
        repository.mark_damaged(guest.key, full, "planted")


if __name__ == "__main__":
    main(*sys.argv[1:4])
