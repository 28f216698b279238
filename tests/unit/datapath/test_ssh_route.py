# Copyright: (c) 2026, Sendense contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Command lines of ssh: nothing of a name or path is ever an option, an expansion or a word of a shell."""

from __future__ import annotations

import subprocess
from typing import Any, Dict, List

import pytest

from ansible_collections.sendense.platform.plugins.module_utils.datapath.ssh_route import (
    SshRoute,
    await_forward,
    forward_argv,
    quoted,
    run,
)
from ansible_collections.sendense.platform.plugins.module_utils.errors import (
    DependencyMissingError,
    InvalidInputError,
    PlatformUnreachableError,
    TunnelFailedError,
)


def options(argv: List[str]) -> Dict[str, str]:
    settings = (word.split("=", 1) for before, word in zip(argv, argv[1:], strict=False) if before == "-o")
    return dict(settings)


def test_a_route_never_asks_and_never_trusts_by_itself() -> None:
    argv = SshRoute("host", 2222, "user", "/id", "/known").argv(["-N"])
    assert argv[0] == "ssh" and argv[-2:] == ["--", "host"]
    assert argv[argv.index("-p") + 1] == "2222" and argv[argv.index("-l") + 1] == "user"
    found = options(argv)
    assert (found["BatchMode"], found["StrictHostKeyChecking"]) == ("yes", "yes")
    assert (found["IdentityFile"], found["UserKnownHostsFile"]) == ("/id", "/known")
    bare = SshRoute("host").argv()
    assert "-p" not in bare and "-l" not in bare and "UserKnownHostsFile" not in options(bare)
    assert options(SshRoute("host", verify=False).argv())["StrictHostKeyChecking"] == "no"


@pytest.mark.parametrize("values", [{"host": ""}, {"host": "-x"}, {"host": "h", "user": "-u"}, {"host": "h", "identity_file": "~/id"}])
def test_odd_values_are_refused(values: Dict[str, Any]) -> None:
    with pytest.raises(InvalidInputError):
        SshRoute(**values)


def test_a_forward_is_between_two_plain_paths() -> None:
    argv = forward_argv(SshRoute("host"), "/a/b.sock", "/var/tmp/c.sock")
    assert argv[argv.index("-L") + 1] == "/a/b.sock:/var/tmp/c.sock" and options(argv)["ExitOnForwardFailure"] == "yes"
    for odd in ("/a:b", "/%h", "/a b", "relative", "/${HOME}"):
        with pytest.raises(InvalidInputError):
            forward_argv(SshRoute("host"), "/a", odd)
        with pytest.raises(InvalidInputError):
            forward_argv(SshRoute("host"), odd, "/a")


def test_a_forward_that_ended_says_its_last_words() -> None:
    with pytest.raises(TunnelFailedError, match="Permission denied") as failed:
        await_forward(SshRoute("host"), "/nonexistent/socket", lambda: {"state": "exited", "stderr_tail": "x\nPermission denied\n\n"})
    assert failed.value.retryable


def test_arguments_survive_the_shell_at_the_other_end() -> None:
    words = ["", "a b", "$(touch pwned)", "'\"", "-n", "*", "\n", "ü"]
    done = subprocess.run(["sh", "-c", quoted(["printf", "<%s>", *words])], capture_output=True, text=True, check=True)
    assert done.stdout == "".join(f"<{word}>" for word in words)


def test_a_program_that_cannot_be_reached_is_a_typed_error() -> None:
    with pytest.raises(PlatformUnreachableError, match="nosuchhost"):
        run(SshRoute("nosuchhost.invalid", known_hosts_file="/dev/null"), ["true"])
    with pytest.raises(DependencyMissingError):
        run(SshRoute("host", program="/nonexistent/ssh"), ["true"])
