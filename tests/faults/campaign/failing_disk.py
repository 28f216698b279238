# Copyright: (c) 2026, Sendense contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A mounted ext4 disk of which a share of the writes fails on demand: nbdkit's error filter, shown as a file, mounted by loop."""

from __future__ import annotations

import subprocess
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Iterator

from tests.doubles.nbd_server import await_greeting, stop

from .recording import mounted, shown_as_file


@dataclass
class FailingDisk:
    """The disk while it is mounted."""

    trigger: Path
    log: Path

    def fail(self) -> None:
        """From now on."""
        self.trigger.touch()

    def heal(self) -> None:
        """No longer."""
        self.trigger.unlink(missing_ok=True)

    def errors(self) -> int:
        """Requests that have failed."""
        return self.log.read_text().count("return=-1")


@contextmanager
def failing_disk(directory: Path, image: Path, where: Path, share: str) -> Iterator[FailingDisk]:
    """The file system in ``image``, mounted; ``share`` ("5%") of its writes fail while it is told to. Repaired at the end."""
    socket, shown = directory / "disk.sock", directory / "shown.img"
    disk = FailingDisk(directory / "disk.trigger", directory / "disk.log")
    disk.log.write_text("")
    argv = ["nbdkit", "--foreground", "--exit-with-parent", "--unix", str(socket), "--filter=log", "--filter=error", "file", str(image)]
    argv += ["error=EIO", f"error-pwrite-rate={share}", f"error-file={disk.trigger}", f"logfile={disk.log}"]
    process = subprocess.Popen(argv, stderr=subprocess.DEVNULL)
    try:
        await_greeting(process, str(socket))
        node = f"driver=nbd,node-name=shown,server.type=unix,server.path={socket}"
        with shown_as_file([node], shown, image.stat().st_size), mounted(shown, where):
            try:
                yield disk
            finally:
                disk.heal()
    finally:
        stop(process, str(socket))
    repair(image)


def repair(image: Path) -> None:
    """What an administrator does after I/O errors. AssertionError if the file system cannot be repaired."""
    done = subprocess.run(["e2fsck", "-f", "-y", str(image)], capture_output=True, text=True, check=False)
    assert done.returncode < 4, done.stdout + done.stderr
