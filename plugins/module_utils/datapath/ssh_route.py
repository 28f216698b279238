# Copyright: (c) 2026, Sendense contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The way from this place to a unix socket, a file or a program of another machine that ssh reaches.

Unlike the tunnel to a hub (``tunnel.py``), which is the product's own, this is the way on which an administrator reaches that
machine, too: what its URI does not say (user, keys, jump hosts) is in the ssh configuration of this place's user.
"""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import time
from dataclasses import asdict, dataclass
from typing import Any, Dict, List, Optional, Sequence

from ..errors import DependencyMissingError, InvalidInputError, PlatformAuthenticationError, PlatformUnreachableError, TunnelFailedError
from .tunnel import ALIVE_COUNT, ALIVE_SECONDS, CONNECT_SECONDS, OPEN_SECONDS, Look
from .tunnel_options import CIPHERS

#: What ssh itself answers if it, and not the program at the other end, failed.
SSH_FAILED = 255
#: Messages of ssh are looked at, so they must be English.
ENVIRONMENT = {"LC_ALL": "C", "SSH_ASKPASS_REQUIRE": "never"}
#: Seconds for a program at the other machine that looks at a few files.
RUN_SECONDS = 30.0
_POLL_SECONDS = 0.02

# None of these begins with a dash or holds what ssh would expand (% $ ~), split or quote.
_HOST = re.compile(r"(?!-)[A-Za-z0-9_.-]{1,253}|[0-9A-Fa-f:.]{2,45}(%[A-Za-z0-9_.-]{1,15})?")
_USER = re.compile(r"[A-Za-z_][A-Za-z0-9_.@\\-]{0,63}")
_PATH = re.compile(r"/[A-Za-z0-9/._+@=,-]*")


@dataclass(frozen=True)
class SshRoute:
    """Where the other machine is. Empty and 0 mean: as the ssh configuration of this place's user says.

    Only ``verify`` False lets ssh trust a host key that it does not know. ``program`` stands in for ``ssh``.
    """

    host: str
    port: int = 0
    user: str = ""
    identity_file: str = ""
    known_hosts_file: str = ""
    verify: bool = True
    program: str = "ssh"

    def __post_init__(self) -> None:
        for name, pattern in (("host", _HOST), ("user", _USER), ("identity_file", _PATH), ("known_hosts_file", _PATH)):
            value = getattr(self, name)
            if (value or name == "host") and not pattern.fullmatch(value):
                raise InvalidInputError(f"The {name} {ascii(value)[:80]} of an ssh connection is refused: use plain characters only.")
        if self.program != "ssh" and not _PATH.fullmatch(self.program):
            raise InvalidInputError(f"The ssh program {ascii(self.program)[:80]} is refused: use an absolute path of plain characters.")

    def to_dict(self) -> Dict[str, Any]:
        """Plain data for JSON."""
        return asdict(self)

    @property
    def server(self) -> str:
        """The other machine, for people."""
        return self.host + (f" port {self.port}" if self.port else "")

    def settings(self) -> List[str]:
        """ssh's options that hold for whatever runs over it, as arguments: never a question, never a silence without end."""
        chosen = [
            "BatchMode=yes",
            f"StrictHostKeyChecking={'yes' if self.verify else 'no'}",
            f"ConnectTimeout={CONNECT_SECONDS}",
            f"ServerAliveInterval={ALIVE_SECONDS}",
            f"ServerAliveCountMax={ALIVE_COUNT}",
            "ForwardAgent=no",
            "ForwardX11=no",
            "PermitLocalCommand=no",
            "ControlPath=none",
            f"Ciphers={','.join(CIPHERS)}",
        ]
        if self.known_hosts_file:
            chosen += [f"UserKnownHostsFile={self.known_hosts_file}", "GlobalKnownHostsFile=none"]
        if self.identity_file:
            chosen += [f"IdentityFile={self.identity_file}", "IdentitiesOnly=yes"]
        return [word for setting in chosen for word in ("-o", setting)]

    def argv(self, options: Sequence[str] = (), command: str = "") -> List[str]:
        """The command line of an ssh to the machine; ``command`` is for its user's shell."""
        argv = [self.program, "-T", *self.settings(), *options]
        argv += ["-p", str(self.port)] if self.port else []
        argv += ["-l", self.user] if self.user else []
        return [*argv, "--", self.host, *([command] if command else [])]


# --- sockets ------------------------------------------------------------------------------------------------------------


def require_plain(path: str) -> None:
    """InvalidInputError for a path at which a socket could not be forwarded."""
    if not _PATH.fullmatch(path):
        raise InvalidInputError(
            f"Cannot forward a socket at {ascii(path)}: ssh would take some of its characters for something else. Choose a directory of "
            "letters, digits and any of / . _ + @ = , - only."
        )


def forward_argv(route: SshRoute, socket: str, remote_socket: str) -> List[str]:
    """An ssh that leads ``socket`` of this place to ``remote_socket`` of the other machine. InvalidInputError for odd paths."""
    for path in (socket, remote_socket):
        require_plain(path)
    options = ["-N", "-o", "ExitOnForwardFailure=yes", "-o", "StreamLocalBindMask=0177", "-o", "StreamLocalBindUnlink=yes"]
    return route.argv([*options, "-o", "IPQoS=none", "-L", f"{socket}:{remote_socket}"])


def await_forward(route: SshRoute, socket: str, look: Look) -> None:
    """Wait until the child that :func:`forward_argv` became has made its socket. TunnelFailedError with its last words."""
    deadline = time.monotonic() + OPEN_SECONDS
    while not os.path.exists(socket):
        child = look()
        if child["state"] == "running" and time.monotonic() < deadline:
            time.sleep(_POLL_SECONDS)
            continue
        advice = "See that this node's user may log in there without a password, and that its sshd allows forwarding to unix sockets."
        raise way_failed(route.server, "could not be made", child.get("stderr_tail", ""), advice)


def way_failed(server: str, what: str, words: str, advice: str) -> TunnelFailedError:
    """The error of a forward, with the last words of its ssh."""
    last = next((line.strip(" .\r") for line in reversed(words.splitlines()) if line.strip(" .\r")), "it said nothing")
    text = f"The way to the exports at {server} {what}; ssh: {last}. {advice}"
    return TunnelFailedError(text, details={"server": server, "stderr": words})


# --- programs -----------------------------------------------------------------------------------------------------------


def quoted(argv: Sequence[str]) -> str:
    """An argument list for the shell at the other end, so that each argument reaches the program as it is."""
    return " ".join(shlex.quote(word) for word in argv)


def run(route: SshRoute, argv: Sequence[str], timeout_s: float = RUN_SECONDS) -> "subprocess.CompletedProcess[bytes]":
    """Run a program at the other machine, each argument reaching it as it is; its exit code is the caller's to judge.

    PlatformUnreachableError, PlatformAuthenticationError if ssh itself fails.
    """
    env = dict(os.environ, **ENVIRONMENT)
    done: Optional["subprocess.CompletedProcess[bytes]"] = None
    try:
        done = subprocess.run(
            route.argv(command=quoted(argv)), stdin=subprocess.DEVNULL, capture_output=True, timeout=timeout_s, env=env, check=False
        )
    except subprocess.TimeoutExpired:
        pass
    except OSError as error:
        raise DependencyMissingError(f"Cannot start {route.program}: {error.strerror}. Install ssh at this place.") from error
    if done is not None and done.returncode != SSH_FAILED:
        return done
    words = f"no answer within {timeout_s:g} s" if done is None else done.stderr.decode("utf-8", "replace").strip()[-500:]
    refused = "Permission denied" in words or "Host key verification failed" in words
    raise (PlatformAuthenticationError if refused else PlatformUnreachableError)(
        f"Cannot run {argv[0]} at {route.server}: {words}. Check that this place's user reaches it by ssh without a password.",
        details={"server": route.server},
    )
