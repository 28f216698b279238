# Copyright: (c) 2026, Sendense contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Whether the kernel has room for one more queue of native AIO, which every server of qemu with ``aio=native`` reserves.

By default a machine has 65536 places for all programs together (``fs.aio-max-nr``) and a server takes 1024: the 64th server would
be the last, and no database on the same machine could start any more.
"""

from __future__ import annotations

#: Places that one server of qemu reserves.
SERVER_PLACES = 1024
#: The share of all places that is left to other programs.
RESERVED_SHARE = 0.25
#: What qemu says of a queue that the kernel refuses.
REFUSED = "failed to create linux AIO context"

_FOLDER = "/proc/sys/fs"


def has_room(folder: str = _FOLDER) -> bool:
    """Whether one more server may use native AIO. False also where that cannot be told."""
    try:
        used, limit = (_number(f"{folder}/{name}") for name in ("aio-nr", "aio-max-nr"))
    except (OSError, ValueError):
        return False
    return used + SERVER_PLACES <= limit * (1 - RESERVED_SHARE)


def _number(path: str) -> int:
    with open(path, encoding="ascii") as stream:
        return int(stream.read())
