# Copyright: (c) 2026, Sendense contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The SSH connection from a node to its hub that carries NBD: its command lines, and the proof that it works.

One ``ssh`` per job is the master of a control socket in a directory of its own; unix sockets beside it are led to ports of the
hub's loopback, when these are known. Nothing of a user's or a machine's own ssh configuration takes part.
"""

from __future__ import annotations

import os
import socket
import subprocess
import time
from typing import Any, Callable, Dict, List

from ..errors import DependencyMissingError, InvalidInputError, TunnelFailedError
from ..hubstate.files import replace, unlink_if_there
from ..hubstate.ports import LAST_PORT
from .tunnel_options import PLAIN_PATH, TunnelOptions, refused

#: Seconds for the TCP connection and the greeting of the server.
CONNECT_SECONDS = 10
#: Seconds until the connection is made and authenticated.
OPEN_SECONDS = 25.0
#: Seconds for an answer through the open connection.
ANSWER_SECONDS = 10.0
#: A silent link is given up after ``ALIVE_COUNT + 1`` times so many seconds.
ALIVE_SECONDS, ALIVE_COUNT = 5, 3
#: Messages of ssh are looked at, so they must be English; no agent and no askpass program of whoever started the play takes part.
ENVIRONMENT = {"LC_ALL": "C", "SSH_AUTH_SOCK": "", "SSH_ASKPASS_REQUIRE": "never"}
#: The name under which the hub's key is known, whatever its address is.
ALIAS = "sendense-hub"

_CONTROL, _KNOWN_HOSTS, _PROBE = "ssh.mux", "tunnel.known_hosts", "probe.sock"
#: What a look at the child says: ``state``, ``returncode``, ``stderr_tail``.
Look = Callable[[], Dict[str, Any]]


# --- command lines --------------------------------------------------------------------------------------------------


def master_argv(options: TunnelOptions, folder: str) -> List[str]:
    """The ``ssh`` that holds the connection, with its sockets in ``folder``. InvalidInputError for a folder that ssh would expand."""
    if options.host_key:
        trust = [f"UserKnownHostsFile={_inside(folder, _KNOWN_HOSTS)}", f"HostKeyAlias={ALIAS}"]
    else:
        trust = [f"UserKnownHostsFile={options.known_hosts_file}"]
    settings = [
        "ControlMaster=yes",
        "ControlPersist=no",
        "BatchMode=yes",
        "StrictHostKeyChecking=yes",
        "GlobalKnownHostsFile=none",
        "UpdateHostKeys=no",
        "CheckHostIP=no",
        *trust,
        "PreferredAuthentications=publickey",
        "IdentitiesOnly=yes",
        "IdentityAgent=none",
        f"IdentityFile={options.identity_file}",
        "ForwardAgent=no",
        "ForwardX11=no",
        "RequestTTY=no",
        "EscapeChar=none",
        "PermitLocalCommand=no",
        "Compression=no",
        f"Ciphers={options.cipher}",
        "IPQoS=none",
        "TCPKeepAlive=yes",
        f"ConnectTimeout={CONNECT_SECONDS}",
        f"ServerAliveInterval={ALIVE_SECONDS}",
        f"ServerAliveCountMax={ALIVE_COUNT}",
        "ExitOnForwardFailure=yes",
        "StreamLocalBindMask=0177",
        "StreamLocalBindUnlink=yes",
        "LogLevel=INFO",
    ]
    argv = ["ssh", "-N", "-F", "none", "-S", _inside(folder, _CONTROL)]
    for setting in settings:
        argv += ["-o", setting]
    return [*argv, "-p", str(options.port), "-l", options.user, "--", options.host]


def forward_argv(folder: str, ports: Dict[str, int]) -> List[str]:
    """Ask the master of this folder for unix sockets there, by name, that lead to these ports of the hub's loopback."""
    argv = ["ssh", "-F", "none", "-S", _inside(folder, _CONTROL), "-O", "forward"]
    for name, port in sorted(ports.items()):
        argv += ["-L", f"{_inside(folder, name)}:127.0.0.1:{int(port)}"]
    return [*argv, "--", ALIAS]


def _inside(folder: str, name: str) -> str:
    path = os.path.join(folder, name)
    if not PLAIN_PATH.fullmatch(path):
        raise InvalidInputError(
            f"A tunnel cannot have its sockets in {ascii(folder)}: ssh would take some of its characters for something else. "
            "Choose a state directory of letters, digits and any of / . _ + @ = , - only.",
            details={"folder": folder},
        )
    return path


# --- making it --------------------------------------------------------------------------------------------------------


def prepare(options: TunnelOptions, folder: str) -> List[str]:
    """Write what the master needs into ``folder`` and return its command line. InvalidInputError; OSError."""
    argv = master_argv(options, folder)
    for name in ("identity_file", "known_hosts_file"):
        path = getattr(options, name)
        if path and not os.path.isfile(path):
            raise refused(f"{name} {path} does not exist at this node")
    if options.host_key:
        replace(_inside(folder, _KNOWN_HOSTS), f"{ALIAS} {options.host_key}\n".encode("ascii"))
    return argv


def prove(options: TunnelOptions, folder: str, look: Look) -> None:
    """Wait until the master is connected, then lead one socket to the hub and see that the hub lets it pass. TunnelFailedError."""
    deadline = time.monotonic() + OPEN_SECONDS
    while not os.path.exists(_inside(folder, _CONTROL)):
        child = look()
        if child["state"] != "running":
            raise failed(options.server, "could not be made", child["stderr_tail"])
        if time.monotonic() >= deadline:
            raise failed(options.server, f"was not made within {OPEN_SECONDS:g} s", child["stderr_tail"])
        time.sleep(0.02)
    forward(options.server, folder, {_PROBE: LAST_PORT}, look)
    answer = _ask(_inside(folder, _PROBE))
    child = look()
    words = child["stderr_tail"]
    # Whether something listens there, and what, is all the same: sshd looks only after it has allowed the way to it.
    passed = "open failed: connect failed" in words or ("open failed" not in words and child["state"] == "running")
    if answer or (answer is not None and passed):
        return
    if child["state"] != "running":
        raise failed(options.server, "was lost at once", words)
    if answer is None:
        raise failed(options.server, f"is made, but nothing came through it within {ANSWER_SECONDS:g} s", words)
    raise failed(options.server, "is made, but the hub lets nothing pass through it", words)


def forward(server: str, folder: str, ports: Dict[str, int], look: Look) -> None:
    """Lead unix sockets of ``folder``, by name, to these ports of the hub. TunnelFailedError; DependencyMissingError."""
    why = f"did not answer within {ANSWER_SECONDS:g} s"
    try:
        done = subprocess.run(
            forward_argv(folder, ports),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            timeout=ANSWER_SECONDS,
            env=dict(os.environ, **ENVIRONMENT),
            check=False,
        )
        if done.returncode == 0:
            return
        why = "refused to lead to the exports: " + (done.stderr.decode("utf-8", "replace").strip() or f"exit code {done.returncode}")
    except subprocess.TimeoutExpired:
        pass
    except OSError as error:
        raise DependencyMissingError(f"Cannot start ssh for the tunnel to the hub: {error.strerror}. Install it at this node.") from error
    raise failed(server, why, look()["stderr_tail"])


def _ask(path: str) -> Any:
    """What comes first out of a socket: bytes, none at its end, None if it keeps silent."""
    try:
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as connection:
            connection.settimeout(ANSWER_SECONDS)
            connection.connect(path)
            connection.shutdown(socket.SHUT_WR)  # whoever else listens there has nothing to wait for
            return connection.recv(1)
    except socket.timeout:
        return None
    except OSError:
        return b""
    finally:
        unlink_if_there(path)


#: What ssh says of a server that turned it away before it had even greeted: too many connections begin at the same time.
_TURNED_AWAY = ("kex_exchange_identification", "Exceeded MaxStartups")


def is_busy(error: TunnelFailedError) -> bool:
    """Whether the hub turned the connection away only because many others were just beginning."""
    return any(words in error.details["stderr"] for words in _TURNED_AWAY)


_HINTS = {
    "Host key verification failed": "compare host_key of sendense_tunnel with the key of the hub's sshd",
    "UNPROTECTED PRIVATE KEY FILE": "let nobody but its owner read identity_file (chmod 600)",
    "Load key": "see that identity_file is a private key without a passphrase",
    "Permission denied": "see that the public key of identity_file is in authorized_keys of that user at the hub",
    "administratively prohibited": 'allow restrict,port-forwarding,permitopen="127.0.0.1:*" for this key in authorized_keys at the hub',
    "Unable to negotiate": "choose a cipher or a key type that the hub's sshd offers",
    "Name or service not known": "correct host of sendense_tunnel, or how this node resolves names",
}


def failed(server: str, what: str, words: str) -> TunnelFailedError:
    """The error of a tunnel, with the last words of its ssh. What nothing but a person can mend is not retryable."""
    lines = [line.strip() for line in words.splitlines() if line.strip(" @\r")]
    hint = next((text for phrase, text in _HINTS.items() if phrase in words), "")
    advice = f"To mend it, {hint}." if hint else "See that the hub's sshd runs and that this node reaches it, then run the job again."
    last = lines[-1] if lines else "it said nothing"
    return TunnelFailedError(
        f"The tunnel from this node to {server} {what}; ssh: {last}{'' if last.endswith('.') else '.'} {advice}",
        details={"server": server, "stderr": words},
        retryable=not hint,
    )
