# Copyright: (c) 2026, Sendense contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""NBD target strings: what is accepted round-trips, everything else is refused with one typed error."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ansible_collections.sendense.platform.plugins.module_utils.datapath.targets import (
    NbdTarget,
    format_targets,
    is_disk_key,
    parse_targets,
    parse_uri,
)
from ansible_collections.sendense.platform.plugins.module_utils.errors import InvalidInputError

PRODUCT_EXAMPLE = "disk0:nbd://127.0.0.1:10100/vm-disk0,disk1:nbd://127.0.0.1:10101/vm-disk1"


def test_the_documented_form_is_read():
    assert parse_targets(PRODUCT_EXAMPLE, expected=2) == [
        NbdTarget("disk0", "tcp", "127.0.0.1", 10100, "", "vm-disk0"),
        NbdTarget("disk1", "tcp", "127.0.0.1", 10101, "", "vm-disk1"),
    ]
    assert format_targets(parse_targets(PRODUCT_EXAMPLE)) == PRODUCT_EXAMPLE


def test_unix_sockets_and_encoded_names_are_read():
    (target,) = parse_targets("disk7:nbd+unix:///a%2Cb%20c/d?socket=/run/x%20y.sock")
    assert (target.export, target.socket, target.transport) == ("a,b c/d", "/run/x y.sock", "unix")
    assert parse_targets(format_targets([target])) == [target]


@pytest.mark.parametrize(
    ("uri", "host", "port"),
    [
        ("nbd://[::1]:10100/x", "::1", 10100),
        ("nbd://[::0001]/x", "::1", 10808),
        ("nbd:///x", "127.0.0.1", 10808),
        ("nbd://:10101/x", "127.0.0.1", 10101),
        ("nbd://Node-1.example.org/x", "node-1.example.org", 10808),
    ],
)
def test_hosts_ports_and_defaults(uri, host, port):
    target = parse_uri(uri)
    assert (target.host, target.port) == (host, port)
    assert parse_uri(target.uri()) == target


@pytest.mark.parametrize(
    "text",
    [
        "",
        ",",
        "disk0:",
        "disk0",
        "nbd://127.0.0.1/x",
        "disk:nbd://h/x",
        "disk00:nbd://h/x",
        "disk-1:nbd://h/x",
        "Disk0:nbd://h/x",
        "vda:nbd://h/x",
        "disk٣:nbd://h/x",
        "disk0:nbd://h/x,disk0:nbd://h/y",
        "disk0:nbd://h/x,disk1:nbd://h/x",
        "disk0:nbd://h/x,disk1:nbd://H:10808/x",
        "disk0:nbd://h/x,",
        "disk0:nbds://h/x",
        "disk0:NBD://h/x",
        "disk0:http://h/x",
        "disk0:file:///etc/passwd",
        "disk0:json:{}",
        "disk0:fd:3",
        "disk0:nbd:h:10809:exportname=x",
        "disk0:nbd://h:0/x",
        "disk0:nbd://h:65536/x",
        "disk0:nbd://h:-1/x",
        "disk0:nbd://h:/x",
        "disk0:nbd://h:+1/x",
        "disk0:nbd://h:10 1/x",
        "disk0:nbd://h:0x10/x",
        "disk0:nbd://h:010100/x",
        "disk0:nbd://h:١٢/x",
        "disk0:nbd://h",
        "disk0:nbd://h/",
        "disk0:nbd+unix:///?socket=/p",
        "disk0:nbd+unix://?socket=/p",
        "disk0:nbd+unix:///x",
        "disk0:nbd+unix:///x?socket=",
        "disk0:nbd+unix:///x?socket=p",
        "disk0:nbd+unix:///x?socket=/p&tls=1",
        "disk0:nbd+unix:///x?socket=/p&socket=/q",
        "disk0:nbd+unix:///x?Socket=/p",
        "disk0:nbd+unix:///x?socket=/" + "p" * 107,
        "disk0:nbd+unix://h/x?socket=/p",
        "disk0:nbd+unix:///x?socket=/p%00q",
        "disk0:nbd://u@h/x",
        "disk0:nbd://u:secret@h/x",
        "disk0:nbd://h/x?a=b",
        "disk0:nbd://h/x?",
        "disk0:nbd://h/x#f",
        "disk0:nbd://h/x y",
        "disk0:nbd://h/x\r\ny",
        "disk0:nbd://h/x%0d%0ay",
        "disk0:nbd://h/x%00",
        "disk0:nbd://h/x%1b[31m",
        "disk0:nbd://h/%ff",
        "disk0:nbd://h/%zz",
        "disk0:nbd://h/é",
        "disk0:nbd://h/" + "e" * 4097,
        "disk0:nbd://h/" + "%C3%A9" * 2049,
        "disk0:nbd://[::1/x",
        "disk0:nbd://::1/x",
        "disk0:nbd://[::1%25eth0]/x",
        "disk0:nbd://[:::]/x",
        "disk0:nbd://-h/x",
        "disk0:nbd://h..i/x",
        "disk0:nbd://{{h}}/x",
        "disk0:nbd://$(id)/x",
        " disk0:nbd://h/x",
        "disk0:nbd://h/x\n",
    ],
)
def test_everything_else_is_refused(text):
    with pytest.raises(InvalidInputError) as caught:
        parse_targets(text)
    assert "secret" not in caught.value.msg
    assert caught.value.msg.isprintable()


def test_another_count_than_the_machine_has_is_refused():
    with pytest.raises(InvalidInputError) as caught:
        parse_targets(PRODUCT_EXAMPLE, expected=3)
    assert caught.value.details == {"named": 2, "expected": 3}


@pytest.mark.parametrize("text", [None, 5, b"disk0:nbd://h/x"])
def test_other_types_are_refused(text):
    with pytest.raises(InvalidInputError):
        parse_targets(text)


EXPORTS = st.text(st.characters(blacklist_categories=("Cs", "Cc", "Zl", "Zp")), min_size=1, max_size=300)
HOSTS = st.one_of(
    st.ip_addresses().map(str).filter(lambda host: "%" not in host),
    st.from_regex(r"[a-z0-9]([a-z0-9-]{0,20}[a-z0-9])?(\.[a-z0-9]{1,10}){0,3}", fullmatch=True),
)
SOCKETS = st.text(st.characters(blacklist_categories=("Cs", "Cc", "Zl", "Zp")), min_size=1, max_size=20).map(lambda text: "/" + text)
TCP_TARGETS = st.builds(
    lambda host, port, export: ("tcp", host, port, "", export), HOSTS, st.integers(min_value=1, max_value=65535), EXPORTS
)
UNIX_TARGETS = st.builds(lambda socket, export: ("unix", "", 0, socket, export), SOCKETS, EXPORTS)


@settings(max_examples=250, deadline=None)
@given(st.lists(st.one_of(TCP_TARGETS, UNIX_TARGETS), min_size=1, max_size=5, unique=True))
def test_what_is_formatted_is_read_back(places):
    targets = [NbdTarget(f"disk{index}", *place) for index, place in enumerate(places)]
    assert parse_targets(format_targets(targets), expected=len(targets)) == targets


FRAGMENTS = st.sampled_from(
    ["disk0:", "disk1:", "nbd://", "nbd+unix:///", "h", "127.0.0.1", "[::1]", ":", "/", "?socket=", "/p", ",", "@", "%", "%0a", "#", "\n"]
    + ["10100", "0", "x", "\x00", "é", "{{x}}", "&", "=", "-1", "65536", "\u202e", "json:{}", "disk0:nbd://h:1/x"]
)


@settings(max_examples=800, deadline=None)
@given(st.one_of(st.lists(FRAGMENTS, max_size=12).map("".join), st.text(max_size=60)))
def test_any_text_is_read_or_refused_never_anything_else(text):
    try:
        targets = parse_targets(text)
    except InvalidInputError:
        return
    assert parse_targets(format_targets(targets)) == targets
    for target in targets:
        assert is_disk_key(target.key)
        assert target.export and len(target.export.encode()) <= 4096
        assert "\n" not in target.uri() and " " not in target.uri() and "," not in target.uri()
