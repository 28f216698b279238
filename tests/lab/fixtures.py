# Copyright: (c) 2026, Sendense contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""pytest fixtures for tests that need a libvirt host; a conftest.py imports the ones that it needs by name.

    from tests.lab.fixtures import guest_factory, lab_base, libvirt_host  # noqa: F401

Hosts live in ``build/lab/t/<pid>-<start time>``; what a killed run left is removed when the next one starts.
"""

from __future__ import annotations

import itertools
import os
import shutil
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Callable, Iterator, List, Optional

import pytest

from .guest import Guest
from .host import LibvirtHost, remove_hosts
from .paths import BUILD
from .processes import alive, start_ticks

_TESTS = BUILD / "t"
_numbers = itertools.count(1)


@contextmanager
def lab_directory() -> Iterator[Path]:
    """A directory for the hosts of this process; its path is short enough for sockets. Nothing of it is left afterwards."""
    remove_leftovers(_TESTS)
    base = _TESTS / f"{os.getpid()}-{start_ticks(os.getpid())}"
    base.mkdir(parents=True, exist_ok=True)
    try:
        yield base
    finally:
        # Every conftest.py that imports the fixture below has its own, on the same directory: the first one to end removes it.
        remove_hosts(base)
        shutil.rmtree(base, ignore_errors=True)


@pytest.fixture(scope="session")
def lab_base() -> Iterator[Path]:
    """A directory for the hosts of this test run."""
    with lab_directory() as base:
        yield base


@pytest.fixture(scope="session")
def libvirt_host(lab_base: Path) -> Iterator[LibvirtHost]:
    """A running host shared by all tests of the session."""
    with LibvirtHost(f"h{next(_numbers)}", lab_base) as host:
        yield host


@pytest.fixture
def host_factory(lab_base: Path) -> Iterator[Callable[[], LibvirtHost]]:
    """Makes hosts of the test's own, for tests that kill libvirtd or need two; stopped after the test."""
    made: List[LibvirtHost] = []

    def make() -> LibvirtHost:
        host = LibvirtHost(f"h{next(_numbers)}", lab_base)
        made.append(host)
        return host.start()

    yield make
    for host in made:
        host.stop()


@pytest.fixture
def guest_factory(libvirt_host: LibvirtHost) -> Iterator[Callable[..., Guest]]:
    """Makes guests (see ``Guest.create``; ``boots=True``: ``Guest.bootable``), on ``libvirt_host`` unless told otherwise.

    After the test no machine is left on that host, whoever defined it.
    """
    hosts = [libvirt_host]

    def make(name: Optional[str] = None, *, host: LibvirtHost = libvirt_host, boots: bool = False, **options: Any) -> Guest:
        hosts.append(host)
        create = Guest.bootable if boots else Guest.create
        return create(host, name or f"guest{next(_numbers)}", **options)

    yield make
    for host in {host.name: host for host in hosts}.values():
        if host.pid is not None:
            host.remove_guests()


@pytest.fixture
def paused_guest(guest_factory: Callable[..., Guest]) -> Guest:
    """A guest with three small empty disks whose qemu runs and whose processor never does: block I/O in 0.3 s."""
    return guest_factory().start(paused=True)


def remove_leftovers(tests: Path) -> List[str]:
    """Remove the hosts of test runs whose process is dead; returns the directories."""
    removed = []
    for base in sorted(tests.iterdir()) if tests.is_dir() else []:
        pid, _, started = base.name.partition("-")
        if not pid.isdigit() or alive(int(pid), started):
            continue
        remove_hosts(base)
        shutil.rmtree(base)
        removed.append(base.name)
    return removed
