# Copyright: (c) 2026, Sendense contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Files of a local repository: durable, never through a symbolic link, and every failure typed.

The only place of the local backend that writes, renames and removes; tests make each of these calls fail in turn.
"""

from __future__ import annotations

import ctypes
import errno
import fcntl
import os
import stat
import time
from contextlib import ExitStack, contextmanager, suppress
from typing import Iterable, Iterator, List, Optional, Sequence

from ..errors import CapabilityMissingError, LeaseHeldError, RepositoryFullError, RepositoryIoError, SendenseError

_READ = os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK
_NEW = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_COPY_BYTES = 1 << 20
#: What opening says if there is no plain file of this name.
_NO_PLAIN_FILE = (errno.ENOENT, errno.ENOTDIR, errno.ELOOP, errno.ENXIO)
#: What a file system says that has no hard links, or no more of them.
_NO_LINKS = (errno.EPERM, errno.EOPNOTSUPP, errno.ENOSYS, errno.EMLINK)
_AT_CWD, _RENAME_EXCHANGE = -100, 2
_renameat2 = getattr(ctypes.CDLL(None, use_errno=True), "renameat2", None)
#: Seconds to wait for another process that changes the same machine's directory; it holds the lock for a few fsyncs.
LOCK_WAIT_S = 60.0
_LOCK_POLL_S = 0.02


@contextmanager
def storage(action: str, path: str) -> Iterator[None]:
    """Turn an OSError into RepositoryFullError or RepositoryIoError that says what was being done to which path."""
    try:
        yield
    except OSError as error:
        raise storage_error(action, path, error) from error


def storage_error(action: str, path: str, error: OSError) -> SendenseError:
    """What the storage said, as RepositoryFullError or RepositoryIoError."""
    details = {"path": path, "errno": error.errno, "action": action}
    why = error.strerror or type(error).__name__
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return RepositoryFullError(f"Cannot {action} {path}: {why}. Free space in the repository.", details=details)
    return RepositoryIoError(f"Cannot {action} {path}: {why}. Check the storage below the repository, then run again.", details=details)


@contextmanager
def storage_below(action: str, path: str) -> Iterator[None]:
    """As :func:`storage` for code that calls every failed read a damaged file: storage that fails is no damage."""
    try:
        yield
    except SendenseError as error:
        cause = error.__cause__
        if not isinstance(cause, OSError) or cause.errno in _NO_PLAIN_FILE:
            raise
        raise storage_error(action, path, cause) from cause


def read_file(path: str, limit: int) -> Optional[bytes]:
    """At most ``limit`` + 1 bytes of a plain file; None if there is no plain file of this name. RepositoryIoError."""
    with storage("read", path):
        try:
            descriptor = os.open(path, _READ)
        except OSError as error:
            if error.errno in _NO_PLAIN_FILE:
                return None
            raise
        try:
            if not stat.S_ISREG(os.fstat(descriptor).st_mode):
                return None
            with open(descriptor, "rb", closefd=False) as stream:
                return stream.read(limit + 1)
        finally:
            os.close(descriptor)


def file_size(path: str) -> Optional[int]:
    """Bytes of a plain file; None if there is no plain file of this name. RepositoryIoError."""
    status = _status(path)
    return status.st_size if status is not None and stat.S_ISREG(status.st_mode) else None


def is_directory(path: str) -> bool:
    """Whether a real directory, not a link to one, has this name. RepositoryIoError."""
    status = _status(path)
    return status is not None and stat.S_ISDIR(status.st_mode)


def exists(path: str) -> bool:
    """Whether anything has this name, a dangling link included. RepositoryIoError."""
    return _status(path) is not None


def names(path: str) -> List[str]:
    """Names in a directory, sorted; none if there is no such directory. RepositoryIoError."""
    with storage("list", path):
        try:
            return sorted(os.listdir(path))
        except FileNotFoundError:
            return []


def make_directory(path: str) -> None:
    """Make a directory (0700) durably; no-op if it is there. RepositoryIoError, RepositoryFullError."""
    with storage("create the directory", path):
        with suppress(FileExistsError):
            os.mkdir(path, 0o700)
            sync_directory(os.path.dirname(path))


def write_durable(path: str, content: bytes) -> None:
    """Replace a file as a whole: after a crash there is the old one or the new one. RepositoryIoError, RepositoryFullError."""
    temporary = temporary_name(path)
    with storage("write", path):
        with suppress(FileNotFoundError):
            os.unlink(temporary)
        try:
            _write_new(temporary, [content])
            os.rename(temporary, path)
        except OSError:
            with suppress(OSError):
                os.unlink(temporary)
            raise
        sync_directory(os.path.dirname(path))


def temporary_name(path: str) -> str:
    """Where :func:`write_durable` prepares the new content of ``path``."""
    return os.path.join(os.path.dirname(path), f".{os.path.basename(path)}.tmp")


def copy_file(source: str, path: str) -> None:
    """Copy a file of this place to a new file, durably. RepositoryIoError, RepositoryFullError."""
    with storage(f"copy {source} to", path):
        with open(source, "rb") as stream:
            _write_new(path, iter(lambda: stream.read(_COPY_BYTES), b""))


def rename(path: str, new_path: str) -> None:
    """Rename within one directory, durably. RepositoryIoError."""
    with storage("rename", path):
        os.rename(path, new_path)
        sync_directory(os.path.dirname(new_path))


def exchange(path: str, other: str) -> bool:
    """Let two names of one directory change places, in one step and durably; False if this system cannot. RepositoryIoError."""
    with storage("exchange", path):
        if _renameat2 is None:
            return False
        if _renameat2(_AT_CWD, os.fsencode(path), _AT_CWD, os.fsencode(other), _RENAME_EXCHANGE):
            number = ctypes.get_errno()
            if number in (errno.EINVAL, errno.ENOSYS):
                return False
            raise OSError(number, os.strerror(number), path)
        sync_directory(os.path.dirname(path))
        return True


def link(path: str, new_path: str) -> None:
    """Give a file a second name; one that is there is replaced. Durable with its directory. CapabilityMissingError, RepositoryIoError."""
    with storage("link", new_path):
        with suppress(FileNotFoundError):
            os.unlink(new_path)
        try:
            os.link(path, new_path, follow_symlinks=False)
        except OSError as error:
            if error.errno not in _NO_LINKS:
                raise
            raise CapabilityMissingError(
                f"Cannot give {path} a second name: {error.strerror}. Backups are merged only on a file system with hard links;"
                " delete whole chains instead.",
                details={"path": path, "errno": error.errno},
            ) from error


def allocated_bytes(path: str) -> int:
    """Bytes that a file occupies, holes left out; 0 if it is gone. RepositoryIoError."""
    status = _status(path)
    return status.st_blocks * 512 if status is not None else 0


def remove_file(path: str) -> bool:
    """Remove a file durably; False if it was gone. RepositoryIoError."""
    with storage("remove", path):
        try:
            os.unlink(path)
        except FileNotFoundError:
            return False
        sync_directory(os.path.dirname(path))
        return True


def remove_directory(path: str, last: Sequence[str] = ()) -> bool:
    """Remove a directory of files, the files named ``last`` at the end; False if it was gone. RepositoryIoError.

    Restartable at every step. Links are removed, never followed; a directory inside is not ours and stops it.
    """
    with storage("remove", path):
        try:
            found = os.listdir(path)
        except FileNotFoundError:
            return False
        for name in sorted(found, key=lambda entry: (entry in last, entry)):
            os.unlink(os.path.join(path, name))
        os.rmdir(path)
        sync_directory(os.path.dirname(path))
        return True


def supports_direct(path: str) -> bool:
    """Whether this plain file can be read past the page cache."""
    try:
        os.close(os.open(path, _READ | os.O_DIRECT))
    except OSError:
        return False
    return True


def sync_file(path: str) -> None:
    """Make a file's content durable. RepositoryIoError."""
    with storage("flush", path):
        descriptor = os.open(path, _READ)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def sync_directory(path: str) -> None:
    """Make a directory's entries durable. RepositoryIoError."""
    with storage("flush the directory", path):
        descriptor = os.open(path, _DIRECTORY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


@contextmanager
def locked(path: str, wait_s: float = LOCK_WAIT_S) -> Iterator[None]:
    """Hold the lock file ``path`` for a short change. LeaseHeldError (retryable) after ``wait_s`` seconds."""
    with storage("open the lock", path):
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    try:
        _lock(descriptor, path, wait_s)
        yield
    finally:
        os.close(descriptor)


@contextmanager
def undone_on_error(directory: str) -> Iterator[None]:
    """Remove ``directory`` if the block fails; a second failure while removing does not hide the first."""
    with ExitStack() as undo:
        undo.callback(_remove_quietly, directory)
        yield
        undo.pop_all()


def _remove_quietly(directory: str) -> None:
    with suppress(SendenseError):
        remove_directory(directory)


def _lock(descriptor: int, path: str, wait_s: float) -> None:
    deadline = time.monotonic() + wait_s
    while True:
        with storage("lock", path):
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                return
            except BlockingIOError:
                pass
        if time.monotonic() >= deadline:
            raise LeaseHeldError(
                f"Cannot lock {path}: another process has been changing this machine's backups for {wait_s:g} s. Try again later.",
                details={"path": path},
            )
        time.sleep(_LOCK_POLL_S)


def _write_new(path: str, pieces: Iterable[bytes]) -> None:
    descriptor = os.open(path, _NEW, 0o600)
    try:
        for piece in pieces:
            rest = memoryview(piece)
            while rest:
                rest = rest[os.write(descriptor, rest) :]
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _status(path: str) -> Optional[os.stat_result]:
    with storage("look at", path):
        try:
            return os.lstat(path)
        except (FileNotFoundError, NotADirectoryError):
            return None
