# Copyright: (c) 2026, Sendense contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Hosts of the lab: private, side by side, and gone when stopped."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import libvirt
import pytest

from tests.lab.fixtures import remove_leftovers
from tests.lab.host import LibvirtHost
from tests.lab.paths import ROOT, LabError
from tests.lab.processes import wait_gone


def test_a_stopped_host_leaves_nothing(lab_base, guest_factory, host_factory):
    mounts = Path("/proc/self/mountinfo").read_text()
    host = host_factory()
    guest_factory(host=host, networks=["labnet"]).start(paused=True)
    pids = list(host.processes())
    bridges = os.listdir("/sys/class/net")
    assert len(pids) == 2
    assert any(name.startswith("lab") for name in bridges)

    host.stop()

    assert host.processes() == {}
    assert wait_gone(lambda: not any(_runs(pid) for pid in pids), 5)
    assert not host.dir.exists()
    assert Path("/proc/self/mountinfo").read_text() == mounts
    assert set(os.listdir("/sys/class/net")) < set(bridges)
    host.stop()


def test_two_hosts_run_side_by_side(host_factory, guest_factory):
    one, two = host_factory(), host_factory()
    left = guest_factory("web01", host=one).start(paused=True)
    right = guest_factory("web01", host=two).start(paused=True)
    assert one.uri != two.uri
    assert [domain.UUIDString() for domain in one.connection.listAllDomains()] == [left.uuid]
    assert [domain.UUIDString() for domain in two.connection.listAllDomains()] == [right.uuid]
    assert set(one.processes()).isdisjoint(two.processes())
    left.destroy()
    assert right.active


def test_guests_survive_libvirtd(host_factory, guest_factory):
    host = host_factory()
    guest = guest_factory(host=host).start(paused=True)
    pid, daemon = guest.qemu_pid, host.pid
    host.kill()
    assert host.pid is None
    with pytest.raises(libvirt.libvirtError):
        host.connect()
    host.start()
    assert host.pid != daemon
    assert guest.qemu_pid == pid
    guest.write("vda", 5, 0, 65536)
    host.restart()
    assert guest.active
    assert guest.qemu_pid == pid


def test_starting_a_running_host_keeps_it(host_factory):
    host = host_factory()
    pid = host.pid
    assert LibvirtHost(host.name, host.dir.parent).start().pid == pid


def test_what_a_killed_test_run_left_is_removed(tmp_path_factory):
    tests = ROOT / "build" / "lab" / "u"
    program = (
        "import os, sys; from pathlib import Path; from tests.lab.host import LibvirtHost; from tests.lab.guest import Guest\n"
        "from tests.lab.processes import start_ticks\n"
        f"base = Path({str(tests)!r}) / f'{{os.getpid()}}-{{start_ticks(os.getpid())}}'; base.mkdir(parents=True)\n"
        "host = LibvirtHost('h', base).start(); Guest.create(host, 'left').start(paused=True)\n"
        "print(*host.processes(), flush=True); sys.stdin.read()\n"
    )
    runner = subprocess.Popen([sys.executable, "-c", program], cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    with runner:
        pids = [int(pid) for pid in runner.stdout.readline().split()]
        assert remove_leftovers(tests) == [], "a living run was taken for a dead one"
        runner.send_signal(signal.SIGKILL)
    assert len(pids) == 2
    assert len(remove_leftovers(tests)) == 1
    assert wait_gone(lambda: not any(_runs(pid) for pid in pids), 5)
    tests.rmdir()


def test_a_path_too_long_for_a_socket_is_refused(tmp_path):
    with pytest.raises(LabError, match="too long"):
        LibvirtHost("h", tmp_path / ("x" * 100))


def _runs(pid: int) -> bool:
    """Whether a process runs; a zombie that its parent has not yet reaped does not."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False
