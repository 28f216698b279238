# Copyright: (c) 2026, Sendense contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Run sshd in a mount namespace in which it finds what only its package's installation makes: its account and its directory.

Started as a file by the system's Python, so it uses nothing but the standard library and :mod:`namespace` beside it.

    /usr/bin/python3 -I sshd_namespace.py DIRECTORY PROGRAM [ARGUMENT...]
"""

from __future__ import annotations

import importlib
import os
import sys

#: Where sshd locks its unprivileged half in; ``run`` of the server's directory lies over it.
RUN = "/run/sshd"
_ACCOUNT = "sshd:x:102:65534::/run/sshd:/usr/sbin/nologin\n"


def enter(directory: str) -> None:
    """Unshare the mounts of this process and put the server's own files in place. OSError if the kernel refuses."""
    sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
    namespace = importlib.import_module("namespace")
    libc = namespace.unshare_mounts()
    os.makedirs(RUN, mode=0o755, exist_ok=True)
    namespace.bind(libc, os.path.join(directory, "run"), RUN)
    with open("/etc/passwd", encoding="utf-8") as stream:
        accounts = stream.read()
    if "\nsshd:" not in accounts:
        namespace.bind(libc, _write(directory, "passwd", accounts.rstrip("\n") + "\n" + _ACCOUNT, 0o644), "/etc/passwd")
    if os.path.exists("/etc/shadow"):
        with open("/etc/shadow", encoding="utf-8") as stream:
            lines = [_unlocked(line) for line in stream]
        namespace.bind(libc, _write(directory, "shadow", "".join(lines), 0o600), "/etc/shadow")


def _unlocked(line: str) -> str:
    """sshd refuses the keys of an account whose password is locked; here root has none that would be accepted instead."""
    fields = line.split(":")
    if fields[0] == "root":
        fields[1] = "*"
    return ":".join(fields)


def _write(directory: str, name: str, text: str, mode: int) -> str:
    path = os.path.join(directory, name)
    with open(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, mode), "w", encoding="utf-8") as stream:
        stream.write(text)
    return path


if __name__ == "__main__":
    enter(sys.argv[1])
    os.execv(sys.argv[2], sys.argv[2:])
