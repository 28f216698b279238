# Copyright: (c) 2026, Sendense contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A foreign program takes a port between its lease and the start of its server."""

from __future__ import annotations

import socket
import subprocess
from contextlib import ExitStack

import pytest

from ansible_collections.sendense.platform.plugins.module_utils.datapath.export_table import ExportTable
from ansible_collections.sendense.platform.plugins.module_utils.datapath.exports import check_export
from ansible_collections.sendense.platform.plugins.module_utils.errors import PortBusyError
from ansible_collections.sendense.platform.plugins.module_utils.hubstate.ports import PortPool
from ansible_collections.sendense.platform.plugins.module_utils.jobs.exports import SERVE_PORTS, lease, serve
from ansible_collections.sendense.platform.plugins.module_utils.jobs.place import JobPlace
from tests.integration.keeper.conftest import FIRST, LAST, SIZE, node

PARAMS = {"node": "node1", "port_wait": 0}
KEYS = ["disk0", "disk1"]


@pytest.fixture
def images(tmp_path):
    found = {key: node(str(tmp_path / f"{key}.qcow2")) for key in KEYS}
    for image in found.values():
        subprocess.run(["qemu-img", "create", "-q", "-f", "qcow2", image["file"]["filename"], str(SIZE)], check=True)
    return found


@pytest.fixture
def foreign():
    """Listen on ports of the pool, as a program that knows nothing of it."""
    with ExitStack() as stack:
        yield lambda port: stack.enter_context(socket.create_server(("127.0.0.1", port)))


def _place(started):
    return JobPlace(started.state, started.job, started.client, started.agent)


def _serve(place, images, ports):
    return serve(place, images, dict.fromkeys(KEYS, SIZE), ports, PARAMS, writable=True)


def test_the_keeper_says_that_the_port_is_taken(start, image, foreign):
    started = start()
    port = started.lease()[0]
    foreign(port)
    with pytest.raises(PortBusyError, match=f"port {port} .*in use") as refused:
        started.serve(image, port=port)
    assert (refused.value.retryable, refused.value.details["port"]) == (True, port)
    assert ExportTable(started.state).list() == []


def test_another_port_is_taken_and_the_busy_one_given_back(start, images, foreign):
    started = start()
    place = _place(started)
    ports = lease(place, KEYS, PARAMS)
    assert ports == {"disk0": FIRST, "disk1": FIRST + 1}
    foreign(FIRST)
    exports = _serve(place, images, ports)
    assert [(export["key"], export["port"]) for export in exports] == [("disk0", FIRST + 2), ("disk1", FIRST + 1)]
    assert [export["uri"].split("/")[2] for export in exports] == [f"127.0.0.1:{FIRST + 2}", f"127.0.0.1:{FIRST + 1}"]
    for export in exports:
        check_export(export["uri"], SIZE)
    assert [entry["port"] for entry in PortPool(started.state, FIRST, LAST).list()] == [FIRST + 1, FIRST + 2]


def test_a_pool_whose_free_ports_are_all_busy_is_a_typed_error(start, images, foreign):
    started = start(last=FIRST + 3)
    place = _place(started)
    ports = lease(place, KEYS, PARAMS)
    for port in (FIRST, FIRST + 2, FIRST + 3):
        foreign(port)
    with pytest.raises(PortBusyError, match="no other port") as refused:
        _serve(place, images, ports)
    assert refused.value.retryable is True
    assert started.client.ping()["children"] == {}


def test_tries_are_bounded(start, images, foreign, monkeypatch):
    """Somebody takes every port as soon as it is leased."""
    started = start()
    place = _place(started)
    ports = lease(place, KEYS, PARAMS)
    foreign(ports["disk0"])
    leased, ask = [ports["disk0"]], started.client.lease_ports

    def ask_and_lose(wanted, wait_s):
        found = ask(wanted, wait_s)
        leased.extend(found)
        foreign(found[0])
        return found

    monkeypatch.setattr(place.client, "lease_ports", ask_and_lose)
    with pytest.raises(PortBusyError):
        _serve(place, images, ports)
    assert len(leased) == SERVE_PORTS
    assert started.client.ping()["ports"] == [ports["disk1"], leased[-1]]
