# Copyright: (c) 2026, Sendense contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Families that mount, limit themselves or change their environment run in a process with namespaces of its own.

A libvirt host of another test that starts meanwhile copies all mounts that it can see, and would hold them for its life;
and the ports of other tests' hubs are not in the way.
"""

from __future__ import annotations

import ctypes
import fcntl
import importlib
import json
import os
import socket
import struct
import subprocess
import sys
from abc import abstractmethod
from dataclasses import asdict
from pathlib import Path
from typing import List

from tests.lab.paths import ROOT

from ._base import Family, Outcome

_CLONE_NEWNET = 0x40000000
_SIOCSIFFLAGS, _IFF_UP, _IFF_RUNNING = 0x8914, 0x1, 0x40


class ApartFamily(Family):
    """A family whose :meth:`inside` is called in such a process."""

    def run(self, base: Path, seed: int, count: int) -> Outcome:
        argv = ["unshare", "--net", "--mount", "--propagation", "private", sys.executable, "-m", __name__]
        argv += [type(self).__module__, type(self).__name__, str(base), str(seed), str(count)]
        environ = dict(os.environ, PYTHONPATH=os.pathsep.join(path for path in sys.path if path))
        done = subprocess.run(argv, cwd=ROOT, env=environ, stdout=subprocess.PIPE, text=True, check=False)
        assert done.returncode == 0, f"{self.NAME} ended with {done.returncode}: {done.stdout}"
        return Outcome(**json.loads(done.stdout.splitlines()[-1]))

    @abstractmethod
    def inside(self, base: Path, seed: int, count: int) -> Outcome:
        """What :meth:`Family.run` does."""


def own_network() -> None:
    """Give the calling thread, and what it starts, a network and ports of its own. OSError if that is refused."""
    if ctypes.CDLL(None, use_errno=True).unshare(_CLONE_NEWNET) != 0:
        raise OSError(ctypes.get_errno(), "unshare")
    raise_loopback()


def raise_loopback() -> None:
    """A new network namespace has a loopback device that is down."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as any_socket:
        fcntl.ioctl(any_socket, _SIOCSIFFLAGS, struct.pack("16sh", b"lo", _IFF_UP | _IFF_RUNNING))


def main(argv: List[str]) -> int:
    """Run the named family and print its outcome as JSON."""
    module, name, base, seed, count = argv
    raise_loopback()
    family: ApartFamily = getattr(importlib.import_module(module), name)()
    print(json.dumps(asdict(family.inside(Path(base), int(seed), int(count)))))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
