# Copyright: (c) 2026, Sendense contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Machines of the lab that share nothing but cables, which can be pulled, and plugs, too."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import pytest

from tests.lab.paths import ROOT, LabError
from tests.lab.places import CONTROLLER, HUB, NODE, Place, Places, kill_entered
from tests.lab.processes import start_ticks


@pytest.fixture(scope="module")
def places():
    with tempfile.TemporaryDirectory(prefix="sl-") as directory:
        made = Places(Path(directory)).start()
        yield made
        made.stop()


@pytest.fixture(autouse=True)
def whole(places):
    """What a test broke is mended after it."""
    yield
    places.start()


def ssh(places: Places, to: Place, *command: str, by: Place | None = None) -> str:
    """Run a command at another machine, as its role allows."""
    by = by or places.controller
    argv = ["ssh", "-F", "none", "-o", "BatchMode=yes", "-o", "ConnectTimeout=4", "-i", str(by.key)]
    argv += ["-o", f"UserKnownHostsFile={by.directory}/known_hosts", f"root@{places.network.address(to.name, by.name)}"]
    return by.run(*argv, *command)


def test_the_controller_reaches_both_others_by_ssh(places):
    for place in (places.hub, places.node):
        checkout = set(ROOT.relative_to("/tmp").parts[:1]) if ROOT.is_relative_to("/tmp") else set()  # holds parts of the lab
        assert set(ssh(places, place, "ls", "/tmp").split()) - checkout == {places.directory.name}
        assert ssh(places, place, "ls", str(places.directory)).split() == [place.name]


def test_no_machine_sees_the_checkout_or_what_the_others_have(places):
    for place in (places.hub, places.node):
        assert not ssh(places, place, "ls", "-A", str(ROOT)).split().count("plugins")
        assert "cannot open" in ssh(places, place, f"cat {places.controller.key} 2>&1 || echo cannot open")
        assert "No module named ansible" in ssh(places, place, "/usr/bin/python3 -m ansible 2>&1 || true")


def test_a_machine_has_processes_and_listeners_of_its_own(places):
    assert set(places.hub.processes()).isdisjoint(places.node.processes())
    for place in places.all.values():
        listening = place.run("ss", "-Htln").splitlines()
        assert [line.split()[3] for line in listening] == ["0.0.0.0:22"]


@pytest.mark.parametrize("cable", [(CONTROLLER, HUB), (CONTROLLER, NODE)])
def test_a_pulled_cable_separates_two_machines_until_it_is_plugged_in(places, cable):
    one, other = (places.all[name] for name in cable)
    third = next(place for place in (places.hub, places.node) if place is not other)
    places.network.cut(*cable)
    with pytest.raises(LabError, match="No route to host|timed out"):
        ssh(places, other, "true", by=one)
    ssh(places, third, "true")
    places.network.mend(*cable)
    ssh(places, other, "true", by=one)


def test_a_connection_across_a_pulled_cable_hears_nothing(places):
    address = places.network.address(HUB, CONTROLLER)
    argv = ["ssh", "-F", "none", "-o", "BatchMode=yes", "-i", str(places.controller.key), "-o", "ServerAliveInterval=1"]
    argv += ["-o", f"UserKnownHostsFile={places.controller.directory}/known_hosts", f"root@{address}", "echo ready; sleep 60"]
    with subprocess.Popen(places.controller.entered(argv), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None and process.stdout.readline() == "ready\n"
        places.network.cut(CONTROLLER, HUB)
        began = time.monotonic()
        assert process.wait(30) == 255
        assert time.monotonic() - began > 1.5


def test_killing_a_machine_kills_everything_in_it_and_it_can_be_started_again(places):
    ssh(places, places.node, "setsid sleep 1000 >/dev/null 2>&1 </dev/null & exit 0")
    inside = places.node.processes()
    assert any(b"sleep" in Path(f"/proc/{pid}/cmdline").read_bytes() for pid in inside)
    (places.node.directory / "on-disk").write_text("kept")
    places.node.kill()
    assert not any(start_ticks(pid) == began for pid, began in inside.items())
    with pytest.raises(LabError, match="Connection refused"):
        ssh(places, places.node, "true")
    with pytest.raises(LabError, match="switched off"):
        places.node.run("true")
    places.start()
    assert ssh(places, places.node, "cat", str(places.node.directory / "on-disk")) == "kept"


def test_the_node_reaches_the_hub_for_forwards_alone(places):
    known = places.node.directory / "known_hosts"
    known.write_text(f"{places.network.address(HUB, NODE)} {places.hub.sshd.host_key}\n")
    places.network.cut(CONTROLLER, HUB)  # it has a cable of its own
    argv = ["ssh", "-F", "none", "-o", "BatchMode=yes", "-i", str(places.node.key), "-o", f"UserKnownHostsFile={known}"]
    argv += ["-o", "ExitOnForwardFailure=yes", "-L", f"{places.node.directory}/forward:127.0.0.1:{10100}", "-N"]
    process = subprocess.Popen(places.node.entered([*argv, f"root@{places.network.address(HUB, NODE)}"]))
    try:
        deadline = time.monotonic() + 10
        while not (places.node.directory / "forward").exists():
            assert process.poll() is None and time.monotonic() < deadline
            time.sleep(0.05)
    finally:
        kill_entered(process)
    assert ssh_fails(places, known)


def ssh_fails(places: Places, known: Path) -> bool:
    """Whether a command at the hub is refused to the node's key."""
    argv = ["ssh", "-F", "none", "-o", "BatchMode=yes", "-i", str(places.node.key), "-o", f"UserKnownHostsFile={known}"]
    done = subprocess.run(
        places.node.entered([*argv, f"root@{places.network.address(HUB, NODE)}", "true"]), capture_output=True, check=False
    )
    return done.returncode != 0


def test_nothing_is_left_when_whoever_started_the_machines_is_killed(tmp_path):
    code = (
        "import sys, time; from pathlib import Path; from tests.lab.places import Places;"
        "made = Places(Path(sys.argv[1])).start(); print([pid for place in made.all.values() for pid in place.processes()], flush=True);"
        "time.sleep(60)"
    )
    environ = dict(os.environ, PYTHONPATH=str(ROOT))
    with subprocess.Popen([sys.executable, "-c", code, str(tmp_path)], stdout=subprocess.PIPE, text=True, env=environ) as process:
        assert process.stdout is not None
        pids = {pid: start_ticks(pid) for pid in numbers(process.stdout.readline())}
        assert len(pids) >= 6 and all(pids.values())
        process.send_signal(signal.SIGKILL)
        process.wait()
    deadline = time.monotonic() + 10
    while any(start_ticks(pid) == began for pid, began in pids.items()):
        assert time.monotonic() < deadline
        time.sleep(0.05)


def numbers(text: str) -> list[int]:
    """The numbers of a printed list."""
    return [int(word) for word in text.strip("[]\n").split(",")]
