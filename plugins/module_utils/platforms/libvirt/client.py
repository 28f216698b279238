# Copyright: (c) 2026, Sendense contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The connection to one libvirt host, and the one place where libvirt's errors become typed errors.

No event loop is registered: the process that uses this may be a module that lives for a second. Without one libvirt
offers no keepalive: over ssh that of ssh stands in for it, and guest agent calls carry their own timeout.
"""

from __future__ import annotations

import errno
import os
from contextlib import contextmanager
from typing import Any, Dict, Iterator, Optional, Type

from ...datapath.ssh_route import SshRoute, require_plain, run
from ...errors import (
    CapabilityMissingError,
    DependencyMissingError,
    ForeignJobError,
    InvalidInputError,
    MachineNotFoundError,
    PlatformAuthenticationError,
    PlatformUnreachableError,
    SendenseError,
    SnapshotFailedError,
)
from .host_files import HostFiles, LocalFiles, RemoteFiles
from .uri import Uri

try:
    import libvirt
except ImportError:
    libvirt = None

DEFAULT_URI = "qemu:///system"
#: Where qemu makes its socket and scratch files at a host that is not this place: there, and open to every user, at any host.
REMOTE_SCRATCH_DIR = "/var/tmp"

#: Connection options and their defaults; ``docs/reference/platforms/libvirt.md`` explains them.
OPTIONS: Dict[str, Any] = {
    "uri": DEFAULT_URI,
    "username": "",
    "password": "",
    "domain_type": "auto",
    "scratch_dir": "",
    "agent_timeout": 10,
    "console_log": "",
}

_AUTHENTICATION = (
    "VIR_ERR_AUTH_FAILED",
    "VIR_ERR_AUTH_CANCELLED",
    "VIR_ERR_AUTH_UNAVAILABLE",
    "VIR_ERR_ACCESS_DENIED",
    "VIR_ERR_OPERATION_DENIED",
)
_UNREACHABLE = ("VIR_ERR_NO_CONNECT", "VIR_ERR_RPC", "VIR_ERR_INVALID_CONN", "VIR_ERR_LIBSSH", "VIR_ERR_SSH", "VIR_ERR_UNKNOWN_HOST")
#: What libvirt says if ssh says more than 1 KiB, as it does of a host key that has changed.
_TOO_MUCH_TEXT = os.strerror(errno.EOVERFLOW)
_REFUSAL_TEXTS = ("Permission denied", "Authentication fail", "authentication failed", "Host key verification failed")
_LOST_TEXTS = ("client socket is closed", "keepalive timeout", "Cannot recv data", "Cannot write data", "End of file while reading data")


def _ignore(_context: object, _error: object) -> None:
    """libvirt prints every error to stderr by default; here each one is raised instead."""


class Client:
    """One connection. ``options`` are the connection dict of the registry; InvalidInputError for what cannot be meant."""

    def __init__(self, options: Dict[str, Any]) -> None:
        unknown = sorted(set(options) - set(OPTIONS))
        if unknown:
            raise InvalidInputError(f"Unknown libvirt connection option {unknown[0]!r}. Known are: {', '.join(OPTIONS)}.")
        given = {name: value for name, value in options.items() if value is not None}
        self.options: Dict[str, Any] = {**OPTIONS, **given}
        self._uri = Uri(str(self.options["uri"]))
        self.route: Optional[SshRoute] = self._uri.route()
        if self.route is not None:
            require_plain(self.scratch_dir)
        self._handle: Any = None

    def connect(self) -> None:
        """Open the connection, or open it again if it broke. PlatformUnreachableError, PlatformAuthenticationError."""
        if libvirt is None:
            raise DependencyMissingError(
                "The Python library libvirt is not installed at this place; install the package python3-libvirt.",
                details={"library": "libvirt"},
            )
        if self._handle is not None and self._is_alive():
            return
        self.close()
        libvirt.registerErrorHandler(_ignore, None)
        with mapped(f"Cannot connect to libvirt at {self._shown_uri()}", PlatformUnreachableError):
            try:
                with self._uri.connecting() as uri:
                    self._handle = libvirt.openAuth(uri, self._credentials(), 0)
            except libvirt.libvirtError as error:
                if self.route is not None and _TOO_MUCH_TEXT in str(error):
                    run(self.route, ["true"])  # fails, and says why
                raise
            except OSError as error:
                raise PlatformUnreachableError(
                    f"Cannot connect to libvirt at {self._shown_uri()}: {error.strerror} ({error.filename}). The ssh that libvirt starts "
                    "needs a directory for temporary files."
                ) from error

    def close(self) -> None:
        """Close; never raises."""
        handle, self._handle = self._handle, None
        if handle is None:
            return
        try:
            handle.close()
        except libvirt.libvirtError:
            return

    @property
    def handle(self) -> Any:
        """The open ``virConnect``."""
        if self._handle is None:
            raise PlatformUnreachableError(f"Not connected to libvirt at {self._shown_uri()}: call connect() first.")
        return self._handle

    def domain(self, machine_id: str) -> Any:
        """The domain with this uuid. MachineNotFoundError."""
        try:
            return self.handle.lookupByUUIDString(machine_id)
        except libvirt.libvirtError as exc:
            if exc.get_error_code() in (libvirt.VIR_ERR_NO_DOMAIN, libvirt.VIR_ERR_INVALID_ARG):
                raise MachineNotFoundError(
                    f"There is no machine {machine_id!r} at {self._shown_uri()}. Discover again.", details={"machine_id": machine_id}
                ) from exc
            raise translate(exc, f"Cannot look up machine {machine_id!r}") from exc

    @property
    def remote(self) -> bool:
        """Whether the libvirt host is another machine than this place: then no path of a machine is one of ours."""
        return self._uri.remote

    @property
    def files(self) -> HostFiles:
        """The files of the libvirt host. CapabilityMissingError if there is no way to them."""
        if not self.remote:
            return LocalFiles()
        return RemoteFiles(self.require_route())

    @property
    def scratch_dir(self) -> str:
        """The directory at the libvirt host for sockets and scratch files; empty: the one that the job has there."""
        return str(self.options["scratch_dir"]) or (REMOTE_SCRATCH_DIR if self.remote else "")

    @property
    def uri_there(self) -> str:
        """The URI of this libvirt for a program at its own host."""
        return self._uri.there

    def require_local(self, what: str) -> None:
        """CapabilityMissingError for a remote URI; ``what`` needs the images by path, in the words of its message."""
        if self.remote:
            raise CapabilityMissingError(
                f"{what} needs libvirt on the node itself, but {self._shown_uri()} is remote. Make the libvirt host a node of its own."
            )

    def require_route(self) -> SshRoute:
        """How ssh reaches a remote host. CapabilityMissingError if the URI says another transport."""
        if self.route is None:
            raise CapabilityMissingError(
                f"Nothing of a machine can be read over {self._shown_uri()}: the way to its disks is ssh. Use qemu+ssh://, or make the "
                "libvirt host a node of its own."
            )
        return self.route

    def _is_alive(self) -> bool:
        try:
            return bool(self._handle.isAlive())
        except libvirt.libvirtError:
            return False

    def _credentials(self) -> Any:
        wanted = [libvirt.VIR_CRED_AUTHNAME, libvirt.VIR_CRED_PASSPHRASE]

        def answer(questions: Any, _data: Any) -> int:
            for question in questions:
                name = "username" if question[0] == libvirt.VIR_CRED_AUTHNAME else "password"
                if not self.options[name]:
                    return -1
                question[4] = self.options[name]
            return 0

        return [wanted, answer, None]

    def _shown_uri(self) -> str:
        return self._uri.shown


@contextmanager
def mapped(action: str, default: Type[SendenseError] = SnapshotFailedError) -> Iterator[None]:
    """Turn a libvirt error inside into a typed one; ``action`` begins its message: what failed, on which object."""
    try:
        yield
    except libvirt.libvirtError as exc:
        raise translate(exc, action, default) from exc


def translate(exc: Any, action: str, default: Type[SendenseError] = SnapshotFailedError) -> SendenseError:
    """The typed error for a libvirt error; ``default`` for what has no meaning of its own."""
    text = str(exc)
    details = {"libvirt_code": exc.get_error_code(), "libvirt_domain": exc.get_error_domain(), "libvirt_message": text}
    chosen, remedy = _classify(exc, text)
    return (chosen or default)(f"{action}: {text}. {remedy}".strip(), details=details)


def _classify(exc: Any, text: str) -> "tuple[Optional[Type[SendenseError]], str]":
    code = exc.get_error_code()
    if code in _codes(_AUTHENTICATION) or any(refusal in text for refusal in _REFUSAL_TEXTS):
        return (
            PlatformAuthenticationError,
            "Check the user, the key or password, the host key, and the rights (group, polkit).",
        )
    transport = exc.get_error_domain() in _codes(("VIR_FROM_RPC", "VIR_FROM_REMOTE")) and code == libvirt.VIR_ERR_SYSTEM_ERROR
    if code in _codes(_UNREACHABLE) or transport or any(lost in text for lost in _LOST_TEXTS):
        return PlatformUnreachableError, "Check that libvirtd runs and that the URI is right."
    if code == libvirt.VIR_ERR_NO_DOMAIN:
        return MachineNotFoundError, "Discover again."
    if code == libvirt.VIR_ERR_OPERATION_TIMEOUT:
        return ForeignJobError, "Another job holds the machine; it was not touched. Try again when it has ended."
    return None, ""


def _codes(names: Any) -> "set[int]":
    """The numbers of these constants, as far as the installed libvirt has them."""
    return {getattr(libvirt, name) for name in names if hasattr(libvirt, name)}
