# Copyright: (c) 2026, Sendense contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Run a program in a mount namespace of its own, with private libvirt directories.

Started as a file by the system's Python, so it uses nothing but the standard library. The process is replaced by the
program, so its pid stays; the mounts vanish with the last process of the namespace.

    /usr/bin/python3 -I namespace.py DIRECTORY PROGRAM [ARGUMENT...]
"""

from __future__ import annotations

import ctypes
import os
import sys

CLONE_NEWNS = 0x00020000
MS_BIND = 0x1000
MS_REC = 0x4000
MS_PRIVATE = 0x40000

#: Subdirectory of the host's directory -> where libvirt looks for it.
MOUNTS = {
    "run": "/run/libvirt",
    "lib": "/var/lib/libvirt",
    "etc": "/etc/libvirt",
    "log": "/var/log/libvirt",
    "cache": "/var/cache/libvirt",
}

#: File of the host's directory -> what it stands in for, where it exists.
FILES = {"passwd": "/etc/passwd", "group": "/etc/group"}


def enter(directory: str) -> None:
    """Unshare the mounts of this process and put the host's own directories in place. OSError if the kernel refuses."""
    libc = unshare_mounts()
    for name, target in MOUNTS.items():
        os.makedirs(target, exist_ok=True)
        bind(libc, os.path.join(directory, name), target)
    for name, target in FILES.items():
        if os.path.exists(os.path.join(directory, name)):
            bind(libc, os.path.join(directory, name), target)


def unshare_mounts() -> ctypes.CDLL:
    """Give this process mounts of its own; returns the C library for :func:`bind`. OSError if the kernel refuses."""
    libc = ctypes.CDLL(None, use_errno=True)
    _check(libc.unshare(CLONE_NEWNS), "unshare")
    _check(libc.mount(b"none", b"/", None, ctypes.c_ulong(MS_REC | MS_PRIVATE), None), "make mounts private")
    return libc


def bind(libc: ctypes.CDLL, source: str, target: str) -> None:
    """Lay ``source`` over ``target``. OSError if the kernel refuses."""
    done = libc.mount(os.fsencode(source), os.fsencode(target), None, ctypes.c_ulong(MS_BIND), None)
    _check(done, f"bind {target}")


def _check(result: int, what: str) -> None:
    if result != 0:
        number = ctypes.get_errno()
        raise OSError(number, f"cannot {what}: {os.strerror(number)}; the lab needs root with CAP_SYS_ADMIN")


if __name__ == "__main__":
    enter(sys.argv[1])
    os.execv(sys.argv[2], sys.argv[2:])
