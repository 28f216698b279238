# Copyright: (c) 2026, Sendense contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""How a node reaches the sshd of its hub: options from an inventory, of which no word may mean anything else to ssh."""

from __future__ import annotations

import base64
import binascii
import re
from dataclasses import dataclass
from typing import Any, Dict

from ..errors import InvalidInputError

#: Only ciphers that authenticate what they encrypt; the first is the fastest here (docs/adr/0010-data-through-ssh-forwards.md).
CIPHERS = ("aes128-gcm@openssh.com", "aes256-gcm@openssh.com", "chacha20-poly1305@openssh.com")
DEFAULT_PORT = 22
# None of these begins with a dash or holds what ssh would expand (% $ ~), split or quote.
_HOST = re.compile(r"(?!-)[A-Za-z0-9_.-]{1,253}(?<!-)|[0-9A-Fa-f:.]{2,45}")
_USER = re.compile(r"[A-Za-z_][A-Za-z0-9_.-]{0,63}")
#: An absolute path that ssh takes as it is.
PLAIN_PATH = re.compile(r"/[A-Za-z0-9/._+@=,-]*")
_HOST_KEY = re.compile(r"(ssh-ed25519|ssh-rsa|ecdsa-sha2-nistp(?:256|384|521)) ([A-Za-z0-9+/]+={0,2})(?: [^\x00-\x1f\x7f]*)?")


@dataclass(frozen=True)
class TunnelOptions:
    """How a node reaches the sshd of its hub. Either ``host_key`` (``type base64``) or ``known_hosts_file`` is set."""

    host: str
    user: str
    identity_file: str
    port: int = DEFAULT_PORT
    host_key: str = ""
    known_hosts_file: str = ""
    cipher: str = CIPHERS[0]

    @property
    def server(self) -> str:
        """The server, for people."""
        return f"{self.user}@{self.host} port {self.port}"

    def describe(self) -> Dict[str, Any]:
        """What a task result says about it."""
        return {"host": self.host, "port": self.port, "user": self.user, "cipher": self.cipher}


def parse_options(given: Dict[str, Any]) -> TunnelOptions:
    """Options from a mapping of an inventory. InvalidInputError for all that is missing, unknown or not of the plainest form."""
    known = {name: value for name, value in given.items() if value not in (None, "")}
    unknown = sorted(set(known) - set(TunnelOptions.__dataclass_fields__))
    if unknown:
        raise refused(f"{', '.join(map(ascii, unknown))} is no option of it; use {', '.join(TunnelOptions.__dataclass_fields__)}")
    missing = [name for name in ("host", "user", "identity_file") if name not in known]
    if missing:
        raise refused(f"{', '.join(missing)} is missing")
    if ("host_key" in known) == ("known_hosts_file" in known):
        raise refused("exactly one of host_key and known_hosts_file is needed, so that no other server can pass for the hub")
    _check_words(known)
    if "host_key" in known:
        known["host_key"] = _host_key(known["host_key"])
    return TunnelOptions(**dict(known, port=_port(known.get("port", DEFAULT_PORT))))


def _check_words(known: Dict[str, Any]) -> None:
    patterns = {"host": _HOST, "user": _USER, "identity_file": PLAIN_PATH, "known_hosts_file": PLAIN_PATH}
    for name, pattern in patterns.items():
        value = known.get(name)
        if value is not None and not (isinstance(value, str) and pattern.fullmatch(value)):
            plain = "an absolute path of plain characters" if pattern is PLAIN_PATH else "a plain name"
            raise refused(f"{name} {ascii(value)[:80]} is not {plain}")
    if known.get("cipher", CIPHERS[0]) not in CIPHERS:
        raise refused(f"cipher {ascii(known['cipher'])[:80]} is not one of {', '.join(CIPHERS)}")


def _port(value: Any) -> int:
    text = str(value)
    if isinstance(value, bool) or not re.fullmatch(r"[1-9][0-9]{0,4}", text) or int(text) > 65535:
        raise refused(f"port {ascii(value)[:80]} is not a number from 1 to 65535")
    return int(text)


def _host_key(line: Any) -> str:
    """Type and key of a public key line, without its comment."""
    found = _HOST_KEY.fullmatch(line.strip()) if isinstance(line, str) else None
    try:
        blob = base64.b64decode(found.group(2), validate=True) if found else b""
    except binascii.Error:
        blob = b""
    if found is None or not blob.startswith(len(found.group(1)).to_bytes(4, "big") + found.group(1).encode("ascii")):
        raise refused("host_key is not one public key line of the hub, such as the content of its ssh_host_ed25519_key.pub")
    return f"{found.group(1)} {found.group(2)}"


def refused(why: str) -> InvalidInputError:
    """The error of an option that cannot be used."""
    return InvalidInputError(f"The tunnel to the hub is refused: {why}. Correct sendense_tunnel of the hub in the inventory.")
