# Copyright: (c) 2026, Sendense contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""How fast merges are beside plain ``qemu-img commit`` of the same chain, side by side in one run, in alternated pairs.

    python -m tests.benchmarks.merge [PAIRS]

``merge_vs_qemu_img_commit`` is the way of the data: from the journal to flushed images. ``whole_merge_vs_qemu_img_commit``
also has the re-read of the whole result, the digest of its file and the exchange, which plain qemu-img does not do at all.
A ratio is the throughput of the product by that of plain qemu-img: 1 is as fast.
"""

from __future__ import annotations

import json
import os
import random
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Dict, List

from ansible_collections.sendense.platform.plugins.module_utils.datapath.exports import check_export, export_argv
from ansible_collections.sendense.platform.plugins.module_utils.repositories.local import LocalRepository
from tests.contract.merge_steps import VERIFIED
from tests.contract.point_writer import Guest
from tests.e2e.site import ROOT

BLOCK = 65536
PAIRS = 3
JOB = "b" * 32
_AGENT = "import sys; from ansible_collections.sendense.platform.plugins.module_utils.agent.main import main; sys.exit(main(sys.argv[1:]))"


@dataclass(frozen=True)
class Sizes:
    """Bytes of the full, and of each increment; increments overlap as random writes do."""

    full: int = 2 << 30
    increment: int = 896 << 20
    increments: int = 3


class Chain:
    """A full and increments of one disk, of which the last takes in all others."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.guest = Guest(sizes={"serial-a": BLOCK})
        self.ids: List[str] = []

    @property
    def repository(self) -> LocalRepository:
        """A fresh view."""
        return LocalRepository(str(self.root), reserve_bytes=0)

    def image(self, point_id: str) -> Path:
        """The image of a point."""
        return self.root / "machines" / self.guest.key / "points" / point_id / "disk0.qcow2"

    def written(self, sizes: Sizes, seed: int) -> "Chain":
        """Make the chain."""
        source = random.Random(seed)
        self.guest = Guest(sizes={"serial-a": sizes.full})
        disk = self.guest.disks[0]
        self.repository.initialise()
        for number in range(sizes.increments + 1):
            blocks = range(len(disk.blocks)) if number == 0 else source.sample(range(len(disk.blocks)), sizes.increment // BLOCK)
            for block in blocks:
                disk.write(block, source.randrange(1, 256))
            self.ids.append(self.guest.backup(self.repository, self.ids[-1] if self.ids else "").manifest.point_id)
        return self

    def copied(self, root: Path) -> "Chain":
        """The same at another place, on the medium: nobody pays for the copy."""
        other = Chain(root)
        shutil.copytree(self.root, root)
        subprocess.run(["sync", "-f", str(root)], check=True)
        other.guest, other.ids = self.guest, self.ids
        return other


def plain(chain: Chain, _work: Path) -> Dict[str, float]:
    """What an administrator would type, and a flush."""
    base, top = chain.image(chain.ids[0]), chain.image(chain.ids[-1])
    began = time.monotonic()
    argv = ["qemu-img", "commit", "-q", "-d", "-f", "qcow2", "-b", f"../{chain.ids[0]}/disk0.qcow2", str(top)]
    subprocess.run(argv, check=True, cwd=top.parent)
    _flush(base)
    return {"plain_s": time.monotonic() - began}


def ours(chain: Chain, work: Path) -> Dict[str, float]:
    """What a prune does for a merge, with its children as the keeper starts them."""
    repository, key = chain.repository, chain.guest.key
    began = time.monotonic()
    opened = repository.begin_merge(key, chain.ids[-1], chain.ids[:-1], JOB)
    _child("merger", {"disks": opened.orders, "options": {}}, work)
    images = repository.merged_images(opened)
    data = time.monotonic() - began
    hashes = repository.merged_hashes(opened)
    with ExitStack() as servers:
        disks = [
            {"key": name, "uri": _served(node, opened.disks[0].size_bytes, work, servers), "hashes": [hashes[name]], "mode": "held"}
            for name, node in images.items()
        ]
        digests = [{"key": name, "path": node["file"]["filename"], "algorithm": "xxh3_128"} for name, node in images.items()]
        status = _child("checker", {"disks": disks, "options": {}, "digests": digests}, work)
    repository.finish_merge(opened, {name: disk["digest"] for name, disk in status["disks"].items()}, VERIFIED)
    return {"data_s": data, "whole_s": time.monotonic() - began}


def run(pairs: int = PAIRS, sizes: Sizes = Sizes(), seed: int = 1) -> Dict[str, Any]:
    """Measure below TMPDIR. Times in seconds; the ratios are medians over the pairs."""
    with tempfile.TemporaryDirectory(prefix="sb-") as directory:
        work = Path(directory)
        template = Chain(work / "template").written(sizes, seed)
        moved = sum(template.image(point_id).stat().st_size for point_id in template.ids[1:])
        rows = [_pair(template, work, number) for number in range(pairs)]
    return {
        "merge_vs_qemu_img_commit": _ratio(rows, "data_s"),
        "whole_merge_vs_qemu_img_commit": _ratio(rows, "whole_s"),
        "merge_mib_per_s": round(moved / (1 << 20) / statistics.median(row["data_s"] for row in rows), 1),
        "merge_moved_mib": moved >> 20,
        "merge_pairs": rows,
    }


def _pair(template: Chain, work: Path, number: int) -> Dict[str, float]:
    row: Dict[str, float] = {}
    for side in (plain, ours) if number % 2 else (ours, plain):
        copy = template.copied(work / "copy")
        row.update(side(copy, work))
        shutil.rmtree(copy.root)
    return {name: round(seconds, 3) for name, seconds in row.items()}


def _ratio(rows: List[Dict[str, float]], name: str) -> float:
    return round(statistics.median(row["plain_s"] / row[name] for row in rows), 3)


def _child(command: str, plan: Dict[str, Any], work: Path) -> Dict[str, Any]:
    (work / "plan").write_text(json.dumps(plan))
    argv = [sys.executable, "-c", _AGENT, command, "--plan", str(work / "plan"), "--status", str(work / "status")]
    environment = dict(os.environ, PYTHONPATH=os.pathsep.join(path for path in sys.path if path))
    done = subprocess.run(argv, env=environment, cwd=ROOT, stdout=subprocess.PIPE, text=True, check=False)
    assert done.returncode == 0, done.stdout
    return dict(json.loads((work / "status").read_text()))


def _served(node: Dict[str, Any], size: int, work: Path, servers: ExitStack) -> str:
    socket = str(work / "sock")
    argv, environment = export_argv(node, export="disk0", socket=socket, writable=False)
    server = subprocess.Popen(argv, env={**os.environ, **environment}, stdin=subprocess.DEVNULL)
    servers.callback(server.wait)
    servers.callback(server.terminate)
    uri = f"nbd+unix:///disk0?socket={socket}"
    check_export(uri, size)
    return uri


def _flush(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def main(argv: List[str]) -> int:
    """Print the keys as JSON."""
    print(json.dumps(run(int(argv[0]) if argv else PAIRS), indent=2))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
