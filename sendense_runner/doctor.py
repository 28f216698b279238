# Copyright: (c) 2026, Sendense contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Examines the set-up of this machine. Reads and probes only; nothing is created, started or changed."""

from __future__ import annotations

import json
import os
import re
import shutil
import socket
import stat
import subprocess
from dataclasses import dataclass
from typing import Iterable, Iterator, List, Optional, Set, Tuple

from .collection import hubstate

OK, WARNING, FAILED = "ok", "warning", "failed"

MARKER = "sendense-repository.json"
TIMEOUT_S = 15
#: Program, Debian package, oldest version that the tests have run with.
PROGRAMS: Tuple[Tuple[str, str, Tuple[int, ...]], ...] = (
    ("ansible-playbook", "ansible-core (pip)", (2, 19)),
    ("qemu-img", "qemu-utils", (7, 2)),
    ("qemu-nbd", "qemu-utils", (7, 2)),
)
#: Python module, Debian package.
BINDINGS = (("libvirt", "python3-libvirt"), ("nbd", "python3-libnbd"), ("xxhash", "python3-xxhash"))


@dataclass(frozen=True)
class Wanted:
    """What to examine."""

    state_dir: str
    python: str
    repository: Optional[str] = None
    libvirt_uri: Optional[str] = None


@dataclass(frozen=True)
class Check:
    """One finding; ``advice`` says what to do and is empty if nothing is to be done."""

    name: str
    status: str
    found: str
    advice: str = ""


def examine(wanted: Wanted) -> List[Check]:
    """All checks that ``wanted`` asks for, in a fixed order."""
    checks = [check_program(*row, near=os.path.dirname(wanted.python)) for row in PROGRAMS]
    checks += [check_binding(wanted.python, *row) for row in BINDINGS]
    checks.append(check_state_dir(wanted.state_dir))
    checks.append(check_ports(wanted.state_dir))
    if wanted.repository is not None:
        checks.append(check_repository(wanted.repository))
    if wanted.libvirt_uri is not None:
        checks.append(check_libvirt(wanted.libvirt_uri))
    return checks


def check_program(program: str, package: str, oldest: Tuple[int, ...], near: str = "") -> Check:
    """Whether the program is there and not older than what was tested; ``near`` is searched before PATH."""
    path = shutil.which(program, path=os.pathsep.join([near, os.environ.get("PATH", os.defpath)]))
    if path is None:
        return Check(program, FAILED, "not found in PATH", f"Install the package {package}.")
    status, text = _output([path, "--version"])
    numbers = re.search(r"\d+(?:\.\d+)+", text)
    if status != 0 or numbers is None:
        return Check(program, FAILED, f"{path} --version failed: {text[:120]}", f"Reinstall the package {package}.")
    if tuple(int(part) for part in numbers.group().split(".")) < oldest:
        tested = ".".join(map(str, oldest))
        return Check(program, WARNING, f"{numbers.group()} ({path})", f"Older than {tested}, the oldest that the tests have run with.")
    return Check(program, OK, f"{numbers.group()} ({path})")


def check_binding(python: str, module: str, package: str) -> Check:
    """Whether the interpreter that modules will run with can import the binding."""
    code = f"import {module}; print(getattr({module}, '__version__', 'imports'))"
    status, text = _output([python, "-c", code])
    if status != 0:
        reason = text.splitlines()[-1] if text else "no output"
        return Check(f"python {module}", FAILED, f"{python}: {reason}", f"Install the package {package} for this interpreter.")
    return Check(f"python {module}", OK, f"{text} ({python})")


def check_state_dir(path: str) -> Check:
    """The state directory holds leases and sockets: ours alone, writable, or creatable where it is to be."""
    statedir = hubstate("statedir")
    longest = statedir.MAX_SOCKET_BYTES - statedir.SOCKET_TAIL_BYTES
    if len(os.fsencode(path)) > longest:
        return Check("state directory", FAILED, f"{path} has more than {longest} bytes", "Choose a shorter one; sockets go below it.")
    if not os.path.lexists(path):
        parent = os.path.dirname(os.path.abspath(path))
        while not os.path.exists(parent):
            parent = os.path.dirname(parent)
        if os.path.isdir(parent) and os.access(parent, os.W_OK | os.X_OK):
            return Check("state directory", OK, f"{path} does not exist yet; the first job creates it")
        return Check("state directory", FAILED, f"{path} cannot be created in {parent}", "Run as the user that owns it, or name another.")
    found = os.lstat(path)
    if not stat.S_ISDIR(found.st_mode):
        return Check("state directory", FAILED, f"{path} is not a directory", "Remove it or name another directory.")
    if found.st_uid != os.geteuid():
        return Check("state directory", FAILED, f"{path} belongs to user id {found.st_uid}", "Run as that user or name another.")
    if found.st_mode & 0o077:
        return Check("state directory", FAILED, f"{path}: mode {stat.S_IMODE(found.st_mode):04o}", f"Others may enter; chmod 0700 {path}")
    return Check("state directory", OK, path)


def check_ports(state_dir: str) -> Check:
    """Whether the export ports are free of listeners that are not ours."""
    ports = hubstate("ports")
    first, last = ports.FIRST_PORT, ports.LAST_PORT
    leased: Set[int] = set()
    if os.path.isdir(state_dir):
        pool = ports.PortPool(hubstate("statedir").StateDir(state_dir))
        leased = {int(row["port"]) for row in pool.list()}
    taken = list(_taken(port for port in range(first, last + 1) if port not in leased))
    total = last - first + 1
    text = f"{first}-{last}: {total - len(taken) - len(leased)} free, {len(leased)} in use by jobs, {len(taken)} taken by others"
    if not taken:
        return Check("export ports", OK, text)
    which = ", ".join(map(str, taken[:5])) + (" ..." if len(taken) > 5 else "")
    status = FAILED if len(taken) == total else WARNING
    return Check("export ports", status, text, f"Stop what listens on {which}; `ss -ltnp` names it.")


def _taken(ports: Iterable[int]) -> Iterator[int]:
    for port in ports:
        with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                yield port


def check_repository(path: str) -> Check:
    """Whether the directory holds a readable repository marker and can be written."""
    marker = os.path.join(path, MARKER)
    try:
        with open(marker, encoding="utf-8") as handle:
            identity = json.load(handle)["repository_id"]
    except FileNotFoundError:
        return Check(
            "repository", FAILED, f"{path} holds no {MARKER}", "Mount the storage, or initialise it once with the repository module."
        )
    except (OSError, ValueError, KeyError, TypeError) as error:
        return Check("repository", FAILED, f"{marker} cannot be read: {error}", "See docs/runbooks/lost-repository-marker.md.")
    if not os.access(path, os.W_OK | os.X_OK):
        return Check("repository", FAILED, f"{path} is not writable for user id {os.geteuid()}", "Run as its owner or mount it read-write.")
    free = shutil.disk_usage(path).free
    return Check("repository", OK, f"{identity} at {path}, {free / 2**30:.1f} GiB free")


def check_libvirt(uri: str) -> Check:
    """Whether libvirt answers at this URI. By its own client: the runner loads no platform library."""
    status, text = _output(["virsh", f"--connect={uri}", "--readonly", "version"])
    if status != 0:
        return Check(
            "libvirt", FAILED, f"{uri}: {' '.join(text.split())[:200]}", "Check that libvirtd runs there and that this user may connect."
        )
    running = re.search(r"hypervisor: (.+)", text)
    return Check("libvirt", OK, f"{uri}: {running.group(1) if running else 'connected'}")


def _output(argv: List[str]) -> Tuple[int, str]:
    """Exit status and text of a command; 127 if it cannot be started, 124 if it does not end in time."""
    try:
        done = subprocess.run(argv, stdin=subprocess.DEVNULL, capture_output=True, timeout=TIMEOUT_S, check=False)
    except OSError as error:
        return 127, str(error)
    except subprocess.TimeoutExpired:
        return 124, f"no answer within {TIMEOUT_S} s"
    text = (done.stdout + done.stderr).decode("utf-8", "replace")
    return done.returncode, text.strip()
