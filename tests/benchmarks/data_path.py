# Copyright: (c) 2026, Sendense contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The speed of the data path beside nbdcopy, virtnbdbackup and the receive-only limit, in RAM and on disk.

    python -m tests.benchmarks.data_path [ROUNDS [MIB [PLACE]]]

Alternated rounds, each contender once per round, every time with a fresh QEMU and a warm destination (see ``stage``). Times of the
product run from backup-begin until the flush was answered, hashes included; peers are their whole command. Each key is the
worse of the two places.
"""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import time
from pathlib import Path
from typing import Any, Callable, Dict, List, Optional

from ansible_collections.sendense.platform.plugins.module_utils.datapath.images import create_qcow2
from tests.e2e.site import ROOT
from tests.lab.disks import DiskSpec, LabDisk

from . import peers
from .content import GIB, MIB, data_bytes, fill, layout, scattered
from .ours import Images, Product
from .rows import BenchmarkError, Row, Rows
from .stage import Stage, forget, host_below, identical, machine_on, process_cpu, scribble, stage

ROUNDS = 7
SIZE = 4 * GIB
PLACES = {"ram": Path("/dev/shm"), "disk": Path("/var/tmp")}
#: Names of the contenders in the report.
FULL, COMMITTED, NBDCOPY, RECEIVE = "full", "committed", "nbdcopy", "receive_only"
PEER_FULL, INCREMENTAL, PEER_INCREMENTAL = "virtnbdbackup_full", "incremental", "virtnbdbackup_incremental"


def say(text: str) -> None:
    """Progress, for whoever waits."""
    sys.stderr.write(f"bench: {text}\n")
    sys.stderr.flush()


class Measurement:
    """All rounds at one place."""

    def __init__(self, place: Stage, rows: Rows, rounds: int) -> None:
        self.place = place
        self.rows = rows
        self.rounds = rounds
        self.product = Product(place.directory, place.host.uri)
        self.disk: LabDisk = place.machine.disks["vda"]
        length = data_bytes(place.pieces) + 64 * MIB
        self.target = place.destination("target.qcow2", length)
        self.peer = place.directory / "peer"

    # --- fulls -------------------------------------------------------------------------------------------------------

    def fulls(self) -> None:
        """Every contender once unmeasured, with a comparison, then the rounds."""
        contenders: List[Callable[[int], None]] = [self.full, self.nbdcopy, self.receive, self.peer_full]
        for number in range(-1, self.rounds):
            for contender in contenders if number % 2 else contenders[::-1]:
                contender(number)

    def full(self, number: int) -> None:
        """The product, and the same run until it is verified."""
        forget(self.place.machine)
        self.place.empty(self.target, self.disk.size_bytes)
        outcome = self.product.backup(self.place.machine, {"disk0": (self.target, None)}, verified=True)
        self._take(number, FULL, outcome.flushed_s, outcome.cpu, self.target)
        self._take(number, COMMITTED, outcome.verified_s, {}, self.target)

    def nbdcopy(self, number: int) -> None:
        """nbdcopy into the same destination."""
        forget(self.place.machine)
        self.place.empty(self.target, self.disk.size_bytes)
        wall, cpu = peers.nbdcopy(self.place, self.product, self.target)
        self._take(number, NBDCOPY, wall, cpu, self.target)

    def receive(self, number: int) -> None:
        """The limit."""
        forget(self.place.machine)
        with self.product.snapshot(self.place.machine) as snapshot:
            qemu = self.place.machine.qemu_pid
            before = process_cpu(qemu)
            argv = [sys.executable, "-m", "tests.benchmarks.receive", snapshot.disks[0].uri]
            done = subprocess.run(argv, cwd=ROOT, check=True, stdout=subprocess.PIPE, text=True)
            cpu = {"qemu": process_cpu(qemu) - before}
        self._take(number, RECEIVE, float(done.stdout), cpu, None)

    def peer_full(self, number: int) -> None:
        """virtnbdbackup of the clone."""
        forget(self.place.clone)
        shutil.rmtree(self.peer, ignore_errors=True)
        self.place.warm(int(data_bytes(self.place.pieces) * 1.5))
        wall, cpu = peers.virtnbdbackup(self.place, "full", self.peer)
        self._take(number, PEER_FULL, wall, cpu, None)
        if number < 0:
            self._prove_peer(PEER_FULL)

    # --- incrementals ------------------------------------------------------------------------------------------------

    def incrementals(self) -> None:
        """5 % of both machines' disks change before each run; the product's parent stays the same full."""
        place = self.place
        changed = scattered(place.pieces)
        overlay = place.destination("overlay.qcow2", sum(piece.length for piece in changed) + 16 * MIB)
        forget(place.machine)
        place.empty(self.target, self.disk.size_bytes)
        parent = self.product.backup(place.machine, {"disk0": (self.target, None)}, committed=True)
        forget(place.clone)
        shutil.rmtree(self.peer, ignore_errors=True)
        peers.virtnbdbackup(place, "full", self.peer)

        def ours(number: int) -> None:
            scribble(place.machine, changed, 10 + number)
            place.empty(overlay, self.disk.size_bytes, self.target.name)
            images: Images = {"disk0": (overlay, self.target)}
            outcome = self.product.backup(place.machine, images, previous=parent.change_ids)
            self._take(number, INCREMENTAL, outcome.flushed_s, outcome.cpu, overlay)

        def theirs(number: int) -> None:
            scribble(place.clone, changed, 10 + number)
            place.warm(sum(piece.length for piece in changed))
            wall, cpu = peers.virtnbdbackup(place, "inc", self.peer)
            self._take(number, PEER_INCREMENTAL, wall, cpu, None)

        for number in range(-1, self.rounds):
            for contender in (ours, theirs) if number % 2 else (theirs, ours):
                contender(number)
            if number < 0:
                self._prove_peer(PEER_INCREMENTAL)

    def _prove_peer(self, name: str) -> None:
        target = self.place.directory / "restored"
        target.mkdir()
        image = peers.virtnbdrestore(self.place, self.peer, target)
        self.rows.prove(self.place.name, name, identical(self.place.clone, image))
        shutil.rmtree(target)

    def _take(self, number: int, name: str, wall: float, cpu: Dict[str, float], image: Optional[Path]) -> None:
        """A row, or before the first round the proof of what was written."""
        place = self.place
        if number >= 0:
            self.rows.add(Row(place.name, name, number, wall, cpu))
        elif image is not None:
            self.rows.prove(place.name, name, identical(place.machine, image))
        used = " ".join(f"{who} {seconds / place.gib:.2f}" for who, seconds in cpu.items())
        say(f"{place.name} round {number + 1} {name}: {wall:.2f} s, {place.gib / wall:.2f} GiB/s, CPU s/GiB: {used}")


def memory_of_mover(directory: Path, disks: int = 8, size: int = 512 * MIB) -> float:
    """The most that a mover of so many disks held, in MiB. Its disks' destinations are new files."""
    names = [f"vd{chr(ord('a') + number)}" for number in range(disks)]
    with host_below(directory) as (work, host):
        guest = machine_on(host, "eight", [DiskSpec(name, size) for name in names])
        for number, name in enumerate(names):
            fill(guest.disks[name].path, layout(size, seed=number))
        images: Images = {f"disk{number}": (work / f"disk{number}.qcow2", None) for number in range(disks)}
        for image, _backing in images.values():
            create_qcow2(str(image), size)
        guest.start(paused=True)
        outcome = Product(work, host.uri).backup(guest, images)
        for number, name in enumerate(names):
            if not identical(guest, images[f"disk{number}"][0], name):
                raise BenchmarkError(f"disk {name} of {disks} is not what its source holds")
    return outcome.rss_mib


def keys(rows: Rows, gib: float) -> Dict[str, float]:
    """The keys of the report from the rows."""
    places = rows.places()
    return {
        "full_vs_nbdcopy": rows.worst_speedup(FULL, NBDCOPY),
        "full_vs_virtnbdbackup": rows.worst_speedup(FULL, PEER_FULL),
        "incremental_vs_virtnbdbackup": rows.worst_speedup(INCREMENTAL, PEER_INCREMENTAL),
        "full_vs_limit": rows.worst_speedup(FULL, RECEIVE),
        "limit_vs_virtnbdbackup": rows.worst_speedup(RECEIVE, PEER_FULL),
        "committed_vs_nbdcopy": rows.worst_speedup(COMMITTED, NBDCOPY),
        "full_cpu_s_per_gib": max(rows.median(place, FULL, lambda row: row.cpu_s) for place in places) / gib,
        "nbdcopy_cpu_s_per_gib": min(rows.median(place, NBDCOPY, lambda row: row.cpu_s) for place in places) / gib,
    }


def run(rounds: int = ROUNDS, size: int = SIZE, names: Optional[List[str]] = None) -> Dict[str, Any]:
    """The keys of this benchmark, and all rows."""
    versions = peers.versions()
    say(", ".join(f"{name} {version}" for name, version in versions.items()))
    pieces = layout(size)
    rows = Rows(unproven=[RECEIVE])
    gib = data_bytes(pieces) / GIB
    for name in names or list(PLACES):
        began = time.monotonic()
        with stage(name, PLACES[name], size, pieces) as place:
            say(f"{name}: a disk of {size / GIB:.2f} GiB with {gib:.2f} GiB of data lies in {place.directory}")
            measurement = Measurement(place, rows, rounds)
            measurement.fulls()
            measurement.incrementals()
        say(f"{name}: {time.monotonic() - began:.0f} s")
    found = {name: round(value, 3) for name, value in keys(rows, gib).items()}
    found["mover_rss_mib"] = round(memory_of_mover(PLACES["ram"]), 1)
    say(f"mover of 8 disks: {found['mover_rss_mib']} MiB")
    return {**found, "data_path_versions": versions, "data_path_gib": round(gib, 3), "data_path_rows": rows.as_data()}


def main(argv: List[str]) -> int:
    """Print the keys as JSON."""
    rounds = int(argv[0]) if argv else ROUNDS
    size = int(argv[1]) * MIB if len(argv) > 1 else SIZE
    print(json.dumps(run(rounds, size, argv[2:] or None), indent=2))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
