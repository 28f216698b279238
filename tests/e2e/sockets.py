# Copyright: (c) 2026, Sendense contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Who listens in a machine of the lab and who is connected with its exports, as the kernel tells."""

from __future__ import annotations

import re
import subprocess
from typing import List, Set, Tuple

from ansible_collections.sendense.platform.plugins.module_utils.hubstate.ports import FIRST_PORT, LAST_PORT
from tests.lab.places import Place

#: Both ends of a connection on the loopback are in the list: the export servers have the one, whoever uses them the other.
SERVERS = {"qemu-nbd"}


def table(place: Place) -> List[List[str]]:
    """State, queues, local and peer address, and the owner of every TCP socket."""
    argv = ["nsenter", "--target", str(place.pid), "--net", "ss", "-Htanp"]
    done = subprocess.run(argv, capture_output=True, text=True, check=True)
    return [line.split() for line in done.stdout.splitlines()]


def listeners(place: Place) -> Set[str]:
    """Addresses and ports on which anybody listens."""
    return {row[3] for row in table(place) if row[0] == "LISTEN"}


def strangers(place: Place) -> Tuple[Set[str], Set[str]]:
    """Names of the programs that are connected with an export server of this machine, and connections with one from elsewhere."""
    programs: Set[str] = set()
    foreign: Set[str] = set()
    for row in table(place):
        if row[0] != "ESTAB":
            continue
        if _is_export(row[4]):
            programs |= set(re.findall(r'\("([^"]+)"', row[5] if len(row) > 5 else ""))
        if _is_export(row[3]) and not row[4].startswith("127."):
            foreign.add(" ".join(row))
    return programs - SERVERS, foreign


def _is_export(address: str) -> bool:
    return FIRST_PORT <= int(address.rpartition(":")[2]) <= LAST_PORT
