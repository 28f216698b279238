# Copyright: (c) 2026, Sendense contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Calls into a platform that hangs, dies, fails or is no longer wanted: they end, and so do their processes."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path
from typing import Any, Callable, Dict, Iterator

import pytest

from ansible_collections.sendense.platform.plugins.module_utils.errors import (
    JobNotFoundError,
    MachineNotFoundError,
    PlatformUnreachableError,
    SendenseError,
)
from ansible_collections.sendense.platform.plugins.module_utils.hubstate.processes import start_time
from ansible_collections.sendense.platform.plugins.module_utils.platforms import registry
from ansible_collections.sendense.platform.plugins.module_utils.platforms.bounded import within
from ansible_collections.sendense.platform.plugins.module_utils.platforms.libvirt.discovery import HANGS_SECONDS
from tests.contract.libvirt_lab import LibvirtSourceLab, tiny_disks
from tests.lab.guest import Guest
from tests.lab.host import LibvirtHost

JOB, OWNER = "a" * 32, "0" * 8
LIMIT_SECONDS = 1.5


def noting(path: Path, then: Callable[[], Any]) -> Callable[[], Any]:
    """Write down the process that does the work."""

    def work() -> Any:
        path.write_text(str(os.getpid()))
        return then()

    return work


def stop_itself() -> None:
    os.kill(os.getpid(), signal.SIGSTOP)


def test_what_is_done_in_time_is_returned(tmp_path: Path) -> None:
    assert within(5, "Asking", noting(tmp_path / "pid", lambda: {"disks": [1, "ü"]})) == {"disks": [1, "ü"]}
    assert start_time(int((tmp_path / "pid").read_text())) is None
    assert int((tmp_path / "pid").read_text()) != os.getpid()


def test_an_answer_may_be_long() -> None:
    assert within(5, "Asking", lambda: "x" * (1 << 20)) == "x" * (1 << 20)


def test_a_typed_error_stays_what_it_is() -> None:
    def fail() -> None:
        raise MachineNotFoundError("There is none.", details={"machine_id": "1"})

    with pytest.raises(MachineNotFoundError, match=r"There is none\.") as raised:
        within(5, "Asking", fail)
    assert raised.value.details == {"machine_id": "1"}


def test_a_defect_is_told_with_its_traceback() -> None:
    with pytest.raises(SendenseError, match="Unexpected ZeroDivisionError") as raised:
        within(5, "Asking", lambda: 1 // 0)
    assert raised.value.error_code == "INTERNAL_ERROR" and "in <lambda>" in raised.value.details["traceback"]


@pytest.mark.parametrize("hang", [stop_itself, lambda: time.sleep(60)], ids=["stopped", "asleep"])
def test_what_hangs_is_killed_in_time(tmp_path: Path, hang: Callable[[], Any]) -> None:
    begun = time.monotonic()
    with pytest.raises(PlatformUnreachableError, match=r"Ending machine 7 did not end within 0\.5 s.*Its job stays\.") as raised:
        within(0.5, "Ending machine 7", noting(tmp_path / "pid", hang), "Its job stays.")
    assert 0.5 <= time.monotonic() - begun < 5
    assert raised.value.retryable and raised.value.details == {"limit_s": 0.5}
    assert start_time(int((tmp_path / "pid").read_text())) is None


def test_a_process_that_is_killed_is_no_answer() -> None:
    with pytest.raises(PlatformUnreachableError, match="its process was killed"):
        within(5, "Asking", lambda: os.kill(os.getpid(), signal.SIGKILL))


def test_work_that_nobody_wants_any_more_is_killed(tmp_path: Path) -> None:
    def gone() -> None:
        if (tmp_path / "pid").exists():
            raise JobNotFoundError("The job is gone.")

    begun = time.monotonic()
    with pytest.raises(JobNotFoundError):
        within(30, "Asking", noting(tmp_path / "pid", lambda: time.sleep(60)), meanwhile=gone)
    assert time.monotonic() - begun < 10
    assert start_time(int((tmp_path / "pid").read_text())) is None


def test_the_work_dies_with_its_caller(tmp_path: Path) -> None:
    caller = os.fork()
    if caller == 0:
        try:
            within(60, "Asking", noting(tmp_path / "pid", lambda: time.sleep(60)))
        finally:
            os._exit(0)
    deadline = time.monotonic() + 10
    while not (tmp_path / "pid").exists() or not (tmp_path / "pid").read_text():
        assert time.monotonic() < deadline
        time.sleep(0.02)
    os.kill(caller, signal.SIGKILL)
    os.waitpid(caller, 0)
    while start_time(int((tmp_path / "pid").read_text())) is not None:
        assert time.monotonic() < deadline
        time.sleep(0.02)


@pytest.fixture
def hung(libvirt_host: LibvirtHost) -> Iterator[LibvirtSourceLab]:
    guest = Guest.create(libvirt_host, "hung", disks=tiny_disks()).start(paused=True)
    lab = LibvirtSourceLab(guest)
    yield lab
    os.kill(guest.qemu_pid, signal.SIGCONT)
    within(30, "Describing it", lambda: described(lab))
    lab.remove()
    guest.remove()


def described(lab: LibvirtSourceLab) -> Dict[str, Any]:
    with registry.source("libvirt", lab.connection) as source:
        return source.machine(lab.machine_id).to_dict()


def test_a_machine_whose_qemu_hangs_is_left_in_time_and_ended_when_it_goes_on(hung: LibvirtSourceLab) -> None:
    def close() -> Any:
        with registry.source("libvirt", hung.connection) as source:
            return source.close_snapshot(hung.machine_id, JOB, OWNER, False, [])

    os.kill(hung.guest.qemu_pid, signal.SIGSTOP)
    begun = time.monotonic()
    with pytest.raises(PlatformUnreachableError) as raised:
        within(LIMIT_SECONDS, "Ending the snapshot", close)
    assert raised.value.details == {"limit_s": LIMIT_SECONDS}
    assert time.monotonic() - begun < LIMIT_SECONDS + 5
    os.kill(hung.guest.qemu_pid, signal.SIGCONT)
    assert within(30, "Ending the snapshot", close) == []


def test_the_machines_beside_one_that_hangs_are_found(hung: LibvirtSourceLab) -> None:
    before = {machine.id: machine for machine in registry.discover("libvirt", hung.connection)}
    os.kill(hung.guest.qemu_pid, signal.SIGSTOP)
    begun = time.monotonic()
    # The first look is given up; by then libvirt knows that qemu does not answer, and the second one does not ask it.
    found = {machine.id: machine for machine in registry.discover("libvirt", hung.connection, limit_s=HANGS_SECONDS + 2)}
    assert time.monotonic() - begun < HANGS_SECONDS + 8
    assert set(found) == set(before)
    machine = found.pop(hung.machine_id)
    assert (machine.name, [disk.size_bytes for disk in machine.disks]) == ("hung", [0, 0, 0])
    assert found == {machine_id: machine for machine_id, machine in before.items() if machine_id != hung.machine_id}
