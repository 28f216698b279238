# Copyright: (c) 2026, Sendense contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The peers: nbdcopy into a default qemu-nbd, and virtnbdbackup of the distribution. Each is its whole command."""

from __future__ import annotations

import re
import shutil
import socket
import subprocess
import time
from contextlib import contextmanager
from pathlib import Path
from typing import Dict, Iterator, List, Tuple

from .accounting import Cost, measure
from .ours import Product
from .rows import BenchmarkError
from .stage import Stage, process_cpu

VIRTNBDBACKUP = "/usr/bin/virtnbdbackup"


def versions() -> Dict[str, str]:
    """What is compared with what. BenchmarkError if a program is missing."""
    commands = {
        "qemu": ["qemu-img", "--version"],
        "libvirt": ["virsh", "--version"],
        "nbdcopy": ["nbdcopy", "--version"],
        "virtnbdbackup": [VIRTNBDBACKUP, "--version"],
        "kernel": ["uname", "-r"],
        "processors": ["nproc"],
    }
    found = {name: _first_line(argv) for name, argv in commands.items()}
    model = re.search(r"model name\s*: (.*)", Path("/proc/cpuinfo").read_text())
    return {**found, "processor": model.group(1) if model else "unknown"}


def _first_line(argv: List[str]) -> str:
    if shutil.which(argv[0]) is None:
        raise BenchmarkError(f"{argv[0]} is not installed; run the benchmarks by ./scripts/bench.sh, which installs what is missing")
    return subprocess.run(argv, check=True, capture_output=True, text=True).stdout.splitlines()[0]


def nbdcopy(stage: Stage, product: Product, image: Path) -> Tuple[float, Dict[str, float]]:
    """nbdcopy with its defaults and a flush, from libvirt's export into a default qemu-nbd: wall seconds, CPU seconds by process."""
    guest = stage.machine
    with product.snapshot(guest) as snapshot, default_server(image) as (server, uri):
        qemu = guest.qemu_pid
        before = process_cpu(qemu), process_cpu(server)
        argv = ["nbdcopy", "--flush", "--", snapshot.disks[0].uri, uri]
        cost = _checked(measure(argv, cwd="/", log=str(stage.directory / "nbdcopy.log")), stage, "nbdcopy")
        cpu = {"nbdcopy": cost.cpu_s, "qemu": process_cpu(qemu) - before[0], "qemu-nbd": process_cpu(server) - before[1]}
    return cost.wall_s, cpu


def virtnbdbackup(stage: Stage, level: str, output: Path) -> Tuple[float, Dict[str, float]]:
    """A whole run of virtnbdbackup on the clone, within the host's own view of the file system, where qemu:///system is the host."""
    qemu = stage.clone.qemu_pid
    before = process_cpu(qemu)
    scratch = stage.directory / "scratch"
    scratch.mkdir(exist_ok=True)
    argv = [*_within(stage), VIRTNBDBACKUP, "--uri", "qemu:///system", "--domain", stage.clone.name]
    argv += ["--level", level, "--noprogress", "--scratchdir", str(scratch), "--output", str(output)]
    cost = _checked(measure(argv, cwd="/", log=str(stage.directory / "virtnbdbackup.log")), stage, "virtnbdbackup")
    return cost.wall_s, {"virtnbdbackup": cost.cpu_s, "qemu": process_cpu(qemu) - before}


def virtnbdrestore(stage: Stage, output: Path, target: Path) -> Path:
    """Restore what virtnbdbackup stored; the image."""
    argv = [*_within(stage), "virtnbdrestore", "--input", str(output), "--output", str(target), "--action", "restore", "--noprogress"]
    _checked(measure(argv, cwd="/", log=str(stage.directory / "virtnbdrestore.log")), stage, "virtnbdrestore")
    return next(path for path in target.iterdir() if path.suffix in (".qcow2", ".img") or path.name.startswith("vda"))


def _within(stage: Stage) -> List[str]:
    """Before a command: run it where the host's own directories are."""
    return ["nsenter", f"--target={stage.host.pid}", "--mount", "--"]


@contextmanager
def default_server(image: Path) -> Iterator[Tuple[int, str]]:
    """``qemu-nbd`` as one starts it who does not think of speed, on TCP as is its default and as a hub's exports are: pid, URI."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    ready = image.with_suffix(".pid")  # qemu-nbd writes it when it listens
    ready.unlink(missing_ok=True)
    argv = ["qemu-nbd", "--persistent", "--bind=127.0.0.1", f"--port={port}", f"--pid-file={ready}", "--format=qcow2", "--", str(image)]
    with subprocess.Popen(argv) as process:
        try:
            deadline = time.monotonic() + 10
            while not ready.exists():
                if process.poll() is not None or time.monotonic() > deadline:
                    raise BenchmarkError(f"qemu-nbd does not serve {image}")
                time.sleep(0.01)
            yield process.pid, f"nbd://127.0.0.1:{port}"
        finally:
            process.terminate()


def _checked(cost: Cost, stage: Stage, name: str) -> Cost:
    if cost.returncode != 0:
        said = (stage.directory / f"{name}.log").read_text(errors="replace")[-3000:]
        raise BenchmarkError(f"{name} ended with {cost.returncode}: {said}")
    return cost
