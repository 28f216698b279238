# Copyright: (c) 2026, Sendense contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The first process of a lab machine: gives it a file system of its own, says so, and then adopts and buries what others leave.

Started by the system's Python in new mount and pid namespaces; when it is killed, everything in the machine is. Of the directories
in ``cover`` the machine sees nothing but what ``keep`` names, less ``hide``.

    echo '{"cover": [...], "keep": [...], "hide": []}' | unshare --mount --pid --fork /usr/bin/python3 -I place_namespace.py
"""

from __future__ import annotations

import ctypes
import json
import os
import signal
import sys
from typing import Dict, List

MS_BIND = 0x1000
MS_REC = 0x4000
MS_PRIVATE = 0x40000


def furnish(cover: List[str], keep: List[str], hide: List[str]) -> None:
    """Lay an empty file system over every directory of ``cover``, put back ``keep``, empty ``hide``. OSError if refused."""
    _mount("none", "/", "", MS_REC | MS_PRIVATE)
    held: Dict[str, int] = {path: os.open(path, os.O_PATH) for path in keep}
    for path in filter(os.path.isdir, cover):  # one may lie below another
        _mount("tmpfs", path, "tmpfs", 0)
    for path, descriptor in held.items():
        _stand_in(path, os.path.isdir(f"/proc/self/fd/{descriptor}"))
        _mount(f"/proc/self/fd/{descriptor}", path, "", MS_BIND | MS_REC)
        os.close(descriptor)
    for path in hide:
        _mount("tmpfs", path, "tmpfs", 0)
    _mount("proc", "/proc", "proc", 0)


def _stand_in(path: str, directory: bool) -> None:
    os.makedirs(path if directory else os.path.dirname(path), exist_ok=True)
    if not directory:
        os.close(os.open(path, os.O_CREAT, 0o600))


def _mount(source: str, target: str, kind: str, flags: int) -> None:
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.mount(source.encode(), target.encode(), kind.encode() or None, ctypes.c_ulong(flags), None) != 0:
        raise OSError(ctypes.get_errno(), f"cannot mount {source} at {target}: {os.strerror(ctypes.get_errno())}")


def bury() -> None:
    """Reap orphans for ever."""
    while True:
        signal.sigwait({signal.SIGCHLD})
        try:
            while os.waitpid(-1, os.WNOHANG)[0]:
                pass
        except ChildProcessError:
            pass


if __name__ == "__main__":
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGCHLD})
    furnish(**json.loads(sys.stdin.readline()))
    print("ready", flush=True)
    bury()
