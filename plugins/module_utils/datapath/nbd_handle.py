# Copyright: (c) 2026, Sendense contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Guarded NBD connections: nothing in here can hang, whatever the server does.

libnbd's blocking calls wait for ever for a server that was stopped or lost, so every exchange is an asynchronous command
that is polled in short slices against a time limit and a cancel check. This is the only file that imports libnbd.
"""

from __future__ import annotations

import errno
import mmap
import os
import socket
import time
from contextlib import ExitStack
from typing import Any, Callable, List, Optional, Sequence

from ..errors import (
    CopyFailedError,
    CopyStalledError,
    DependencyMissingError,
    ExportFailedError,
    JobCancelledError,
    RepositoryFullError,
    SendenseError,
    SourceVanishedError,
)
from .targets import UNIX, NbdTarget

try:
    import nbd
except ImportError:
    nbd = None

SOURCE, TARGET, EXPORT = "source", "target", "export"

#: What a server that advertises no maximum must accept (NBD protocol): bytes.
DEFAULT_MAX_BLOCK = 32 << 20

#: Bits of :meth:`NbdConnection.direction`, as libnbd has them.
READING, WRITING = 1, 2

_SLICE_MS = 200
_GONE = (errno.ENOTCONN, errno.EPIPE, errno.ECONNRESET, errno.ESHUTDOWN)

Completion = Callable[[int], None]


def never() -> bool:
    """The cancel check of what cannot be cancelled."""
    return False


def new_buffer(view: memoryview) -> Any:
    """A libnbd buffer that shares memory with the view: nothing is copied."""
    return nbd.Buffer.from_buffer(view)


def _acknowledge_at_once(descriptor: int) -> None:
    """Let the kernel acknowledge the next bytes on a TCP socket without delay; it forgets that by itself.

    qemu-nbd sends an answer of the handshake in several pieces, and Nagle's algorithm holds back each until the one before is
    acknowledged, which the kernel delays by 40 ms while this side has nothing to say.
    """
    if descriptor < 0:
        return  # not connected yet
    with socket.socket(fileno=os.dup(descriptor)) as connection:
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_QUICKACK, 1)


class NbdConnection:
    """One open NBD connection. Used by one thread at a time. ``role`` (source, target, export) shapes the errors."""

    def __init__(self, handle: Any, target: NbdTarget, role: str, timeout_s: float, cancelled: Callable[[], bool]) -> None:
        self._handle = handle
        self.target = target
        self.role = role
        self.timeout_s = timeout_s
        self._cancelled = cancelled

    @classmethod
    def open(
        cls,
        target: NbdTarget,
        *,
        role: str = EXPORT,
        contexts: Sequence[str] = (),
        timeout_s: float = 60.0,
        cancelled: Callable[[], bool] = never,
    ) -> "NbdConnection":
        """Connect within ``timeout_s`` seconds, asking for the metadata contexts.

        ExportFailedError if it is refused, silent or has no such export; DependencyMissingError; JobCancelledError.
        """
        if nbd is None:
            raise DependencyMissingError(
                "Cannot reach NBD exports: the Python library libnbd is not installed here. Install python3-libnbd.",
                details={"library": "nbd"},
            )
        handle = nbd.NBD()
        connection = cls(handle, target, role, timeout_s, cancelled)
        with ExitStack() as undo:
            undo.callback(connection.close)
            connection._connect(contexts)
            undo.pop_all()
        return connection

    def _connect(self, contexts: Sequence[str]) -> None:
        handle, target = self._handle, self.target
        handle.set_pread_initialize(False)  # no memset before every read: an error ends the disk anyway
        handle.set_strict_mode(handle.get_strict_mode() & ~nbd.STRICT_ALIGN)  # the last block of a disk may be short
        try:
            handle.set_export_name(target.export)
            for context in contexts:
                handle.add_meta_context(context)
            if target.transport == UNIX:
                handle.aio_connect_unix(target.socket)
            else:
                handle.aio_connect_tcp(target.host, str(target.port))
            self._wait(self._has_connected, "connect", fixed=True)
        except nbd.Error as exc:
            raise self._refused(exc.string) from None
        except CopyStalledError:
            raise self._refused(f"no answer within {self.timeout_s:g} s") from None
        if not handle.aio_is_ready():
            raise self._refused("the server ended the connection")

    def _has_connected(self) -> bool:
        """Whether the handshake is over, either way. Called before each wait of it."""
        if not self._handle.aio_is_connecting():
            return True
        if self.target.transport != UNIX:
            _acknowledge_at_once(int(self._handle.aio_get_fd()))
        return False

    def _refused(self, why: str) -> ExportFailedError:
        return ExportFailedError(
            f"Cannot connect to the {self.role} {self.target.uri()} of {self.target.key}: {why}. "
            "Check that its server runs, offers this export name and admits another client.",
            details=self._facts(reason=why),
        )

    # --- what the server offers ---------------------------------------------------------------------------------

    @property
    def size(self) -> int:
        """Bytes of the export."""
        return int(self._handle.get_size())

    @property
    def read_only(self) -> bool:
        """Whether it refuses writes."""
        return bool(self._handle.is_read_only())

    @property
    def can_flush(self) -> bool:
        """Whether it can be told to make writes durable."""
        return bool(self._handle.can_flush())

    @property
    def can_zero(self) -> bool:
        """Whether it can write zeros without receiving them."""
        return bool(self._handle.can_zero())

    @property
    def can_multi_conn(self) -> bool:
        """Whether several connections to this export see the same content."""
        return bool(self._handle.can_multi_conn())

    @property
    def min_block(self) -> int:
        """Bytes: the alignment that it demands of requests."""
        return int(self._handle.get_block_size(nbd.SIZE_MINIMUM)) or 1

    @property
    def max_block(self) -> int:
        """Bytes: the largest request that it accepts."""
        return int(self._handle.get_block_size(nbd.SIZE_MAXIMUM)) or DEFAULT_MAX_BLOCK

    def has_context(self, context: str) -> bool:
        """Whether it agreed to report this metadata context."""
        return bool(self._handle.can_meta_context(context))

    # --- one exchange at a time, before and after the pipeline ----------------------------------------------------

    def read_discard(self, offset: int, length: int) -> int:
        """Read and forget; returns the errno, 0 if it worked. A lost connection is raised, as in :meth:`block_status`."""
        memory = mmap.mmap(-1, length, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
        buffer = new_buffer(memoryview(memory))
        try:
            return self._exchange(lambda done: self._handle.aio_pread(buffer, offset, completion=done), "read")
        finally:
            memory.madvise(mmap.MADV_DONTNEED)  # libnbd's binding never forgets a buffer, so its memory is given back by hand

    def block_status(self, context: str, offset: int, length: int) -> List[int]:
        """Flat list of (length, flags) pairs from ``offset`` on.

        CopyFailedError, CopyStalledError; SourceVanishedError or ExportFailedError if the connection has ended.
        """
        entries: List[int] = []

        def extent(name: str, start: int, found: List[int], _error: Any) -> int:
            if name == context and start == offset:
                entries.extend(found)
            return 0

        code = self._exchange(lambda done: self._handle.aio_block_status(length, offset, extent, completion=done), "block status")
        if code:
            raise self.failure("report the block status of", offset, length, code)
        return entries

    def _exchange(self, start: Callable[[Callable[[Any], int]], Any], what: str) -> int:
        outcome: List[int] = []

        def completed(error: Any) -> int:
            outcome.append(int(error.value))
            return 1

        try:
            start(completed)
            self._wait(lambda: bool(outcome), what)
        except nbd.Error as exc:
            raise self.vanished(exc.string) from None
        if self._handle.aio_is_dead() or self._handle.aio_is_closed():
            raise self.vanished(os.strerror(outcome[0]))  # also where the caller needs no answer: nothing else will be answered
        return outcome[0]

    def _wait(self, finished: Callable[[], bool], what: str, fixed: bool = False) -> None:
        """Drive the connection until finished; the limit counts from the last byte, or from now if ``fixed``."""
        limit = time.monotonic() + self.timeout_s
        while not finished():
            if self._cancelled():
                raise JobCancelledError(f"Cancelled while waiting for the {self.role} of {self.target.key}.")
            if time.monotonic() >= limit:
                raise self.stalled(self.timeout_s, what)
            if self._handle.poll(_SLICE_MS) and not fixed:
                limit = time.monotonic() + self.timeout_s

    # --- asynchronous commands for the pipeline -------------------------------------------------------------------

    def fileno(self) -> int:
        """The socket to poll. SourceVanishedError or ExportFailedError if there is none any more."""
        try:
            return int(self._handle.aio_get_fd())
        except nbd.Error as exc:
            raise self.vanished(exc.string) from None

    def direction(self) -> int:
        """Whether to poll for READING, WRITING or both. SourceVanishedError or ExportFailedError if the connection has ended."""
        direction = int(self._handle.aio_get_direction())
        if not direction and (self._handle.aio_is_dead() or self._handle.aio_is_closed()):
            raise self.vanished("the server ended the connection")
        return direction

    def notify(self, readable: bool) -> None:
        """Tell libnbd that the socket is readable (else writable). Completions run in here; :meth:`direction` afterwards."""
        try:
            if readable:
                self._handle.aio_notify_read()
            else:
                self._handle.aio_notify_write()
        except nbd.Error as exc:
            raise self.vanished(exc.string) from None

    def start_read(self, buffer: Any, offset: int, done: Completion) -> None:
        """Begin a read; ``done(errno)`` is called later and must only take note."""
        self._start(lambda completed: self._handle.aio_pread(buffer, offset, completion=completed), done)

    def start_write(self, buffer: Any, offset: int, done: Completion) -> None:
        """Begin a write; the buffer must stay as it is until ``done``."""
        self._start(lambda completed: self._handle.aio_pwrite(buffer, offset, completion=completed), done)

    def start_zero(self, length: int, offset: int, done: Completion) -> None:
        """Begin to write zeros that may become a hole."""
        self._start(lambda completed: self._handle.aio_zero(length, offset, completion=completed), done)

    def start_flush(self, done: Completion) -> None:
        """Begin to make all completed writes durable."""
        self._start(lambda completed: self._handle.aio_flush(completion=completed), done)

    def _start(self, command: Callable[[Callable[[Any], int]], Any], done: Completion) -> None:
        def completed(error: Any) -> int:
            done(int(error.value))
            return 1  # retires the command

        try:
            command(completed)
        except nbd.Error as exc:
            raise self.vanished(exc.string) from None

    # --- errors and the end ---------------------------------------------------------------------------------------

    def failure(self, verb: str, offset: int, length: int, code: int) -> SendenseError:
        """The typed error for a command that the server answered with an errno."""
        if code in _GONE:
            return self.vanished(os.strerror(code))
        name = errno.errorcode.get(code, str(code))
        details = self._facts(offset=offset, length=length, errno=name)
        where = f"{length} bytes at {offset} of the {self.role} of {self.target.key} ({self.target.uri()})"
        if code == errno.ENOSPC:
            return RepositoryFullError(f"Cannot {verb} {where}: the storage is full. Free space and run again.", details=details)
        return CopyFailedError(
            f"Cannot {verb} {where}: {os.strerror(code)}. Look at the storage behind this export, then run again.",
            details=details,
        )

    def vanished(self, why: str) -> SendenseError:
        """The typed error for a connection that ended."""
        cls = SourceVanishedError if self.role == SOURCE else ExportFailedError
        return cls(
            f"The {self.role} of {self.target.key} ({self.target.uri()}) went away: {why}. "
            "Look at its server and its host, then run again.",
            details=self._facts(reason=why),
        )

    def stalled(self, seconds: float, what: str) -> CopyStalledError:
        """The typed error for a server that owes an answer and sends nothing."""
        return CopyStalledError(
            f"The {self.role} of {self.target.key} ({self.target.uri()}) sent nothing for {seconds:g} s ({what}). "
            "Its server or storage hangs, or the network is cut.",
            details=self._facts(seconds=seconds, during=what),
        )

    def _facts(self, **more: Any) -> "dict[str, Any]":
        return {"disk": self.target.key, "role": self.role, "uri": self.target.uri(), **more}

    def close(self) -> None:
        """Drop the connection without waiting for the server; commands in flight are forgotten. Repetition is a no-op."""
        handle: Optional[Any] = self._handle
        self._handle = None
        if handle is None:
            return
        try:
            if handle.aio_is_ready():
                handle.aio_disconnect()  # only queued: a stopped server cannot hold us up
        except nbd.Error:
            pass  # the server has already gone
        # The binding closes only in its destructor; do it now, once, whoever else still holds the object.
        handle.__del__()
        del handle._o
