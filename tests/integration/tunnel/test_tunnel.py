# Copyright: (c) 2026, Sendense contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A tunnel is made, proven and refused before anything is touched, and leads to the exports of the hub."""

from __future__ import annotations

import os
import socket
import stat
import subprocess
import threading

import pytest
import yaml

from ansible_collections.sendense.platform.plugins.module_utils.datapath import tunnel
from ansible_collections.sendense.platform.plugins.module_utils.datapath.exports import check_export
from ansible_collections.sendense.platform.plugins.module_utils.datapath.targets import parse_uri
from ansible_collections.sendense.platform.plugins.module_utils.datapath.tunnel_options import CIPHERS, parse_options
from ansible_collections.sendense.platform.plugins.module_utils.errors import ExportFailedError, InvalidInputError, TunnelFailedError
from ansible_collections.sendense.platform.plugins.module_utils.hubstate.machine import network
from ansible_collections.sendense.platform.plugins.module_utils.hubstate.ports import LAST_PORT
from ansible_collections.sendense.platform.plugins.module_utils.jobs import tunnelling
from ansible_collections.sendense.platform.plugins.module_utils.jobs.tunnelling import carry, dig, needed, rehearsed
from tests.e2e.site import ROOT
from tests.integration.tunnel.conftest import PORT, RESTRICTED, SIZE, Hub, random_file, ssh_processes
from tests.lab.sshd import make_key


@pytest.mark.parametrize("cipher", CIPHERS)
def test_exports_of_the_hub_are_reached_through_unix_sockets_of_the_job(hub, params, job, tmp_path, cipher):
    image = random_file(tmp_path / "disk.raw")
    uris = {f"disk{number}": hub.serve(f"vm disk{number}", 10150 + number, image, "--read-only") for number in (0, 1)}
    place = job()
    said = dig(place, needed(dict(params, tunnel=dict(hub.options, cipher=cipher))))
    assert said == {"host": "127.0.0.1", "port": PORT, "user": "root", "cipher": cipher}
    near = carry(place, uris, dict.fromkeys(uris, SIZE))
    for key, uri in near.items():
        target = parse_uri(uri)
        assert (target.export, os.path.dirname(target.socket)) == (f"vm {key}", place.job.path)
        assert stat.S_IMODE(os.stat(target.socket).st_mode) == 0o600
        check_export(uri, SIZE)
    assert [child["kind"] for child in place.job.children()] == ["tunnel"]
    [ssh] = ssh_processes(params["state_dir"])
    assert place.job.children()[0]["pid"] == ssh
    place.finish()
    assert ssh_processes(params["state_dir"]) == []


def test_one_ssh_leads_to_all_ports_of_the_pool(hub, params, job, tmp_path):
    image = random_file(tmp_path / "disk.raw", 1 << 20)
    uri = hub.serve("vm", 10200, image, "--read-only", "--shared=300")
    place = job()
    dig(place, needed(dict(params, tunnel=hub.options)))
    near = carry(place, {f"disk{number}": uri for number in range(101)}, {f"disk{number}": 1 << 20 for number in range(101)})
    sockets = {parse_uri(uri).socket for uri in near.values()}
    assert len(sockets) == 101 and all(stat.S_ISSOCK(os.stat(path).st_mode) for path in sockets)
    assert len(ssh_processes(params["state_dir"])) == 1


def test_known_hosts_of_the_node_are_as_good_as_a_key_in_the_inventory(hub, params, tmp_path):
    options = dict(hub.options, host_key=None, known_hosts_file=str(hub.sshd.known_hosts(tmp_path / "known_hosts")))
    assert rehearsed(needed(dict(params, tunnel=options)))["port"] == PORT


def test_the_how_to_sets_up_a_hub_that_lets_the_data_pass_and_nothing_else(params, tmp_path):
    page = (ROOT / "docs" / "how-to" / "three-places.md").read_text()
    block = page.split("```sshd_config\n")[1].split("```")[0].replace("User sendense", "User root")
    (tmp_path / "sshd_config").write_text("".join(f"{line}\n" for line in block.splitlines() if not line.strip().startswith("Port")))
    assert f"{RESTRICTED} ssh-ed25519 " in page and "   Port 443\n" in page
    hub = Hub(tmp_path, [f"Include {tmp_path}/sshd_config"])
    with hub.sshd:
        assert rehearsed(needed(dict(params, tunnel=hub.options)))["user"] == "root"
        argv = tunnel.master_argv(parse_options(hub.options), str(tmp_path))
        argv.remove("-N")
        done = subprocess.run(
            [*argv[:-2], "-o", "ControlMaster=no", "127.0.0.1", "id"], capture_output=True, text=True, timeout=30, check=False
        )
        assert done.returncode == 255 and done.stdout == "", "a command ran through the node's key"


def test_the_example_of_three_places_describes_a_tunnel():
    example = yaml.safe_load((ROOT / "inventories" / "three-places" / "hosts.yml").read_text())
    given = example["sendense_hubs"]["hosts"]["hub01"]["sendense_tunnel"]
    assert parse_options(given).describe() == {"host": "hub01.example.com", "port": 443, "user": "sendense", "cipher": CIPHERS[0]}


def test_the_loopback_is_used_where_it_is_the_hubs_own(params, job):
    assert needed(dict(params, hub_network=network(), tunnel={})) is None
    place = job()
    assert dig(place, None) == rehearsed(None) == {}
    assert carry(place, {"disk0": "nbd://127.0.0.1:10100/vm"}, {"disk0": 1}) == {"disk0": "nbd://127.0.0.1:10100/vm"}


def test_what_is_missing_is_said_before_anything_is_begun(params, tmp_path):
    with pytest.raises(InvalidInputError, match="different machines.*sendense_tunnel for the hub"):
        needed(dict(params, tunnel={"port": 22, "host": None, "cipher": CIPHERS[0]}))
    make_key(tmp_path / "id")
    absent = {"host": "h", "user": "u", "identity_file": str(tmp_path / "absent"), "host_key": make_key(tmp_path / "id")}
    with pytest.raises(InvalidInputError, match=r"identity_file .*/absent does not exist at this node"):
        rehearsed(needed(dict(params, tunnel=absent)))


def test_another_server_in_the_place_of_the_hub_is_refused(hub, params, job, tmp_path):
    options = dict(hub.options, host_key=make_key(tmp_path / "other"))
    with pytest.raises(TunnelFailedError, match="Host key verification failed.*compare host_key") as caught:
        dig(job(), needed(dict(params, tunnel=options)))
    assert not caught.value.retryable and caught.value.error_code == "TUNNEL_FAILED"


def test_a_key_that_others_can_read_is_refused_by_name(hub, params, job):
    hub.key.chmod(0o644)
    with pytest.raises(TunnelFailedError, match="chmod 600") as caught:
        dig(job(), needed(dict(params, tunnel=hub.options)))
    assert not caught.value.retryable


def test_a_key_that_the_hub_does_not_know_is_refused(hub, params, job, tmp_path):
    make_key(tmp_path / "stranger")
    with pytest.raises(TunnelFailedError, match="Permission denied.*authorized_keys of that user") as caught:
        dig(job(), needed(dict(params, tunnel=dict(hub.options, identity_file=str(tmp_path / "stranger")))))
    assert not caught.value.retryable


@pytest.mark.parametrize("restriction", ["restrict", 'restrict,port-forwarding,permitopen="127.0.0.1:1"', "no-port-forwarding"])
def test_a_hub_that_lets_nothing_pass_is_found_out_beforehand(hub, params, job, restriction):
    hub.permit(restriction)
    with pytest.raises(TunnelFailedError, match="administratively prohibited.*permitopen=") as caught:
        dig(job(), needed(dict(params, tunnel=hub.options)))
    assert not caught.value.retryable


def test_a_hub_that_does_not_answer_is_worth_another_try(hub, params, job, monkeypatch):
    monkeypatch.setattr(tunnel, "CONNECT_SECONDS", 1)
    hub.sshd.stop()
    with pytest.raises(TunnelFailedError, match="Connection refused") as caught:
        dig(job(), needed(dict(params, tunnel=hub.options)))
    assert caught.value.retryable
    with socket.create_server(("127.0.0.1", PORT)), pytest.raises(TunnelFailedError, match="timed out") as caught:
        rehearsed(needed(dict(params, tunnel=hub.options)))
    assert caught.value.retryable


def test_a_hub_that_is_busy_with_other_connections_is_asked_again(params, job, tmp_path):
    place, hub = job(), Hub(tmp_path, ["PerSourceMaxStartups 1"])
    with hub.sshd:
        crowd = socket.create_connection(("127.0.0.1", PORT))  # it never says who it is
        assert crowd.recv(4) == b"SSH-"
        leaving = threading.Timer(1.5, crowd.close)
        leaving.start()
        assert dig(place, needed(dict(params, tunnel=hub.options)))["host"] == "127.0.0.1"
        leaving.join()
        assert "drop connection" in hub.sshd.log.read_text()


def test_check_mode_makes_the_connection_and_leaves_nothing(hub, params, state, monkeypatch):
    monkeypatch.setattr(tunnelling, "TEMPORARY", state.leases)
    assert rehearsed(needed(dict(params, tunnel=hub.options)))["host"] == "127.0.0.1"
    hub.permit("restrict")
    with pytest.raises(TunnelFailedError, match="prohibited"):
        rehearsed(needed(dict(params, tunnel=hub.options)))
    assert os.listdir(state.leases) == os.listdir(state.jobs) == ssh_processes(state.path) == []
    assert hub.sshd.log.read_text().count("Accepted publickey") == 2


def test_a_port_on_which_nothing_listens_is_the_fault_of_the_export_not_of_the_tunnel(hub, params, job, monkeypatch):
    place = job()
    dig(place, needed(dict(params, tunnel=hub.options)))
    with pytest.raises(ExportFailedError):
        carry(place, {"disk0": "nbd://127.0.0.1:10199/vm"}, {"disk0": SIZE})


def test_what_is_no_export_of_a_hub_is_not_led_through(hub, params, job):
    place = job()
    dig(place, needed(dict(params, tunnel=hub.options)))
    for uri in ("nbd+unix:///vm?socket=/run/x.sock", "nbd://10.0.0.1:22/vm"):
        with pytest.raises(InvalidInputError, match="at_hub"):
            carry(place, {"disk0": uri}, {"disk0": SIZE})


def test_a_foreign_program_on_the_probed_port_is_no_refusal_of_the_hub(hub, params):
    """It takes the connection, says nothing, and ends it when it is its turn: so the hub has let it pass."""
    with socket.create_server(("127.0.0.1", LAST_PORT)) as listener:

        def answer_nothing() -> None:
            connection, _address = listener.accept()
            with connection:
                connection.recv(1)

        other = threading.Thread(target=answer_nothing)
        other.start()
        try:
            assert rehearsed(needed(dict(params, tunnel=hub.options)))["port"] == PORT
        finally:
            other.join(20)
    assert not other.is_alive()
