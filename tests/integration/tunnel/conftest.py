# Copyright: (c) 2026, Sendense contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A hub with a real sshd and real export servers on one loopback, and the job of a node that reaches it only through a tunnel."""

from __future__ import annotations

import os
import subprocess
import time
from pathlib import Path
from typing import Any, Callable, Dict, Iterator, List, Sequence

import pytest

from ansible_collections.sendense.platform.plugins.module_utils.datapath.targets import TCP, NbdTarget
from ansible_collections.sendense.platform.plugins.module_utils.jobs.place import NODE, JobPlace, begin, discard
from tests.integration.keeper.conftest import agent, agent_content, eventually, state
from tests.lab.processes import wait_gone
from tests.lab.sshd import Sshd, make_key

__all__ = ["agent", "agent_content", "state"]

MIB = 1 << 20
SIZE = 64 * MIB
PORT = 2243
#: What docs/how-to/three-places.md tells to put before the node's key.
RESTRICTED = 'restrict,port-forwarding,permitopen="127.0.0.1:*"'


class Hub:
    """The far side."""

    def __init__(self, directory: Path, sshd_config: Sequence[str] = ()) -> None:
        self.directory = directory
        self.key = directory / "id"
        self.line = make_key(self.key)
        self.sshd = Sshd(directory / "sshd", port=PORT, keys=[f"{RESTRICTED} {self.line}"], options=sshd_config)
        self.servers: List["subprocess.Popen[bytes]"] = []

    @property
    def options(self) -> Dict[str, Any]:
        """``sendense_tunnel`` as an inventory would hold it."""
        own = {"host": "127.0.0.1", "port": PORT, "user": "root", "identity_file": str(self.key)}
        return dict(own, host_key=self.sshd.host_key)

    def permit(self, restriction: str) -> None:
        """Let the node's key in under other restrictions."""
        (self.sshd.directory / "authorized_keys").write_text(f"{restriction} {self.line}\n")

    def serve(self, name: str, port: int, image: Path, *more: str) -> str:
        """Export a raw image on a port of the loopback; the URI."""
        argv = ["qemu-nbd", "--persistent", "--shared=10", "--bind=127.0.0.1", f"--port={port}", f"--export-name={name}", "--format=raw"]
        self.servers.append(subprocess.Popen([*argv, *more, str(image)], stdin=subprocess.DEVNULL))
        eventually(lambda: _listens(port))
        return NbdTarget(key="disk0", transport=TCP, host="127.0.0.1", port=port, export=name).uri()

    def close(self) -> None:
        """End everything of it."""
        for server in self.servers:
            server.kill()
            server.wait()
        self.sshd.stop()
        assert wait_gone(lambda: not self.sshd.processes(), 5.0)


def _listens(port: int) -> bool:
    with open("/proc/net/tcp", encoding="ascii") as table:
        return any(line.split()[1] == f"0100007F:{port:04X}" and line.split()[3] == "0A" for line in table.readlines()[1:])


@pytest.fixture
def hub(tmp_path: Path) -> Iterator[Hub]:
    """A hub whose sshd runs."""
    place = Hub(tmp_path)
    place.sshd.start()
    yield place
    place.close()


@pytest.fixture
def params(state: Any, agent: str) -> Dict[str, Any]:
    """Arguments of every task at the node."""
    return {"state_dir": state.path, "agent_path": agent, "hub_network": "another-machine:1"}


@pytest.fixture
def job(params: Dict[str, Any]) -> Iterator[Callable[[], JobPlace]]:
    """Begin jobs at the node; afterwards none is left, nor any process of one."""
    places: List[JobPlace] = []

    def start() -> JobPlace:
        places.append(begin(params, NODE, f"{len(places):032x}", {"machine_key": "libvirt-1", "kind": "backup"}))
        return places[-1]

    yield start
    for place in places:
        discard(place)
    eventually(lambda: not ssh_processes(params["state_dir"]))


def ssh_processes(folder: str) -> List[int]:
    """The ssh processes whose control socket lies below this folder."""
    found = []
    for entry in filter(str.isdigit, os.listdir("/proc")):
        try:
            words = Path(f"/proc/{entry}/cmdline").read_bytes().split(b"\0")
        except OSError:
            continue
        if words[0] == b"ssh" and any(word.startswith(os.fsencode(folder) + b"/") for word in words):
            found.append(int(entry))
    return found


def random_file(path: Path, size: int = SIZE) -> Path:
    """A file full of data."""
    with path.open("wb") as stream:
        for _piece in range(size // MIB):
            stream.write(os.urandom(MIB))
    return path


def elapsed(since: float) -> float:
    """Seconds since a reading of the monotonic clock."""
    return time.monotonic() - since
