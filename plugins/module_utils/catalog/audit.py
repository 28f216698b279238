# Copyright: (c) 2026, Sendense contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The audit of change tracking, as far as it is arithmetic: how much, which blocks, after which events, and who is suspect.

A sample is a walk: the blocks of a disk stand in one fixed scattered order, and each run takes up where the last one stopped. So
in one run each block is audited with the probability k/n, as in a random sample, but after n/k runs none is left out.
"""

from __future__ import annotations

import hashlib
import math
from dataclasses import dataclass
from typing import Dict, Iterable, List, Mapping, Sequence

from ..datapath.extents import Run, block_count
from ..datapath.hashing import BLOCK_BYTES
from .manifest import Manifest

#: No sample of a disk has fewer blocks (4 MiB), whatever the share.
MINIMUM_BLOCKS = 64

HOST_RESTARTED = "host_restarted"
DISKS_CHANGED = "disks_changed"
REQUESTED = "requested"
#: With what the source says of how the machine began to run: ``machine_restored``, ``machine_crashed``.
MACHINE = "machine_"

#: What a manifest's ``versions`` keep of a snapshot's incarnation: under which name.
INCARNATION = {"host": "source_host", "run": "source_run", "began": "source_began"}

#: Member of a manifest's ``versions``: when a merge or a synthetic full made the point of several.
COMPOSED_AT = "composed_at"
#: Member of a manifest's ``versions``: which of the blocks that the backup did not copy were compared with the source.
AUDITED = "audited"
ALL, SAMPLE = "all", "sample"
#: Member of a manifest's ``versions``: with which turn of the walk the machine's next audit goes on.
NEXT_TURN = "audit_turn"


@dataclass(frozen=True)
class Policy:
    """How much is audited in each incremental run."""

    share: float = 1.0
    """Percent of the blocks of each disk; 0: none, 100: all, in every run."""
    max_bytes: int = 256 << 20
    """Most bytes that the sample of one machine may read; an audit in full reads what it must."""
    after_events: bool = True
    """Whether risky events are followed by an audit in full."""


@dataclass(frozen=True)
class Order:
    """What one run audits: blocks per disk key; ``reason`` says why it is in full."""

    in_full: bool
    reason: str
    counts: Dict[str, int]


def incarnation(versions: Mapping[str, str]) -> Dict[str, str]:
    """What a manifest's ``versions`` keep of its snapshot's incarnation."""
    return {name: versions[kept] for name, kept in INCARNATION.items() if kept in versions}


def kept_incarnation(now: Mapping[str, str]) -> Dict[str, str]:
    """The inverse: an incarnation as members of ``versions``."""
    return {kept: str(now[name]) for name, kept in INCARNATION.items() if name in now}


def events(parent: Manifest, now: Mapping[str, str], sizes: Mapping[str, int]) -> List[str]:
    """What has happened since the parent that change tracking may not have survived. ``sizes`` in bytes by disk id."""
    then = incarnation(parent.versions)
    found = []
    if then.get("host") and now.get("host") and then["host"] != now["host"]:
        found.append(HOST_RESTARTED)
    if now.get("began") and then.get("run") != now.get("run"):
        found.append(f"{MACHINE}{now['began']}")
    if {disk.id: disk.size_bytes for disk in parent.disks} != dict(sizes):
        found.append(DISKS_CHANGED)
    return found


def decide(policy: Policy, happened: Sequence[str], sizes: Mapping[str, int]) -> Order:
    """How many blocks of each disk are audited. ``sizes`` in bytes, by key, of the disks that will be incremental."""
    blocks = {key: block_count(size) for key, size in sizes.items()}
    if happened and policy.after_events:
        return Order(True, ", ".join(happened), blocks)
    if policy.share >= 100:
        return Order(True, REQUESTED, blocks)
    total = sum(blocks.values())
    if policy.share <= 0 or not total:
        return Order(False, "", {})
    part = min(policy.share / 100, policy.max_bytes / BLOCK_BYTES / total)
    return Order(False, "", {key: min(count, max(MINIMUM_BLOCKS, math.ceil(part * count))) for key, count in blocks.items()})


def next_turn(manifests: Iterable[Manifest], first: int) -> int:
    """The turn that a machine's walk has come to; ``first`` if none of its points says so.

    It counts audits. The generation would not do: prunes and failed runs raise it, too, and a walk in which they take every
    second turn never comes to half of the disk.
    """
    known = [text for manifest in manifests for text in [manifest.versions.get(NEXT_TURN, "")] if text.isdecimal()]
    return max((int(text) for text in known), default=first)


def walk(blocks: int, count: int, turn: int, seed: str) -> List[Run]:
    """The blocks that the sample of this turn has, ascending: ``count`` of ``blocks``, or all if that is less.

    Turns that follow each other with the same ``blocks``, ``count`` and ``seed`` leave no block out.
    """
    if count >= blocks:
        return [Run(0, blocks)] if blocks else []
    digest = hashlib.sha256(seed.encode("utf-8", "surrogateescape")).digest()
    offset = int.from_bytes(digest[:8], "big") % blocks
    stride = _coprime(int.from_bytes(digest[8:16], "big") % blocks, blocks)
    start = turn * count
    return _runs(sorted((offset + (start + step) % blocks * stride) % blocks for step in range(count)))


def _coprime(wanted: int, number: int) -> int:
    """The first number from ``wanted`` on that has no divisor in common with ``number``."""
    while math.gcd(wanted, number) != 1:
        wanted += 1
    return wanted


def _runs(numbers: Sequence[int]) -> List[Run]:
    found: List[Run] = []
    for number in numbers:
        if found and found[-1].first + found[-1].blocks == number:
            found[-1] = Run(found[-1].first, found[-1].blocks + 1)
        else:
            found.append(Run(number, 1))
    return found


def first_suspect(ids: Sequence[str], trusted: Sequence[int]) -> str:
    """The oldest point that has a differing block on the word of change tracking alone; empty if none has.

    ``ids`` are the points that the disk is made of, the full first; ``trusted`` says for each differing block the position of
    the newest of them that read it from the source itself, or was audited in full (-1: none).
    """
    position = min(trusted, default=0)
    return ids[position + 1] if position + 1 < len(ids) else ""
