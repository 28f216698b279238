# Copyright: (c) 2026, Sendense contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""NBD target strings: the strict form in which people, plays and programs name exports.

``disk0:nbd://127.0.0.1:10100/vm-disk0,disk1:nbd+unix:///name?socket=/run/x.sock``. Export names and socket paths are
percent-encoded; anything that is not exactly this form is refused before a connection is tried.
"""

from __future__ import annotations

import ipaddress
import re
from dataclasses import dataclass
from typing import Iterable, List, Optional, Tuple
from urllib.parse import quote, unquote_to_bytes

from ..errors import InvalidInputError

TCP, UNIX = "tcp", "unix"
DEFAULT_HOST, DEFAULT_PORT = "127.0.0.1", 10808
MAX_EXPORT_BYTES = 4096
MAX_SOCKET_BYTES = 107
#: Connections that a qemu serves at once, unless it was told otherwise; it accepts the next one and never answers it.
MAX_CONNECTIONS = 100

_KEY = re.compile(r"disk(0|[1-9][0-9]{0,4})")
_URI = re.compile(r"(?P<scheme>[A-Za-z][A-Za-z0-9+.-]*)://(?P<authority>[^/?#]*)(?P<path>/[^?#]*)?(?:\?(?P<query>[^#]*))?")
_AUTHORITY = re.compile(r"(?P<host>\[[0-9A-Fa-f:.]+\]|[A-Za-z0-9._-]*)(?::(?P<port>[^:\[\]]*))?")
_HOST_LABEL = re.compile(r"[A-Za-z0-9_](?:[A-Za-z0-9_-]{0,61}[A-Za-z0-9_])?")
_URI_CHARACTERS = re.compile(r"(?:[A-Za-z0-9._~!$&'()*+;=:@/-]|%[0-9A-Fa-f]{2})*")
_CONTROL = re.compile("[\x00-\x1f\x7f-\x9f\u2028\u2029]")


@dataclass(frozen=True)
class NbdTarget:
    """One NBD export: ``transport`` is ``tcp`` (host, port) or ``unix`` (socket, an absolute path)."""

    key: str
    transport: str
    host: str = ""
    port: int = 0
    socket: str = ""
    export: str = ""

    def uri(self) -> str:
        """The URI of this export, percent-encoded so that it survives a comma-separated list."""
        name = quote(self.export, safe="/")
        if self.transport == UNIX:
            return f"nbd+unix:///{name}?socket={quote(self.socket, safe='/')}"
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"nbd://{host}:{self.port}/{name}"


def is_disk_key(key: str) -> bool:
    """Whether the text is ``disk<N>``, N without leading zeros."""
    return _KEY.fullmatch(key) is not None


def parse_targets(
    text: str, expected: Optional[int] = None, default_host: str = DEFAULT_HOST, default_port: int = DEFAULT_PORT
) -> List[NbdTarget]:
    """The exports named in a comma-separated list, in the given order.

    ``expected`` is the number of disks that the machine has. InvalidInputError for anything that is not exactly
    well-formed, for a disk or an export named twice, and for another count than expected.
    """
    if not isinstance(text, str) or not text:
        raise _bad("", "the list is empty")
    targets = [_entry(entry, default_host, default_port) for entry in text.split(",")]
    _refuse_duplicates(targets)
    if expected is not None and len(targets) != expected:
        raise InvalidInputError(
            f"The NBD target list names {len(targets)} disks, but the machine has {expected}. Name every disk once.",
            details={"named": len(targets), "expected": expected},
        )
    return targets


def format_targets(targets: Iterable[NbdTarget]) -> str:
    """The inverse of :func:`parse_targets`."""
    return ",".join(f"{target.key}:{target.uri()}" for target in targets)


def parse_uri(uri: str, key: str = "disk0", default_host: str = DEFAULT_HOST, default_port: int = DEFAULT_PORT) -> NbdTarget:
    """One ``nbd://`` or ``nbd+unix://`` URI. InvalidInputError for every other scheme or form."""
    if not isinstance(uri, str) or _CONTROL.search(uri):
        raise _bad(uri, "it holds control characters")
    found = _URI.fullmatch(uri)
    if not found:
        raise _bad(uri, "it is not of the form nbd://host:port/export or nbd+unix:///export?socket=/path")
    scheme = found.group("scheme")
    export = _export(uri, found.group("path") or "")
    if scheme == "nbd":
        if found.group("query") is not None:
            raise _bad(uri, "nbd:// takes no query")
        host, port = _host_and_port(uri, found.group("authority"), default_host, default_port)
        return NbdTarget(key=key, transport=TCP, export=export, host=host, port=port)
    if scheme == "nbd+unix":
        if found.group("authority"):
            raise _bad(uri, "nbd+unix:// takes no host: write nbd+unix:///export?socket=/path")
        return NbdTarget(key=key, transport=UNIX, export=export, socket=_socket(uri, found.group("query")))
    raise _bad(uri, f"the scheme {scheme!r} is unknown; use nbd or nbd+unix")


def _entry(entry: str, default_host: str, default_port: int) -> NbdTarget:
    key, colon, uri = entry.partition(":")
    if not colon or not is_disk_key(key):
        raise _bad(entry, "it does not begin with disk<N>:, for example disk0:nbd://127.0.0.1:10100/vm-disk0")
    return parse_uri(uri, key, default_host, default_port)


def _refuse_duplicates(targets: List[NbdTarget]) -> None:
    keys = [target.key for target in targets]
    places = [(t.transport, t.host, t.port, t.socket, t.export) for t in targets]
    for position, target in enumerate(targets):
        if target.key in keys[:position]:
            raise _bad(target.key, "the disk is named twice")
        if places[position] in places[:position]:
            raise _bad(target.uri(), "two disks would use this one export")


def _host_and_port(uri: str, authority: str, default_host: str, default_port: int) -> Tuple[str, int]:
    if "@" in authority:
        raise _bad("nbd://...", "user names and passwords are not accepted in it")
    found = _AUTHORITY.fullmatch(authority)
    if not found:
        raise _bad(uri, "the host is not a name, an IPv4 address or an IPv6 address in brackets")
    port = default_port if found.group("port") is None else _port(uri, found.group("port"))
    return _host(uri, found.group("host")) or default_host, port


def _host(uri: str, host: str) -> str:
    if host.startswith("["):
        try:
            return str(ipaddress.IPv6Address(host[1:-1]))
        except ValueError:
            raise _bad(uri, "the IPv6 address is malformed") from None
    if host and (len(host) > 253 or not all(_HOST_LABEL.fullmatch(label) for label in host.split("."))):
        raise _bad(uri, "the host name is malformed")
    return host.lower()


def _port(uri: str, port: str) -> int:
    if not re.fullmatch(r"[1-9][0-9]{0,4}", port) or int(port) > 65535:
        raise _bad(uri, f"the port {port!r} is not a number from 1 to 65535")
    return int(port)


def _export(uri: str, path: str) -> str:
    name = _decoded(uri, path[1:], "export name")
    if not name:
        raise _bad(uri, "the export name is missing")
    if len(name.encode("utf-8")) > MAX_EXPORT_BYTES:
        raise _bad(uri, f"the export name is longer than {MAX_EXPORT_BYTES} bytes")
    return name


def _socket(uri: str, query: Optional[str]) -> str:
    name, equals, value = (query or "").partition("=")
    if name != "socket" or not equals or "&" in value or ";" in value:
        raise _bad(uri, "its query must be exactly socket=/absolute/path")
    path = _decoded(uri, value, "socket path")
    if not path.startswith("/"):
        raise _bad(uri, "the socket path is not absolute")
    if len(path.encode("utf-8")) > MAX_SOCKET_BYTES:
        raise _bad(uri, f"the socket path is longer than {MAX_SOCKET_BYTES} bytes")
    return path


def _decoded(uri: str, text: str, what: str) -> str:
    if not _URI_CHARACTERS.fullmatch(text):
        raise _bad(uri, f"the {what} holds characters that must be percent-encoded")
    try:
        decoded = unquote_to_bytes(text).decode("utf-8")
    except UnicodeDecodeError:
        raise _bad(uri, f"the {what} is not UTF-8") from None
    if _CONTROL.search(decoded):
        raise _bad(uri, f"the {what} holds control characters")
    return decoded


def _bad(text: object, why: str) -> InvalidInputError:
    shown = ascii(text)
    shown = shown if len(shown) <= 200 else shown[:200] + "..."
    return InvalidInputError(f"The NBD target {shown} is refused: {why}.", details={"target": shown, "reason": why})
