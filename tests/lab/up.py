# Copyright: (c) 2026, Sendense contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The lab that a person starts to look around: one libvirt host with a BIOS and a UEFI guest that keep writing."""

from __future__ import annotations

import fcntl
import json
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Dict, Iterator, List

from .guest import Guest
from .host import LibvirtHost, remove_hosts

_HOST = "up"
#: Name, firmware, MiB of memory.
_GUESTS = (("lab-bios", "bios", 192), ("lab-uefi", "uefi", 256))


def up(directory: Path) -> Dict[str, Any]:
    """Start what does not run yet and wait until the guests are ready; returns what ``up.json`` says."""
    with _lock(directory):
        host = LibvirtHost(_HOST, directory / "hosts").start()
        there = {domain.name() for domain in host.connection.listAllDomains()}
        guests = []
        for name, firmware, memory in _GUESTS:
            if name in there:
                guest = Guest.adopt(host, name)
            else:
                guest = Guest.bootable(host, name, firmware=firmware, memory_mib=memory, networks=["labnet"])
            if not guest.active:
                guest.start()
            guests.append(guest)
        for guest in guests:
            guest.wait_ready()
        text = json.dumps(describe(host, guests), indent=2) + "\n"
        (directory / "up.json").write_text(text)
        host.close()
    return dict(json.loads(text))


def down(directory: Path) -> List[str]:
    """Stop everything that :func:`up` started and delete its disks; returns the names of the hosts."""
    with _lock(directory):
        (directory / "up.json").unlink(missing_ok=True)
        return remove_hosts(directory / "hosts")


def status(directory: Path) -> Dict[str, Any]:
    """What runs now, in the shape of ``up.json``; without hosts if nothing does."""
    host = LibvirtHost(_HOST, directory / "hosts")
    if host.pid is None:
        return {"schema": 1, "hosts": [], "guests": []}
    names = sorted(domain.name() for domain in host.connection.listAllDomains())
    return describe(host, [Guest.adopt(host, name) for name in names])


def describe(host: LibvirtHost, guests: List[Guest]) -> Dict[str, Any]:
    """Host and guests as plain data: URIs, sockets, paths."""
    return {
        "schema": 1,
        "hosts": [{"name": host.name, "uri": host.uri, "socket": str(host.socket), "directory": str(host.dir)}],
        "guests": [_describe_guest(guest) for guest in guests],
    }


def _describe_guest(guest: Guest) -> Dict[str, Any]:
    disks = [
        {"target": disk.target, "path": str(disk.path), "format": disk.format, "size_bytes": disk.size_bytes, "serial": disk.serial}
        for disk in guest.disks.values()
    ]
    firmware = guest.console.values("LAB FIRMWARE ")
    counter = guest.console.values("LAB COUNTER ")
    return {
        "name": guest.name,
        "uuid": guest.uuid,
        "uri": guest.host.uri,
        "active": guest.active,
        "firmware": firmware[-1] if firmware else "unknown",
        "counter": int(counter[-1]) if counter else 0,
        "serial_log": str(guest.console.log),
        "disks": disks,
    }


@contextmanager
def _lock(directory: Path) -> Iterator[None]:
    directory.mkdir(parents=True, exist_ok=True)
    with open(directory / "up.lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield
