# Copyright: (c) 2026, Sendense contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a libvirt URI says of the way to its host."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path
from urllib.parse import parse_qs, unquote, urlsplit

import pytest

from ansible_collections.sendense.platform.plugins.module_utils.errors import CapabilityMissingError, InvalidInputError
from ansible_collections.sendense.platform.plugins.module_utils.platforms.libvirt.client import Client
from ansible_collections.sendense.platform.plugins.module_utils.platforms.libvirt.uri import Uri


@pytest.mark.parametrize(
    ("uri", "remote", "server"),
    [
        ("qemu:///system", False, None),
        ("qemu+unix:///system?socket=/s", False, None),
        ("qemu://host/system", True, None),
        ("qemu+tls://host/system", True, None),
        ("qemu+libssh2://host/system", True, None),
        ("qemu+ssh:///system", True, None),
        ("qemu+ssh://host/system", True, "host"),
        ("qemu+ssh://u@[fe80::1]:2222/system", True, "fe80::1 port 2222"),
    ],
)
def test_the_way_to_a_host(uri: str, remote: bool, server: "str | None") -> None:
    parsed = Uri(uri)
    route = parsed.route()
    assert (parsed.remote, None if route is None else route.server) == (remote, server)


def test_a_route_follows_the_uri() -> None:
    route = Uri("qemu+ssh://ba%40ckup@host:2222/system?keyfile=/k&known_hosts=/h&no_verify=1&command=/opt/ssh").route()
    assert route is not None
    assert (route.user, route.port, route.identity_file, route.known_hosts_file) == ("ba@ckup", 2222, "/k", "/h")
    assert (route.verify, route.program) == (False, "/opt/ssh")
    for query in ("", "?no_verify=0", "?known_hosts_verify=normal"):
        plain = Uri(f"qemu+ssh://host/system{query}").route()
        assert plain is not None and plain.verify and plain.program == "ssh"


@pytest.mark.parametrize(
    "uri",
    [
        "qemu+ssh://-oProxyCommand=x/system",
        "qemu+ssh://host;x/system",
        "qemu+ssh://-l@host/system",
        "qemu+ssh://host:port/system",
        "qemu+ssh://host/system?keyfile=%25d/id",
        "qemu+ssh://host/system?keyfile=relative",
        "qemu+ssh://host/system?known_hosts=/a%20/b",
        "qemu+ssh://host/system?command=sh",
    ],
)
def test_what_ssh_would_take_for_something_else_is_refused(uri: str) -> None:
    with pytest.raises(InvalidInputError):
        Client({"uri": uri})


def test_a_scratch_directory_that_no_socket_could_be_forwarded_from_is_refused() -> None:
    assert Client({"uri": "qemu+ssh://host/system"}).scratch_dir == "/var/tmp" and Client({}).scratch_dir == ""
    for odd in ("relative", "/a b", "/a:b", "/%h"):
        with pytest.raises(InvalidInputError):
            Client({"uri": "qemu+ssh://host/system", "scratch_dir": odd})
        assert Client({"scratch_dir": odd}).scratch_dir == odd


def test_the_ssh_that_libvirt_starts_keeps_to_the_route() -> None:
    with Uri("qemu+ssh://u@host/system?keyfile=/k&known_hosts=/h").connecting() as opened:
        program = Path(parse_qs(urlsplit(opened).query)["command"][0])
        shown = program.read_text(encoding="ascii").replace("exec ssh", "exec ssh -G")
        assert os.access(program, os.X_OK) and program.stat().st_mode & 0o077 == 0
        answer = subprocess.run(["sh", "-c", shown, "ssh", "-l", "u", "--", "host"], capture_output=True, text=True, check=True)
        assert not program.exists()  # from when it runs
    settings = dict(line.split(" ", 1) for line in answer.stdout.splitlines() if " " in line)
    wanted = {"batchmode": "yes", "stricthostkeychecking": "true", "userknownhostsfile": "/h", "identityfile": "/k", "user": "u"}
    assert {name: settings[name] for name in wanted} == wanted
    assert int(settings["serveraliveinterval"]) * int(settings["serveralivecountmax"]) <= 30 and int(settings["connecttimeout"]) <= 30
    assert not program.parent.exists()


def test_only_ssh_leads_to_disks() -> None:
    client = Client({"uri": "qemu+tls://u:canary@host/system?x=canary"})
    with pytest.raises(CapabilityMissingError) as refused:
        client.require_route()
    assert "qemu+ssh" in refused.value.msg and "canary" not in refused.value.msg
    assert Client({"uri": "qemu+ssh://u@host/system?socket=/a"}).uri_there == "qemu:///system?socket=%2Fa"


def test_a_plus_is_a_plus_and_a_space_is_a_space_as_libvirt_reads_them() -> None:
    uri = Uri("qemu+ssh://u@host/system?keyfile=/etc/a+b&socket=/run/my%20socket+1")
    route = uri.route()
    assert route is not None and route.identity_file == "/etc/a+b"
    assert unquote(urlsplit(uri.there).query) == "socket=/run/my socket+1"
    with uri.connecting() as opened:
        assert "socket=/run/my socket+1" in unquote(urlsplit(opened).query).split("&")
