# Copyright: (c) 2026, Sendense contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""No word of an inventory becomes an option of ssh, and nothing of a machine's own ssh configuration takes part."""

from __future__ import annotations

import base64
import os
import subprocess

import pytest

from ansible_collections.sendense.platform.plugins.module_utils.datapath.tunnel import failed, forward_argv, master_argv, prepare
from ansible_collections.sendense.platform.plugins.module_utils.datapath.tunnel_options import CIPHERS, parse_options
from ansible_collections.sendense.platform.plugins.module_utils.errors import InvalidInputError


def _public(kind: str = "ssh-ed25519") -> str:
    blob = len(kind).to_bytes(4, "big") + kind.encode() + (32).to_bytes(4, "big") + bytes(range(32))
    return f"{kind} {base64.b64encode(blob).decode()}"


GIVEN = {"host": "hub01.example.com", "port": 443, "user": "sendense", "identity_file": "/etc/sendense/id", "host_key": _public()}
FOLDER = "/var/lib/sendense/jobs/0123456789abcdef0123456789abcdef-node"


def _settings(argv):
    return dict(argv[at + 1].split("=", 1) for at, word in enumerate(argv) if word == "-o")


def test_the_connection_trusts_one_key_asks_nobody_and_ends_when_the_link_is_dead():
    argv = master_argv(parse_options(GIVEN), FOLDER)
    assert argv[:6] == ["ssh", "-N", "-F", "none", "-S", f"{FOLDER}/ssh.mux"]
    assert argv[-6:] == ["-p", "443", "-l", "sendense", "--", "hub01.example.com"]
    wanted = {
        "BatchMode": "yes",
        "StrictHostKeyChecking": "yes",
        "UserKnownHostsFile": f"{FOLDER}/tunnel.known_hosts",
        "GlobalKnownHostsFile": "none",
        "IdentitiesOnly": "yes",
        "IdentityAgent": "none",
        "IdentityFile": "/etc/sendense/id",
        "ExitOnForwardFailure": "yes",
        "ServerAliveInterval": "5",
        "ServerAliveCountMax": "3",
        "Compression": "no",
        "Ciphers": "aes128-gcm@openssh.com",
        "IPQoS": "none",
        "ForwardAgent": "no",
        "ForwardX11": "no",
        "RequestTTY": "no",
    }
    settings = _settings(argv)
    assert {name: settings.get(name) for name in wanted} == wanted


@pytest.mark.parametrize("cipher", CIPHERS)
def test_ssh_itself_understands_every_setting(cipher):
    argv = master_argv(parse_options(dict(GIVEN, cipher=cipher)), FOLDER)
    done = subprocess.run([argv[0], "-G", *argv[1:]], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    said = dict(line.split(" ", 1) for line in done.stdout.splitlines() if " " in line)
    assert (said["hostname"], said["port"], said["user"], said["ciphers"]) == ("hub01.example.com", "443", "sendense", cipher)
    assert (said["hostkeyalias"], said["identityfile"], said["controlmaster"]) == ("sendense-hub", "/etc/sendense/id", "true")
    assert (said["stricthostkeychecking"], said["sessiontype"], said["compression"]) == ("true", "none", "no")


def test_known_hosts_are_looked_up_by_the_address_of_the_hub():
    options = parse_options({**GIVEN, "host_key": "", "known_hosts_file": "/etc/sendense/known_hosts"})
    settings = _settings(master_argv(options, FOLDER))
    assert settings["UserKnownHostsFile"] == "/etc/sendense/known_hosts" and "HostKeyAlias" not in settings


def test_forwards_lead_from_sockets_of_the_job_to_the_loopback_of_the_hub():
    argv = forward_argv(FOLDER, {"disk1.tunnel.sock": 10101, "disk0.tunnel.sock": 10100})
    assert argv == [
        *("ssh", "-F", "none", "-S", f"{FOLDER}/ssh.mux", "-O", "forward"),
        *("-L", f"{FOLDER}/disk0.tunnel.sock:127.0.0.1:10100", "-L", f"{FOLDER}/disk1.tunnel.sock:127.0.0.1:10101"),
        *("--", "sendense-hub"),
    ]


@pytest.mark.parametrize("kind", ["ssh-ed25519", "ssh-rsa", "ecdsa-sha2-nistp256"])
def test_only_type_and_key_of_a_host_key_are_kept(kind, tmp_path):
    (tmp_path / "id").touch()
    given = dict(GIVEN, host_key=f" {_public(kind)} root@hub, the old one \n", identity_file=str(tmp_path / "id"))
    prepare(parse_options(given), str(tmp_path))
    known = tmp_path / "tunnel.known_hosts"
    assert known.read_text() == f"sendense-hub {_public(kind)}\n"
    assert known.stat().st_mode & 0o777 == 0o600


HOSTILE = ["-oProxyCommand=id", "--", "", " ", "a b", "a;id", "$(id)", "`id`", "a\nHost b", "%h", "${HOME}", "~/x", "a,b\0", "{{ x }}", 7]


@pytest.mark.parametrize("value", HOSTILE)
@pytest.mark.parametrize("name", ["host", "user", "identity_file", "known_hosts_file", "host_key", "cipher", "port"])
def test_a_word_that_ssh_could_take_for_something_else_is_refused(name, value):
    given = {**GIVEN, name: value}
    if name == "known_hosts_file":
        del given["host_key"]
    if (name, value) in (("port", ""), ("cipher", ""), ("port", 7)):
        return  # the default, and a number
    with pytest.raises(InvalidInputError, match="sendense_tunnel"):
        parse_options(given)


@pytest.mark.parametrize(
    "changes",
    [
        {"identity_file": "relative/id"},
        {"identity_file": "/etc/a key"},
        {"identity_file": "/etc/id\n"},
        {"user": "-l"},
        {"user": "root@other"},
        {"host": "-v"},
        {"host": "user@host"},
        {"host": "host/path"},
        {"host": "h" * 254},
        {"port": 0},
        {"port": 65536},
        {"port": "22 -v"},
        {"port": True},
        {"port": 2.5},
        {"cipher": "aes128-ctr"},
        {"cipher": "aes128-gcm@openssh.com,aes128-ctr"},
        {"host_key": _public() + "\n" + _public()},
        {"host_key": "@cert-authority * " + _public()},
        {"host_key": "ssh-rsa " + _public().split()[1]},
        {"host_key": "ssh-ed25519 !!!"},
        {"host_key": "ssh-ed25519 AAAAA"},
        {"known_hosts_file": "/etc/known_hosts"},
        {"ProxyCommand": "id"},
        {"host": None},
        {"user": None},
        {"identity_file": None},
        {"host_key": None},
    ],
)
def test_options_are_exactly_right_or_refused(changes):
    with pytest.raises(InvalidInputError, match="sendense_tunnel of the hub"):
        parse_options({**GIVEN, **changes})


@pytest.mark.parametrize("host", ["10.0.0.1", "fd00::1", "hub_1", "hub01.example.com"])
def test_names_and_addresses_are_hosts(host):
    assert parse_options(dict(GIVEN, host=host)).host == host


@pytest.mark.parametrize("folder", ["/srv/a b", "/srv/%h", "/srv/${HOME}", "/srv/a:b", "/srv/~x", 'srv/"', "relative"])
def test_a_folder_that_ssh_would_read_otherwise_is_refused(folder):
    for build in (lambda: master_argv(parse_options(GIVEN), folder), lambda: forward_argv(folder, {"disk0.tunnel.sock": 10100})):
        with pytest.raises(InvalidInputError, match="state directory"):
            build()


def test_the_longest_socket_names_fit_into_the_longest_state_directory():
    tail = len(os.path.join("/jobs", "0" * 32 + "-node", ""))
    random_end = len(".0123456789abcdef")  # ssh binds its control socket under a temporary name
    assert tail + max(len("ssh.mux") + random_end, len("disk99999.tunnel.sock"), len("probe.sock")) <= 69


@pytest.mark.parametrize(
    ("words", "says", "retryable"),
    [
        ("Host key verification failed.\r\n", "compare host_key", False),
        ("x\nsendense@hub: Permission denied (publickey).\n", "authorized_keys", False),
        ("channel 1: open failed: administratively prohibited: open failed\n", 'permitopen="127.0.0.1:*"', False),
        ("Unable to negotiate with 10.0.0.1 port 443: no matching cipher found.\n", "cipher", False),
        ("ssh: connect to host hub port 443: Connection refused\n", "run the job again", True),
        ("Timeout, server hub not responding.\n", "run the job again", True),
        ("", "it said nothing", True),
    ],
)
def test_the_error_says_whether_another_try_can_help(words, says, retryable):
    error = failed("sendense@hub port 443", "could not be made", words)
    assert says in error.msg and error.retryable is retryable and error.details == {"server": "sendense@hub port 443", "stderr": words}
