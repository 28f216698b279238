# Copyright: (c) 2026, Sendense contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a connection URI says: whether the host is this place, and how ssh gets there if it is not.

libvirt's own ssh transport knows neither a time limit nor a keepalive, and ignores ``known_hosts``, which its libssh transports have.
So it is given a program of ours for ``ssh``, which is ssh with the settings of the route. It is a file only while it connects.
"""

from __future__ import annotations

import os
import shlex
import shutil
import tempfile
from contextlib import contextmanager
from typing import Any, Dict, Iterator, List, Optional
from urllib.parse import parse_qs, quote, unquote, urlencode, urlsplit, urlunsplit

from ...datapath.ssh_route import SshRoute, quoted
from ...errors import InvalidInputError

#: Transports that log in by ssh; only the first of them is the program ``ssh``.
_SSH = ("ssh", "libssh", "libssh2")
_OFF = ("", "0")


class Uri:
    """One libvirt URI, taken apart."""

    def __init__(self, text: str) -> None:
        self.text = text
        try:
            self._parts = urlsplit(text)
            self._port = self._parts.port or 0
        except ValueError as error:
            raise InvalidInputError(f"The libvirt URI is refused: {error}.") from error
        self._transport = self._parts.scheme.partition("+")[2]
        # To libvirt a plus is a plus, and not the space that forms on the web make of it.
        self._query = parse_qs(self._parts.query.replace("+", "%2B"), keep_blank_values=True)

    @property
    def remote(self) -> bool:
        """Whether the host may be another machine than this place."""
        return bool(self._parts.netloc) or self._transport not in ("", "unix")

    @property
    def shown(self) -> str:
        """The URI without user information and query, which may hold secrets."""
        # Not urlunsplit: it would show qemu:///system as qemu:/system.
        return f"{self._parts.scheme}://{self._parts.netloc.rpartition('@')[2]}{self._parts.path}"

    @property
    def there(self) -> str:
        """How a program at the host itself names this libvirt."""
        socket = self._one("socket")
        return f"{self._parts.scheme.partition('+')[0]}://{self._parts.path}" + (
            f"?{urlencode({'socket': socket}, quote_via=quote)}" if socket else ""
        )

    def route(self) -> Optional[SshRoute]:
        """How the program ssh reaches the host; None if that is not this URI's transport. InvalidInputError for odd values."""
        if self._transport != "ssh" or not self._parts.hostname:
            return None
        return SshRoute(
            host=unquote(self._parts.hostname),
            port=self._port,
            user=unquote(self._parts.username or ""),
            identity_file=self._one("keyfile"),
            known_hosts_file=self._one("known_hosts"),
            verify=self._one("no_verify") in _OFF and self._one("known_hosts_verify") != "ignore",
            program=self._one("command") or "ssh",
        )

    @contextmanager
    def connecting(self) -> Iterator[str]:
        """The URI to open inside the block: an ssh transport must fail, not ask a terminal for a password, and not wait for ever."""
        if self._transport not in _SSH:
            yield self.text
            return
        changes: Dict[str, List[str]] = {} if "no_tty" in self._query else {"no_tty": ["1"]}
        route = self.route()
        if route is None or "command" in self._query:
            yield self._with(changes)
            return
        directory = _directory_for_programs()
        try:
            path = os.path.join(directory, "ssh")
            with open(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o700), "w", encoding="ascii") as stream:
                # It removes itself: whoever opens this URI may be killed for taking too long.
                stream.write(f'#!/bin/sh\nrm -rf -- {shlex.quote(directory)}\nexec ssh {quoted(route.settings())} "$@"\n')
            yield self._with(dict(changes, command=[path]))
        finally:
            shutil.rmtree(directory, ignore_errors=True)

    def _one(self, name: str) -> str:
        return (self._query.get(name) or [""])[-1]

    def _with(self, changes: Dict[str, Any]) -> str:
        if not changes:
            return self.text
        query = urlencode({**self._query, **changes}, doseq=True, quote_via=quote)
        return urlunsplit((self._parts.scheme, self._parts.netloc, self._parts.path, query, self._parts.fragment))


def _directory_for_programs() -> str:
    """A new directory on a file system from which programs may be started."""
    parents = [tempfile.gettempdir(), "/var/tmp", "/run", os.path.expanduser("~")]
    usable = [parent for parent in parents if os.access(parent, os.W_OK) and not os.statvfs(parent).f_flag & os.ST_NOEXEC]
    return tempfile.mkdtemp(prefix="sendense-ssh-", dir=(usable or parents)[0])
