# Copyright: (c) 2026, Sendense contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

import os
import signal
import socket
import subprocess
import time

import pytest

from ansible_collections.sendense.platform.plugins.module_utils.datapath.export_table import ExportTable
from ansible_collections.sendense.platform.plugins.module_utils.datapath.exports import check_export, export_argv
from ansible_collections.sendense.platform.plugins.module_utils.errors import (
    DependencyMissingError,
    ExportFailedError,
    InvalidInputError,
)
from ansible_collections.sendense.platform.plugins.module_utils.hubstate.ports import PortPool
from ansible_collections.sendense.platform.plugins.module_utils.hubstate.processes import start_time
from tests.integration.keeper.conftest import FIRST, LAST, SIZE, eventually, node


def _uri(port, export="libvirt-1-disk0"):
    return f"nbd://127.0.0.1:{port}/{export}"


def _unix(path, export="libvirt-1-disk0"):
    return f"nbd+unix:///{export}?socket={path}"


def test_an_export_on_a_port_from_start_to_stop(start, image):
    started = start()
    table = ExportTable(started.state)
    assert (table.list(), table.count(), table.stop_port(FIRST)) == ([], 0, False)
    port = started.lease()[0]
    pid = started.serve(image, port=port, writable=True)
    check_export(_uri(port), SIZE)
    status = table.status(port)
    for name, value in (("port", port), ("job", started.job.job_id), ("machine", "libvirt-1"), ("export", "libvirt-1-disk0")):
        assert status[name] == value
    assert (status["pid"], status["state"], status["role"], status["name"]) == (pid, "running", "hub", "target-disk0")
    assert abs(status["started_at"] - time.time()) < 60
    assert table.is_active(port) and table.count() == 1
    assert started.client.child("target-disk0")["stderr_tail"] == ""
    assert table.metrics() == {"total": 1, "starting": 0, "running": 1, "dead": 0, "jobs": 1}
    assert table.stop_port(port) is True
    assert start_time(pid) is None
    assert table.list() == [] and not table.is_active(port) and table.stop_port(port) is False
    assert PortPool(started.state, FIRST, LAST).list() == []
    assert started.client.ping()["children"] == {}


def test_a_port_can_be_used_again_at_once(start, image):
    started = start()
    for _ in range(3):
        port = started.lease()[0]
        assert port == FIRST
        started.serve(image, port=port)
        check_export(_uri(port), SIZE)
        started.client.release_port(port)


def test_servers_on_sockets_are_listed_too_and_stopped_by_job(start, image):
    started, other = start(), start(role="node")
    port = started.lease()[0]
    started.serve(image, port=port)
    started.serve(image, socket=started.socket(), name="reread-disk0")
    other.serve(image, socket=other.socket(), name="source-disk0")
    check_export(_unix(started.socket()), SIZE)
    table = ExportTable(started.state)
    assert [(record["name"], record["port"]) for record in table.list()][0] == ("target-disk0", port)
    assert table.count() == 3 and table.metrics()["jobs"] == 2
    assert sorted(table.stop_job(started.job.job_id)) == ["reread-disk0", "target-disk0"]
    assert [record["name"] for record in table.list()] == ["source-disk0"]
    assert table.stop_job("f" * 32) == [] == table.stop_job("../../x")
    assert started.client.ping()["ports"] == []


def test_a_leased_port_without_a_server_can_be_given_back_too(start):
    started = start()
    ports = started.lease(3)
    table = ExportTable(started.state)
    assert table.stop_port(ports[0]) is True and table.stop_port(ports[0]) is False
    assert started.client.ping()["ports"] == ports[1:]
    assert table.stop_job(started.job.job_id) == []
    assert started.client.ping()["ports"] == []


def test_what_was_written_is_stored_when_a_stopped_server_says_so(start, image):
    started = start()
    port = started.lease()[0]
    started.serve(image, port=port, writable=True)
    subprocess.run(["qemu-io", "-f", "raw", "-c", "write -P 7 1M 64k", _uri(port)], check=True, stdout=subprocess.DEVNULL)
    assert started.client.stop("target-disk0") == 0
    assert started.client.stop("target-disk0") is None
    read = subprocess.run(["qemu-io", "-f", "qcow2", "-c", "read -P 7 1M 64k", image], capture_output=True, text=True, check=True)
    assert "verification failed" not in read.stdout


def test_ten_clients_and_not_eleven(start, image):
    started = start()
    started.serve(image, socket=started.socket())
    check_export(_unix(started.socket()), SIZE, connections=10)
    with pytest.raises(ExportFailedError, match="only 10 clients"):
        check_export(_unix(started.socket()), SIZE, connections=11, timeout_s=0.5)


def test_an_export_for_one_client_is_refused_and_never_a_hang(start, image):
    started = start()
    started.serve(image, socket=started.socket(), clients=1)
    before = time.monotonic()
    with pytest.raises(ExportFailedError, match="only 1 client ") as refused:
        check_export(_unix(started.socket()), SIZE, timeout_s=0.5)
    assert time.monotonic() - before < 5
    assert refused.value.details["admitted"] == 1


def test_another_size_or_name_is_refused(start, image):
    started = start()
    started.serve(image, socket=started.socket())
    with pytest.raises(ExportFailedError, match=f"{SIZE} bytes and {SIZE + 512} were expected"):
        check_export(_unix(started.socket()), SIZE + 512)
    with pytest.raises(ExportFailedError):
        check_export(_unix(started.socket(), "libvirt-1-disk1"), SIZE)


def test_no_server_a_deaf_one_and_a_stopped_one_are_errors_in_time(start, image, tmp_path):
    before = time.monotonic()
    with pytest.raises(ExportFailedError):
        check_export(_unix(tmp_path / "none.sock"), SIZE, ready_s=0.2)
    with socket.socket(socket.AF_UNIX) as deaf:
        deaf.bind(str(tmp_path / "deaf.sock"))
        deaf.listen(8)
        with pytest.raises(ExportFailedError):
            check_export(_unix(tmp_path / "deaf.sock"), SIZE, timeout_s=0.3)
    started = start()
    pid = started.serve(image, socket=started.socket())
    os.kill(pid, signal.SIGSTOP)
    with pytest.raises(ExportFailedError):
        check_export(_unix(started.socket()), SIZE, timeout_s=0.3)
    os.kill(pid, signal.SIGCONT)
    check_export(_unix(started.socket()), SIZE)
    assert time.monotonic() - before < 10


@pytest.mark.parametrize("uri", ["file:///etc/passwd", "nbd://127.0.0.1:0/x", "nbd://user@127.0.0.1/x", "json:{}", "nbds://127.0.0.1/x"])
def test_addresses_that_are_none(uri):
    with pytest.raises(InvalidInputError):
        check_export(uri, SIZE)


def test_a_server_that_begins_late_is_waited_for(image, tmp_path):
    path = str(tmp_path / "late.sock")
    argv, _env = export_argv(node(image), export="x", socket=path)
    late = subprocess.Popen(["sh", "-c", 'sleep 0.5; exec "$@"', "sh", *argv])
    try:
        check_export(_unix(path, "x"), SIZE)
    finally:
        late.terminate()
        late.wait()


def test_an_export_that_cannot_start_says_why(start, image):
    started = start()
    port = started.lease()[0]
    with open(image, "r+b") as stream:
        stream.write(b"none")
    with pytest.raises(ExportFailedError, match="ended with exit code 1: .*qcow2"):
        started.serve(image, port=port)
    assert ExportTable(started.state).list() == []
    assert started.client.ping()["ports"] == [port]
    assert started.client.child("target-disk0")["state"] == "absent"
    with open(os.path.join(started.job.path, "target-disk0.err"), encoding="utf-8") as stream:
        assert "not in qcow2 format" in stream.read()


def test_what_listens_but_is_no_nbd_server_is_not_started(start):
    started = start()
    port = started.lease()[0]
    script = f"import socket; s = socket.create_server(('127.0.0.1', {port})); c, a = s.accept(); c.sendall(b'HTTP/1.1 200 OK' * 9)"
    with pytest.raises(ExportFailedError, match="ended with exit code 0"):
        started.client.start("x", ["/usr/bin/python3", "-c", script], record={"port": port, "export": "x"})


def test_a_program_that_is_not_installed(start):
    started = start()
    with pytest.raises(DependencyMissingError, match="no-such-server"):
        started.client.start("x", ["no-such-server"], kind="mover")
    assert started.client.child("x")["state"] == "absent"


def test_only_own_ports_are_served(start, image):
    started, other = start(), start()
    port = other.lease()[0]
    for foreign in (port, 22):
        with pytest.raises(InvalidInputError, match="not leased"):
            started.serve(image, port=foreign)
    assert started.client.release_port(port) is False
    assert other.client.ping()["ports"] == [port]


def test_a_dead_server_is_noticed_within_a_second(start, image):
    started = start()
    port = started.lease()[0]
    pid = started.serve(image, port=port)
    os.kill(pid, signal.SIGKILL)
    path = os.path.join(started.state.exports, f"{port}.json")

    def noticed():
        with open(path, encoding="ascii") as stream:
            return '"dead"' in stream.read()

    eventually(noticed, 1.0)
    table = ExportTable(started.state)
    assert table.status(port)["state"] == "dead" and not table.is_active(port)
    assert table.metrics()["dead"] == 1
    child = started.client.child("target-disk0")
    assert (child["state"], child["returncode"]) == ("exited", -signal.SIGKILL)
    assert started.client.stop("target-disk0") == -signal.SIGKILL
    assert table.list() == []


def test_children_tell_their_end(start):
    started = start()
    started.client.start("copy", ["sh", "-c", "echo last words >&2; exit 3"], kind="mover", env={"X": "1"})
    child = eventually(lambda: (lambda c: c["state"] == "exited" and c)(started.client.child("copy")))
    assert (child["returncode"], child["stderr_tail"]) == (3, "last words")
    assert started.client.ping()["children"]["copy"]["state"] == "exited"
    started.client.start("copy", ["sleep", "60"], kind="mover")
    with pytest.raises(InvalidInputError, match="runs already"):
        started.client.start("copy", ["sleep", "60"], kind="mover")
    with pytest.raises(InvalidInputError, match="kind"):
        started.client.start("other", ["true"], kind="shell")


def test_a_child_that_ignores_term_is_killed_after_five_seconds_and_nobody_waits_for_it(start):
    started = start()
    script = 'trap "" TERM; echo deaf >&2; while :; do sleep 60; done'
    pid = started.client.start("deaf", ["/bin/sh", "-c", script], kind="verifier")
    eventually(lambda: started.client.child("deaf")["stderr_tail"] == "deaf")
    before = time.monotonic()
    with socket.socket(socket.AF_UNIX) as caller:
        caller.settimeout(20)
        caller.connect(started.job.socket_path)
        caller.sendall(b'{"op": "stop", "names": ["deaf"]}\n')
        asked = time.monotonic()
        started.client.ping()
        assert time.monotonic() - asked < 2
        answer = caller.recv(4096)
    assert b'"returncodes": {"deaf": -9}' in answer
    assert 4.8 <= time.monotonic() - before < 9
    assert start_time(pid) is None


def test_children_are_stopped_at_the_same_time(start):
    started = start()
    script = 'trap "sleep 1; exit 4" TERM; echo slow >&2; while :; do sleep 0.05; done'
    names = [f"slow{number}" for number in range(6)]
    for name in names:
        started.client.start(name, ["/bin/sh", "-c", script], kind="verifier")
    for name in names:
        eventually(lambda name=name: started.client.child(name)["stderr_tail"] == "slow")
    before = time.monotonic()
    assert started.client.stop_all([*names, "absent"]) == dict.fromkeys(names, 4) | {"absent": None}
    assert 1.0 <= time.monotonic() - before < 4.0
    assert started.client.ping()["children"] == {} and started.client.stop_all([]) == {}


def test_a_connection_by_tcp_does_not_wait_for_delayed_acknowledgements(start, image):
    started = start()
    port = started.lease()[0]
    started.serve(image, port=port)

    def seconds():
        before = time.monotonic()
        check_export(_uri(port), SIZE, connections=1)
        return time.monotonic() - before

    assert min(seconds() for _number in range(10)) < 0.03, "the kernel delays an acknowledgement by 40 ms"


def test_the_server_takes_the_measured_memory_settings(start, image):
    started = start()
    pid = started.serve(image, socket=started.socket())
    with open(f"/proc/{pid}/environ", "rb") as stream:
        environment = stream.read().split(b"\0")
    assert b"MALLOC_ARENA_MAX=1" in environment and b"MALLOC_MMAP_THRESHOLD_=8388608" in environment
