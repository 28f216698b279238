# Copyright: (c) 2026, Sendense contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""How all movers of one node share one cap, without a process that they would depend on.

Each holds a lease in ``<state>/bandwidth/`` and says beside it, once a second, how much it could use. Each computes from what all say
what is fair. A mover that dies loses its lease with its process, so the others have its share a second later.
"""

from __future__ import annotations

import os
import time
from contextlib import suppress
from typing import List, Sequence

from ..hubstate.files import read_json, unlink_if_there, write_json
from ..hubstate.locks import FileLease, holder, sweep
from .bandwidth import UNLIMITED

#: Seconds without a word after which a mover, though alive, is taken to be stopped and to use nothing.
SILENCE_SECONDS = 10.0

_LEASE, _DEMAND = ".lease", ".json"


def fair_share(total: float, others: Sequence[float]) -> float:
    """What one may use who could use everything, beside others who could use so much each: nobody gets more who could not use it."""
    left, sharers = total, len(others) + 1
    for demand in sorted(others):
        if demand >= left / sharers:
            break
        left -= demand
        sharers -= 1
    return left / sharers


class NodeShare:
    """The part of one mover in the cap of its node."""

    def __init__(self, directory: str, lease: FileLease) -> None:
        self._directory = directory
        self._lease = lease
        self._own = os.path.basename(lease.path)

    @classmethod
    def open(cls, directory: str) -> "NodeShare":
        """Take part; what dead movers left is removed. OSError if the directory cannot be used."""
        os.makedirs(directory, mode=0o700, exist_ok=True)
        sweep(directory, _LEASE)
        leases = {name[: -len(_LEASE)] for name in os.listdir(directory) if name.endswith(_LEASE)}
        for name in os.listdir(directory):
            if name.endswith(_DEMAND) and name[: -len(_DEMAND)] not in leases:
                unlink_if_there(os.path.join(directory, name))
        path = os.path.join(directory, os.urandom(8).hex() + _LEASE)
        # Movers that begin together look at each other's new leases, and on a busy machine one that looks may have to wait meanwhile.
        return cls(directory, FileLease.acquire(path, {"what": "bandwidth"}, patience_s=SILENCE_SECONDS))

    def publish(self, demand: float) -> None:
        """Say how many bytes per second this mover could use. OSError."""
        write_json(self._demand_path(self._own), {"demand": None if demand == UNLIMITED else demand})

    def others(self) -> List[float]:
        """How many bytes per second each other living mover could use. OSError."""
        found = []
        for name in os.listdir(self._directory):
            path = os.path.join(self._directory, name)
            if name.endswith(_LEASE) and name != self._own and holder(path) is not None:
                found.append(self._demand(self._demand_path(name)))
        return found

    def _demand(self, path: str) -> float:
        try:
            silent = time.time() - os.stat(path).st_mtime > SILENCE_SECONDS
        except FileNotFoundError:
            return UNLIMITED  # it has just begun
        said = (read_json(path) or {}).get("demand")
        if silent:
            return 0.0
        return float(said) if isinstance(said, (int, float)) else UNLIMITED

    def _demand_path(self, lease_name: str) -> str:
        return os.path.join(self._directory, lease_name[: -len(_LEASE)] + _DEMAND)

    def close(self) -> None:
        """Give the share back."""
        with suppress(OSError):
            unlink_if_there(self._demand_path(self._own))
        with suppress(OSError):
            self._lease.release()
