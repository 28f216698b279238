# Copyright: (c) 2026, Sendense contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""``python -m tests.benchmarks.tunnels [ROUNDS [MIB]]``: what each way from node to hub costs; the numbers of ADR 0010.

The product's mover copies a disk of random data from a real ``qemu-nbd`` to another one whose file is preallocated, both in memory,
once per way and round, the ways in alternation. Medians; CPU seconds are those of mover, servers, ssh and sshd together.
"""

from __future__ import annotations

import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from contextlib import ExitStack
from pathlib import Path
from typing import Any, Callable, Dict, List, Sequence, Tuple

from ansible_collections.sendense.platform.plugins.module_utils.datapath import tunnel
from ansible_collections.sendense.platform.plugins.module_utils.datapath.mover import DiskJob, MoverOptions, move
from ansible_collections.sendense.platform.plugins.module_utils.datapath.tunnel_options import CIPHERS, parse_options
from tests.lab.sshd import Sshd, make_key

MIB = 1 << 20
PORTS = {"sshd": 12843, "target": 12844}
TICK = os.sysconf("SC_CLK_TCK")


class Bench:
    """Servers and tunnels of one run, all below one directory."""

    def __init__(self, folder: Path, mib: int, stack: ExitStack) -> None:
        self.folder, self.mib, self.stack = folder, mib, stack
        self.key = make_key(folder / "id")
        self.sshd = stack.enter_context(Sshd(folder / "sshd", port=PORTS["sshd"], keys=[self.key]))
        for name in ("source", "target"):
            with (folder / name).open("wb") as stream:
                for _piece in range(mib):
                    stream.write(os.urandom(MIB))
        source = self._start("source", ["--socket", str(folder / "source.sock"), "--read-only"])
        self.pids = [source, self._start("target", ["--bind=127.0.0.1", f"--port={PORTS['target']}"])]

    def _start(self, name: str, where: List[str]) -> int:
        env = dict(os.environ, MALLOC_MMAP_THRESHOLD_="8388608", MALLOC_TRIM_THRESHOLD_="16777216", MALLOC_ARENA_MAX="1")
        argv = ["qemu-nbd", "--persistent", "--shared=10", f"--export-name={name}", "--format=raw", *where, str(self.folder / name)]
        process = subprocess.Popen(argv, stdin=subprocess.DEVNULL, env=env)
        self.stack.callback(lambda: (process.kill(), process.wait()))
        return process.pid

    def connect(self, cipher: str, local: str) -> Tuple[str, int]:
        """A tunnel whose near end is a unix socket or a TCP port: the URI of the target through it, and the pid of its ssh."""
        folder = self.folder / f"{cipher.split('@')[0]}-{local}"
        folder.mkdir()
        key = {"identity_file": str(self.folder / "id"), "host_key": self.sshd.host_key}
        options = parse_options({"host": "127.0.0.1", "port": PORTS["sshd"], "user": "root", "cipher": cipher, **key})
        process = subprocess.Popen(tunnel.prepare(options, str(folder)), stdin=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        self.stack.callback(lambda: (process.kill(), process.wait()))
        while not (folder / "ssh.mux").exists():
            if process.poll() is not None:
                raise RuntimeError(f"ssh ended with {process.returncode}: {self.sshd.log.read_text()[-500:]}")
            time.sleep(0.02)
        argv = tunnel.forward_argv(str(folder), {"target.sock": PORTS["target"]})
        if local == "unix":
            subprocess.run(argv, check=True)
            return f"nbd+unix:///target?socket={folder}/target.sock", process.pid
        port = PORTS["target"] + 1 + len(os.listdir(self.folder))
        argv[argv.index("-L") + 1] = f"127.0.0.1:{port}:127.0.0.1:{PORTS['target']}"
        subprocess.run(argv, check=True)
        return f"nbd://127.0.0.1:{port}/target", process.pid

    def copy(self, target_uri: str, ssh: List[int]) -> Dict[str, float]:
        """One copy: GiB per second, and CPU seconds per GiB of all that takes part."""
        pids = [os.getpid(), *self.pids, *ssh, *self.sshd.processes()]
        cpu, began = sum(map(_cpu, pids)), time.monotonic()
        source = f"nbd+unix:///source?socket={self.folder}/source.sock"
        disk = DiskJob(key="disk0", source_uri=source, target_uri=target_uri, hashes_path=str(self.folder / "hashes"))
        result = move([disk], MoverOptions())
        took = time.monotonic() - began
        if result.state != "done":
            raise RuntimeError(str(result.error))
        gib = self.mib / 1024
        return {"gib_per_s": gib / took, "cpu_s_per_gib": (sum(map(_cpu, pids)) - cpu) / gib}


def _cpu(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / TICK


def _column(values: List[float]) -> str:
    return f"{statistics.median(values):.2f} ({min(values):.2f}-{max(values):.2f})"


def run(rounds: int = 7, mib: int = 1024) -> Dict[str, Any]:
    """``tunnel_vs_plain``: the rate through the product's tunnel by that of plain TCP, the median over the rounds."""
    found = measure(rounds, mib, [(CIPHERS[0], "unix")])
    plain, tunnel_runs = found.values()
    pairs = [through["gib_per_s"] / direct["gib_per_s"] for through, direct in zip(tunnel_runs, plain, strict=True)]
    return {
        "tunnel_vs_plain": round(statistics.median(pairs), 3),
        "tunnel_cpu_s_per_gib": round(statistics.median(one["cpu_s_per_gib"] for one in tunnel_runs), 3),
        "plain_cpu_s_per_gib": round(statistics.median(one["cpu_s_per_gib"] for one in plain), 3),
        "tunnel_rows": found,
    }


def measure(rounds: int, mib: int, tunnels: Sequence[Tuple[str, str]]) -> Dict[str, List[Dict[str, float]]]:
    """Every way once per round: plain first, then the tunnels (cipher, kind of the near socket)."""
    folder = Path(tempfile.mkdtemp(prefix="sdb", dir="/dev/shm"))
    with ExitStack() as stack:
        stack.callback(lambda: shutil.rmtree(folder))
        bench = Bench(folder, mib, stack)
        ways: Dict[str, Callable[[], Dict[str, float]]] = {"plain": lambda: bench.copy(f"nbd://127.0.0.1:{PORTS['target']}/target", [])}
        for cipher, local in tunnels:
            uri, pid = bench.connect(cipher, local)
            ways[f"{cipher.split('@')[0]} {local}"] = lambda uri=uri, pid=pid: bench.copy(uri, [pid])  # type: ignore[misc]
        found: Dict[str, List[Dict[str, float]]] = {name: [] for name in ways}
        ways["plain"]()  # the first copy warms the servers' heaps
        for _round in range(rounds):
            for name, way in ways.items():
                found[name].append(way())
    return found


def main(arguments: List[str]) -> int:
    """Measure, and print one line per way and all of it as JSON."""
    rounds, mib = (int(word) for word in [*arguments, *("5", "1024")[len(arguments) :]])
    found = measure(rounds, mib, [*((cipher, "unix") for cipher in CIPHERS), (CIPHERS[0], "tcp")])
    report = {name: {key: [run[key] for run in runs] for key in runs[0]} for name, runs in found.items()}
    for name, columns in report.items():
        print(f"{name:26} {_column(columns['gib_per_s'])} GiB/s  {_column(columns['cpu_s_per_gib'])} CPU s/GiB")
    print(json.dumps(report))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
