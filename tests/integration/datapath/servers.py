# Copyright: (c) 2026, Sendense contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Real NBD servers and real images for the tests of the data path; everything is gone after the test."""

from __future__ import annotations

import json
import os
import random
import signal
import socket
import subprocess
import threading
import time
from pathlib import Path

from ansible_collections.sendense.platform.plugins.module_utils.datapath.images import node_filename, qcow2_node
from ansible_collections.sendense.platform.plugins.module_utils.datapath.status import read_status

BLOCK = 65536
MIB = 1 << 20


class Servers:
    """Starts servers on unix sockets in one directory, and ends them."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.processes = {}

    def qemu(self, name, image, *options):
        """qemu-nbd on a node (dictionary) or on a raw file; returns the URI."""
        path = self._socket(name)
        argv = ["qemu-nbd", "--persistent", "--shared=10", f"--socket={path}", f"--export-name={name}", *options]
        argv += [node_filename(image)] if isinstance(image, dict) else ["--format=raw", str(image)]
        return self._start(name, argv, path)

    def kit(self, name, *arguments):
        """nbdkit with these arguments; returns the URI."""
        path = self._socket(name)
        return self._start(name, ["nbdkit", "--foreground", "--unix", path, "--exportname", name, *arguments], path)

    def pull(self, name, path, exports):
        """The server with which a qemu serves the disks of a pull backup: a raw file under so many names; returns the URIs.

        It serves as many connections as libvirt's qemu does by default.
        """
        socket_path = self._socket(name)
        argv = ["qemu-storage-daemon", "--nbd-server", f"addr.type=unix,addr.path={socket_path},max-connections=100"]
        argv += ["--blockdev", f"driver=file,node-name=file,filename={path},read-only=on"]
        argv += ["--blockdev", "driver=raw,node-name=disk,file=file,read-only=on"]
        for number in range(exports):
            argv += ["--export", f"type=nbd,id=export{number},node-name=disk,name=vd{number}"]
        self._start(name, argv, socket_path)
        return [f"nbd+unix:///vd{number}?socket={socket_path}" for number in range(exports)]

    def _socket(self, name):
        return str(self.directory / f"{name}.sock")

    def _start(self, name, argv, path):
        Path(path).unlink(missing_ok=True)  # a server that was killed leaves its socket
        log = open(self.directory / f"{name}.log", "wb")
        with log:
            process = subprocess.Popen(argv, stdin=subprocess.DEVNULL, stdout=log, stderr=log)
        self.processes[name] = process
        limit = time.monotonic() + 20
        while not _listens(path):
            said = (self.directory / f"{name}.log").read_text()
            assert process.poll() is None and time.monotonic() < limit, f"{argv} did not start: {said}"
            time.sleep(0.01)
        return f"nbd+unix:///{name}?socket={path}"

    def stop(self, name):
        """End one server in an orderly way, so that its image is closed."""
        process = self.processes.pop(name)
        process.send_signal(signal.SIGCONT)
        process.terminate()
        process.wait(20)

    def signal(self, name, number):
        self.processes[name].send_signal(number)

    def close(self):
        for process in self.processes.values():
            process.kill()
            process.wait(20)
        self.processes.clear()


def _listens(path):
    """Whether the socket is there and listens, without opening a connection that a server would count."""
    if not os.path.exists(path):
        return False
    inode_line = f" {path}\n"
    with open("/proc/net/unix", encoding="utf-8", errors="replace") as table:
        return any(line.endswith(inode_line) and line.split()[3] == "00010000" for line in table)


def free_port():
    """A TCP port that nobody uses now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def raw_file(path, size, seed, share=0.5):
    """A sparse raw file with random data, written zeros and holes in pieces of odd sizes."""
    rng = random.Random(seed)
    with open(path, "wb") as stream:
        stream.truncate(size)
        offset = 0
        while offset < size:
            length = min(rng.choice([512, 4096, 60000, BLOCK, 3 * BLOCK + 512, MIB]), size - offset)
            kind = rng.random()
            if kind < share:
                os.pwrite(stream.fileno(), rng.randbytes(length), offset)
            elif kind < share + 0.2:
                os.pwrite(stream.fileno(), bytes(length), offset)
            offset += length
    return path


def compare(left, right):
    """Whether qemu finds two images identical; each is a path of a raw file, a URI or a node."""
    done = subprocess.run(
        ["qemu-img", "compare", *_side("-f", left), *_side("-F", right), _name(left), _name(right)], capture_output=True, text=True
    )
    assert done.returncode in (0, 1), done.stderr
    return done.returncode == 0


def _side(option, image):
    return [] if isinstance(image, dict) else [option, "raw"]


def _name(image):
    return node_filename(image) if isinstance(image, dict) else str(image)


def qemu_io(image, *commands):
    """Write to a qcow2 image as a guest would, so that its bitmaps see it."""
    argv = ["qemu-io", "-f", "qcow2", "-d", "unmap"]
    for command in commands:
        argv += ["-c", command]
    done = subprocess.run([*argv, str(image)], capture_output=True, text=True)
    assert done.returncode == 0 and "failed" not in done.stdout, done.stdout + done.stderr


def bitmap(image, action, name):
    subprocess.run(["qemu-img", "bitmap", f"--{action}", "-f", "qcow2", str(image), name], check=True)


def chain(*paths):
    """The node of a chain, base first."""
    node = None
    for path in paths:
        node = qcow2_node(str(path), node)
    return node


class WhenMoving(threading.Thread):
    """Does something to a copy as soon as its status file says that bytes move. A context manager."""

    def __init__(self, status, action):
        super().__init__()
        self.status, self.action, self.acted, self.ended = str(status), action, False, threading.Event()

    def run(self):
        while not self.ended.wait(0.02):
            if (read_status(self.status) or {}).get("bytes_done"):
                self.acted = True
                self.action()
                return

    def __enter__(self):
        self.start()
        return self

    def __exit__(self, *exc):
        self.ended.set()
        self.join()


def last_json(text):
    return json.loads(text.strip().splitlines()[-1])
