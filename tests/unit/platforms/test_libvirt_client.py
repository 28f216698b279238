# Copyright: (c) 2026, Sendense contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""libvirt's errors become typed ones, by code and not by luck."""

from __future__ import annotations

from typing import Optional, Type

import libvirt
import pytest

from ansible_collections.sendense.platform.plugins.module_utils.errors import (
    DependencyMissingError,
    ForeignJobError,
    MachineNotFoundError,
    PlatformAuthenticationError,
    PlatformUnreachableError,
    SendenseError,
    SnapshotFailedError,
)
from ansible_collections.sendense.platform.plugins.module_utils.platforms.libvirt import client


def failure(code: int, domain: int = 0, text: str = "words") -> libvirt.libvirtError:
    error = libvirt.libvirtError("call failed")
    error.err = (code, domain, text, 2, "", None, None, 0, 0)
    error.args = (text,)
    return error


@pytest.mark.parametrize(
    ("code", "domain", "text", "expected"),
    [
        (libvirt.VIR_ERR_AUTH_FAILED, 0, "x", PlatformAuthenticationError),
        (libvirt.VIR_ERR_ACCESS_DENIED, 0, "x", PlatformAuthenticationError),
        (libvirt.VIR_ERR_OPERATION_DENIED, 0, "read only", PlatformAuthenticationError),
        (libvirt.VIR_ERR_SYSTEM_ERROR, libvirt.VIR_FROM_RPC, "Failed to connect socket: Permission denied", PlatformAuthenticationError),
        (libvirt.VIR_ERR_SYSTEM_ERROR, libvirt.VIR_FROM_RPC, "Failed to connect socket: No such file", PlatformUnreachableError),
        (libvirt.VIR_ERR_INTERNAL_ERROR, libvirt.VIR_FROM_RPC, "client socket is closed", PlatformUnreachableError),
        (libvirt.VIR_ERR_NO_DOMAIN, libvirt.VIR_FROM_QEMU, "x", MachineNotFoundError),
        (libvirt.VIR_ERR_OPERATION_TIMEOUT, libvirt.VIR_FROM_QEMU, "cannot acquire state change lock", ForeignJobError),
        (libvirt.VIR_ERR_SYSTEM_ERROR, libvirt.VIR_FROM_QEMU, "No space left on device", None),
        (libvirt.VIR_ERR_INTERNAL_ERROR, libvirt.VIR_FROM_QEMU, "x", None),
    ],
)
def test_errors_are_classified(code: int, domain: int, text: str, expected: Optional[Type[SendenseError]]) -> None:
    with pytest.raises(SendenseError) as raised, client.mapped("Cannot do it"):
        raise failure(code, domain, text)
    assert type(raised.value) is (expected or SnapshotFailedError)
    assert raised.value.msg.startswith(f"Cannot do it: {text}") and raised.value.details["libvirt_code"] == code


def test_without_the_library_the_message_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(client, "libvirt", None)
    with pytest.raises(DependencyMissingError, match="python3-libvirt"):
        client.Client({}).connect()


@pytest.mark.parametrize(
    ("uri", "connected"),
    [
        ("qemu+ssh://host/system?command=/ssh", "qemu+ssh://host/system?command=%2Fssh&no_tty=1"),
        ("qemu+ssh://host/system?no_tty=0&command=/ssh", "qemu+ssh://host/system?no_tty=0&command=/ssh"),
        ("qemu+libssh2://host/system?socket=/s", "qemu+libssh2://host/system?socket=%2Fs&no_tty=1"),
        ("qemu:///system?socket=/s", "qemu:///system?socket=/s"),
    ],
)
def test_ssh_never_asks_a_terminal(monkeypatch: pytest.MonkeyPatch, uri: str, connected: str) -> None:
    opened = []
    monkeypatch.setattr(client.libvirt, "openAuth", lambda *arguments: opened.append(arguments[0]))
    client.Client({"uri": uri}).connect()
    assert opened == [connected]


def test_credentials_are_answered_or_refused_and_never_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    answers = []

    def opening(_uri: str, auth: "list[object]", _flags: int) -> None:
        questions = [[libvirt.VIR_CRED_AUTHNAME, "", None, "", None], [libvirt.VIR_CRED_PASSPHRASE, "", None, "", None]]
        answers.append((auth[1](questions, None), [question[4] for question in questions]))  # type: ignore[operator]
        raise failure(libvirt.VIR_ERR_AUTH_FAILED, 0, "authentication failed")

    monkeypatch.setattr(client.libvirt, "openAuth", opening)
    for options in ({"username": "u", "password": "canary"}, {}):
        with pytest.raises(PlatformAuthenticationError) as refused:
            client.Client({"uri": "qemu+tcp://u:canary@host/system?x=canary", **options}).connect()
        assert "canary" not in str(refused.value.as_result())
    assert answers == [(0, ["u", "canary"]), (-1, [None, None])]
