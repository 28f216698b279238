# Copyright: (c) 2026, Sendense contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Disks of a machine as qcow2 images with persistent dirty bitmaps, and servers for them: plain ones and failing ones."""

from __future__ import annotations

import json
import random
import subprocess
import tempfile
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Callable, ContextManager, Dict, Iterator, List

from ansible_collections.sendense.platform.plugins.module_utils.datapath.images import qcow2_node
from tests.doubles.nbd_server import await_greeting, stop
from tests.faults.oracle import sha256

EXPORT = "disk"


@dataclass
class SourceDisk:
    """One disk. ``bitmap`` marks what was written since the last committed backup; its name is the change id."""

    path: Path
    size: int
    number: int = 0
    digest: str = ""

    @classmethod
    def create(cls, path: Path, size: int, source: random.Random) -> "SourceDisk":
        """An image with some random data."""
        _run(["qemu-img", "create", "-q", "-f", "qcow2", str(path), str(size)])
        disk = cls(path, size)
        _run(["qemu-img", "bitmap", "--add", "-f", "qcow2", str(path), disk.bitmap])
        disk.scribble(source, pieces=6)
        return disk

    @property
    def bitmap(self) -> str:
        """The bitmap's name."""
        return f"b{self.number}"

    @property
    def next_bitmap(self) -> str:
        """The name of the bitmap that begins when the backup being made is committed."""
        return f"b{self.number + 1}"

    def advance(self) -> None:
        """A backup was committed: from now on the next bitmap counts. Nothing writes while a backup runs."""
        _run(["qemu-img", "bitmap", "--remove", "-f", "qcow2", str(self.path), self.bitmap])
        self.number += 1
        _run(["qemu-img", "bitmap", "--add", "-f", "qcow2", str(self.path), self.bitmap])

    def scribble(self, source: random.Random, pieces: int = 4) -> None:
        """Write some random bytes, and zeros, somewhere."""
        orders = []
        for number in range(pieces):
            length = source.randrange(1, 129) * 512
            offset = source.randrange((self.size - length) // 512 + 1) * 512
            orders.append(f"write -z {offset} {length}" if number == 0 else f"write -P {source.randrange(1, 256)} {offset} {length}")
        self.write(orders)

    def fill(self, value: int, offset: int, length: int) -> None:
        """Write one byte over and over."""
        self.write([f"write -P {value} {offset} {length}"])

    def sha256(self) -> str:
        """Of the raw content; read once after each change of it."""
        if not self.digest:
            with tempfile.NamedTemporaryFile(prefix="sendense-source-") as raw:
                _run(["qemu-img", "convert", "-f", "qcow2", "-O", "raw", str(self.path), raw.name])
                self.digest = sha256(raw.name)
        return self.digest

    def write(self, orders: List[str]) -> None:
        """Do what qemu-io is ordered, as a guest would."""
        self.digest = ""
        argv = ["qemu-io", "-f", "qcow2"]
        for order in orders:
            argv += ["-c", order]
        _run([*argv, str(self.path)])


#: Starts a server for a disk on a socket and gives its URI while it runs.
Serve = Callable[[SourceDisk, Path], ContextManager[str]]


def serve_plainly(disk: SourceDisk, socket: Path) -> ContextManager[str]:
    """A sound server."""
    return served(disk, qcow2_node(str(disk.path)), socket)


@contextmanager
def served(disk: SourceDisk, node: Dict[str, Any], socket: Path) -> Iterator[str]:
    """A server for this block node of the disk, with its bitmap."""
    argv = ["qemu-nbd", "--persistent", "--shared=10", f"--export-name={EXPORT}", f"--socket={socket}", "--read-only"]
    argv += [f"--bitmap={disk.bitmap}", "json:" + json.dumps(node)]
    process = subprocess.Popen(argv, stderr=subprocess.DEVNULL)
    try:
        await_greeting(process, str(socket))
        yield f"nbd+unix:///{EXPORT}?socket={socket}"
    finally:
        stop(process, str(socket))


@contextmanager
def filtered(path: Path, socket: Path, filters: List[str], options: List[str]) -> Iterator[Dict[str, Any]]:
    """A qcow2 image whose bytes come through nbdkit's filters; its block node. Every request is at most 32 KiB."""
    argv = ["nbdkit", "--foreground", "--readonly", "--exit-with-parent", "--unix", str(socket)]
    argv += [f"--filter={name}" for name in ("blocksize", *filters)]
    argv += ["file", str(path), "maxdata=32768", *options]
    process = subprocess.Popen(argv, stderr=subprocess.DEVNULL)
    try:
        await_greeting(process, str(socket))
        yield {"driver": "qcow2", "backing": None, "file": {"driver": "nbd", "server": {"type": "unix", "path": str(socket)}}}
    finally:
        stop(process, str(socket))


def _run(argv: List[str]) -> None:
    subprocess.run(argv, check=True, capture_output=True, timeout=120)
