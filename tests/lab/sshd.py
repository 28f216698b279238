# Copyright: (c) 2026, Sendense contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A real sshd of the lab, beside whatever the machine itself runs: own keys, own port, own log, own mount namespace.

    with Sshd(directory, port=2222, keys=[make_key(directory / "id")]) as sshd:
        sshd.known_hosts(directory / "known_hosts")

Users are those of the machine; only the given keys are let in. Everything that is started through it carries its mount namespace,
by which :meth:`Sshd.processes` finds it whatever its parent or pid namespace is.
"""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import time
from pathlib import Path
from typing import Dict, List, Optional, Sequence

from . import sshd_namespace
from .paths import PARTS, LabError
from .processes import kill_all

_CONFIG = """\
ListenAddress {address}
Port {port}
HostKey {directory}/host_key
PidFile none
AuthorizedKeysFile {directory}/authorized_keys
StrictModes no
PermitRootLogin prohibit-password
PasswordAuthentication no
KbdInteractiveAuthentication no
UsePAM no
UseDNS no
PrintMotd no
PrintLastLog no
MaxStartups 200
MaxSessions 100
Subsystem sftp internal-sftp
"""


def make_key(path: "os.PathLike[str] | str") -> str:
    """Make a key pair without a passphrase at ``path`` and ``path``.pub, unless it is there; returns the public line."""
    if not os.path.exists(path):
        argv = ["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", "", "-f", os.fspath(path)]
        subprocess.run(argv, check=True, stdin=subprocess.DEVNULL)
    return Path(f"{os.fspath(path)}.pub").read_text().strip()


class Sshd:
    """One server. ``directory`` is its own; ``keys`` are public lines that may log in, ``options`` lines of sshd_config that win
    over the lab's, ``prefix`` an argv that enters the namespaces in which it shall run (``nsenter ...``).
    """

    def __init__(
        self,
        directory: "os.PathLike[str] | str",
        address: str = "127.0.0.1",
        port: int = 2222,
        keys: Sequence[str] = (),
        options: Sequence[str] = (),
        prefix: Sequence[str] = (),
    ) -> None:
        self.directory, self.address, self.port = Path(directory).resolve(), address, port
        self.keys, self.options, self.prefix = list(keys), list(options), list(prefix)
        self.log = self.directory / "sshd.log"
        self._process: Optional["subprocess.Popen[bytes]"] = None

    @property
    def host_key(self) -> str:
        """The public key of the server, as a line of a known_hosts file without its names."""
        self.directory.mkdir(parents=True, exist_ok=True)
        return make_key(self.directory / "host_key")

    def known_hosts(self, path: "os.PathLike[str] | str") -> Path:
        """Add the server to a known_hosts file, which is returned."""
        with open(path, "a", encoding="ascii") as stream:
            stream.write(f"[{self.address}]:{self.port} {self.host_key}\n{self.address} {self.host_key}\n")
        return Path(path)

    # --- life ------------------------------------------------------------------------------------------------------

    def start(self, timeout_s: float = 20.0) -> "Sshd":
        """Listen; LabError with its last words if it does not."""
        (self.directory / "run").mkdir(parents=True, exist_ok=True)
        (self.directory / "run").chmod(0o755)
        assert self.host_key
        (self.directory / "authorized_keys").write_text("".join(f"{key}\n" for key in self.keys))
        config = self.directory / "sshd_config"
        own = _CONFIG.format(address=self.address, port=self.port, directory=self.directory)
        config.write_text("".join(f"{line}\n" for line in self.options) + own)  # the first value of a keyword counts
        argv = [*self.prefix, "/usr/bin/python3", "-I", sshd_namespace.__file__, str(self.directory), *_program()]
        self.log.unlink(missing_ok=True)
        with self.log.open("ab") as log:
            self._process = subprocess.Popen(
                [*argv, "-D", "-e", "-f", str(config)], stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True, cwd="/"
            )
        self._await(timeout_s)
        return self

    def stop(self) -> None:
        """End the server, its sessions and everything that was started through it. Repetition is a no-op."""
        kill_all(self.processes)
        process, self._process = self._process, None
        if process is not None:
            process.kill()
            process.wait()

    def cut(self) -> None:
        """Break every connection at once, as a dead link does, and refuse none that comes after."""
        for pid in self.sessions():
            _kill(pid)

    def __enter__(self) -> "Sshd":
        return self.start()

    def __exit__(self, *exc: object) -> None:
        self.stop()

    # --- processes -------------------------------------------------------------------------------------------------

    def processes(self) -> Dict[int, str]:
        """The server, its sessions and whatever was started through them, pid to command name."""
        found: Dict[int, str] = {}
        try:
            ours = os.stat(self.directory / "run")
        except FileNotFoundError:
            return found
        for entry in os.listdir("/proc"):
            try:
                if entry.isdigit() and os.path.samestat(ours, os.stat(f"/proc/{entry}/root{sshd_namespace.RUN}")):
                    found[int(entry)] = Path(f"/proc/{entry}/comm").read_text().strip()
            except (FileNotFoundError, ProcessLookupError, PermissionError):
                continue
        return found

    def sessions(self) -> List[int]:
        """Every sshd of it but the oldest, which listens."""
        return sorted((pid for pid, name in self.processes().items() if name == "sshd"), key=_age)[1:]

    def _await(self, timeout_s: float) -> None:
        deadline = time.monotonic() + timeout_s
        while f"Server listening on {self.address} port {self.port}" not in self.log.read_text(errors="replace"):
            if self._process is None or self._process.poll() is not None or time.monotonic() > deadline:
                words = self.log.read_text(errors="replace")[-1000:]
                self.stop()
                raise LabError(f"sshd does not listen on {self.address} port {self.port}: {words}")
            time.sleep(0.02)


def _program() -> List[str]:
    """The distribution's sshd: unpacked below build/lab, where its library may be, too, or installed."""
    unpacked = PARTS / "usr" / "sbin" / "sshd"
    if unpacked.exists():
        libraries = sorted({str(path.parent) for path in (PARTS / "usr" / "lib").glob("*/libwrap.so.0")})
        return ["/usr/bin/env", f"LD_LIBRARY_PATH={':'.join(libraries)}", str(unpacked)] if libraries else [str(unpacked)]
    installed = shutil.which("sshd", path="/usr/sbin:/usr/local/sbin:/sbin")
    if installed is None:
        raise LabError("there is no sshd; run ./scripts/bootstrap.sh")
    return [installed]


def _age(pid: int) -> int:
    try:
        return int(Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[19])
    except (FileNotFoundError, ProcessLookupError):
        return 1 << 62


def _kill(pid: int) -> None:
    try:
        os.kill(pid, signal.SIGKILL)
    except ProcessLookupError:
        return
