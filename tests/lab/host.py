# Copyright: (c) 2026, Sendense contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A libvirt host of the lab: the distribution's libvirtd, privately, with qemu under TCG.

Several hosts run side by side: each has its own mount namespace in which libvirt's directories are its own. From
outside it is reached by its socket, and every path that matters (sockets, disks, logs) lies in the host's directory.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import signal
import socket
import subprocess
import time
from pathlib import Path
from typing import Dict, List, Optional

import libvirt

from . import namespace
from .paths import CAPABILITIES, LabError
from .processes import alive, command_line, kill_all, start_ticks, wait_gone

#: A unix socket's path may have 107 bytes.
_SOCKET_LIMIT = 107

#: Debian's default for ``user`` and ``group`` in qemu.conf; read before our own qemu.conf is.
_ACCOUNT = "libvirt-qemu"

_QEMU_CONF = """\
user = "root"
group = "root"
security_driver = "none"
dynamic_ownership = 0
remember_owner = 0
cgroup_controllers = [ ]
namespaces = [ ]
stdio_handler = "file"
"""

_LIBVIRTD_CONF = """\
listen_tls = 0
listen_tcp = 0
unix_sock_dir = "/run/libvirt"
auth_unix_rw = "none"
auth_unix_ro = "none"
log_outputs = "3:file:/var/log/libvirt/libvirtd.log"
host_uuid = "{host_uuid}"
"""

_NETWORK = "<network><name>{name}</name><forward mode='bridge'/><bridge name='{bridge}'/></network>"


_UNDEFINE = (
    libvirt.VIR_DOMAIN_UNDEFINE_MANAGED_SAVE
    | libvirt.VIR_DOMAIN_UNDEFINE_SNAPSHOTS_METADATA
    | libvirt.VIR_DOMAIN_UNDEFINE_CHECKPOINTS_METADATA
    | libvirt.VIR_DOMAIN_UNDEFINE_NVRAM
)


def _quiet(_context: object, _error: object) -> None:
    """libvirt prints every error to stderr by default; here they are exceptions only."""


libvirt.registerErrorHandler(_quiet, None)


class LibvirtHost:
    """One libvirt host. ``base_dir`` holds one directory per host; keep it short (sockets)."""

    def __init__(self, name: str, base_dir: "os.PathLike[str] | str") -> None:
        self.name = name
        self.dir = Path(base_dir).resolve() / name
        self.socket = self.dir / "run" / "libvirt-sock"
        self.pid_file = self.dir / "libvirtd.pid"
        self.log_file = self.dir / "log" / "libvirtd.log"
        self.guests_dir = self.dir / "guests"
        self._connection: Optional[libvirt.virConnect] = None
        self._child: Optional["subprocess.Popen[bytes]"] = None
        if len(os.fsencode(self.socket)) > _SOCKET_LIMIT:
            raise LabError(f"cannot run host {name!r} under {base_dir}: its socket path is too long; use a shorter base_dir")

    @property
    def uri(self) -> str:
        """The URI that reaches this host from outside its namespace."""
        return f"qemu:///system?socket={self.socket}"

    # --- life ------------------------------------------------------------------------------------------------------

    def start(self, timeout_s: float = 90.0) -> "LibvirtHost":
        """Start libvirtd and wait until it answers; a running one is kept. LabError if it dies or stays silent."""
        if self.pid is None:
            self._prepare()
            self._spawn()
        self._await(timeout_s)
        self._keep_capabilities()
        return self

    def stop(self) -> None:
        """End libvirtd, every qemu of this host and its networks, and remove its directory. Repetition is a no-op."""
        self.close()
        self._signal(signal.SIGTERM)
        if self.dir.is_dir():
            kill_all(self.processes, spare=self.pid)
        self._reap(5.0)
        for link in self._bridges():
            if Path(f"/sys/class/net/{link}").exists():
                _ip("link", "delete", link)
        shutil.rmtree(self.dir, ignore_errors=True)

    def kill(self) -> None:
        """SIGKILL libvirtd alone, as a crash does; its guests keep running."""
        self.close()
        self._signal(signal.SIGKILL)
        self._reap(5.0)

    def restart(self, timeout_s: float = 90.0) -> "LibvirtHost":
        """Stop libvirtd gently (or find it dead) and start it again; guests keep running."""
        self.close()
        self._signal(signal.SIGTERM)
        self._reap(10.0)
        return self.start(timeout_s)

    def __enter__(self) -> "LibvirtHost":
        return self.start()

    def __exit__(self, *exc: object) -> None:
        self.stop()

    # --- connections -----------------------------------------------------------------------------------------------

    @property
    def connection(self) -> libvirt.virConnect:
        """The host's own connection, opened when first used and again after a restart."""
        if self._connection is None or not _usable(self._connection):
            self._connection = self.connect()
        return self._connection

    def connect(self) -> libvirt.virConnect:
        """A new connection; the caller closes it."""
        return libvirt.open(self.uri)

    def close(self) -> None:
        """Drop the host's own connection."""
        if self._connection is not None:
            connection, self._connection = self._connection, None
            try:
                connection.close()
            except libvirt.libvirtError:
                return

    def remove_guests(self) -> None:
        """Pull the plug of every machine on this host, forget it, and delete the guests' files."""
        for domain in self.connection.listAllDomains():
            remove_domain(domain)
        for directory in self.guests_dir.iterdir():
            shutil.rmtree(directory)

    # --- network ---------------------------------------------------------------------------------------------------

    def network(self, name: str = "labnet") -> str:
        """Make sure that an isolated network of this name is active; returns the name.

        libvirt is only told of a bridge made here: its own isolated networks want a firewall and a DHCP server.
        """
        defined = {network.name(): network for network in self.connection.listAllNetworks()}
        network = defined.get(name)
        if network is None:
            network = self.connection.networkDefineXML(_NETWORK.format(name=name, bridge=self._make_bridge(name)))
        if not network.isActive():
            network.create()
        return name

    def _make_bridge(self, network: str) -> str:
        bridge = "lab" + hashlib.sha256(f"{self.dir}\0{network}".encode()).hexdigest()[:8]
        (self.dir / "bridges").mkdir(exist_ok=True)
        (self.dir / "bridges" / bridge).touch()
        if not Path(f"/sys/class/net/{bridge}").exists():
            _ip("link", "add", bridge, "type", "bridge")
        _ip("link", "set", bridge, "up")
        return bridge

    def _bridges(self) -> List[str]:
        directory = self.dir / "bridges"
        return sorted(path.name for path in directory.iterdir()) if directory.is_dir() else []

    # --- processes -------------------------------------------------------------------------------------------------

    @property
    def pid(self) -> Optional[int]:
        """The pid of the living libvirtd, or None."""
        try:
            pid, started = self.pid_file.read_text().split()
        except (FileNotFoundError, ValueError):
            return None
        return int(pid) if alive(int(pid), started) else None

    def processes(self) -> Dict[int, str]:
        """Every process in a namespace of this host, pid to command name: libvirtd, qemu, probes, helpers."""
        found: Dict[int, str] = {}
        try:
            ours = os.stat(self.dir / "run")
        except FileNotFoundError:
            return found
        for entry in os.listdir("/proc"):
            if not entry.isdigit():
                continue
            try:
                theirs = os.stat(f"/proc/{entry}/root{namespace.MOUNTS['run']}")
                name = Path(f"/proc/{entry}/comm").read_text().strip()
            except (FileNotFoundError, ProcessLookupError, PermissionError):
                continue
            if os.path.samestat(ours, theirs):
                found[int(entry)] = name
        return found

    def qemu_pid(self, uuid: str) -> int:
        """The pid of a running domain's qemu. LabError if it does not run."""
        for pid, name in self.processes().items():
            if name.startswith("qemu") and uuid in command_line(pid):
                return pid
        raise LabError(f"domain {uuid} does not run on host {self.name!r}")

    def _prepare(self) -> None:
        for name in namespace.MOUNTS:
            (self.dir / name).mkdir(parents=True, exist_ok=True)
        self.guests_dir.mkdir(exist_ok=True)
        (self.dir / "etc" / "qemu.conf").write_text(_QEMU_CONF)
        digest = hashlib.sha256(str(self.dir).encode()).hexdigest()
        host_uuid = f"{digest[:8]}-{digest[8:12]}-4{digest[13:16]}-a{digest[17:20]}-{digest[20:32]}"
        (self.dir / "etc" / "libvirtd.conf").write_text(_LIBVIRTD_CONF.format(host_uuid=host_uuid))
        self._add_accounts()
        cache = self.dir / "cache" / "qemu" / "capabilities"
        if CAPABILITIES.is_dir() and not cache.is_dir():
            shutil.copytree(CAPABILITIES, cache)

    def _add_accounts(self) -> None:
        """libvirtd does not start without its compiled-in account, which only comes with its system service package.

        Where it is missing, this host alone sees one: on the machine itself nothing changes.
        """
        for name, source in namespace.FILES.items():
            text = Path(source).read_text()
            if not any(line.startswith(f"{_ACCOUNT}:") for line in text.splitlines()):
                entry = f"{_ACCOUNT}:x:64055:64055::/nonexistent:/bin/false" if name == "passwd" else f"{_ACCOUNT}:x:64055:"
                (self.dir / name).write_text(f"{text.rstrip()}\n{entry}\n")

    def _spawn(self) -> None:
        daemon = shutil.which("libvirtd", path="/usr/sbin:/usr/local/sbin:/sbin")
        if daemon is None:
            raise LabError("libvirtd is not installed; run ./scripts/bootstrap.sh")
        for stale in (self.socket, self.dir / "run" / "libvirt-sock-ro"):
            stale.unlink(missing_ok=True)
        argv = ["/usr/bin/python3", "-I", namespace.__file__, str(self.dir), daemon]
        argv += ["-f", "/etc/libvirt/libvirtd.conf", "-p", "/run/libvirt/libvirtd.pid"]
        with open(self.dir / "libvirtd.out", "ab") as output:
            self._child = subprocess.Popen(argv, stdin=subprocess.DEVNULL, stdout=output, stderr=output, start_new_session=True, cwd="/")
        self.pid_file.write_text(f"{self._child.pid} {start_ticks(self._child.pid)}\n")

    def _await(self, timeout_s: float) -> None:
        deadline = time.monotonic() + timeout_s
        while not _listens(self.socket):
            if self.pid is None or (self._child is not None and self._child.poll() is not None):
                raise LabError(f"libvirtd of host {self.name!r} died at once: {self._last_words()}")
            if time.monotonic() > deadline:
                raise LabError(f"libvirtd of host {self.name!r} did not listen within {timeout_s:.0f} s: {self._last_words()}")
            time.sleep(0.02)
        self.connection.getVersion()

    def _last_words(self) -> str:
        words = (self.dir / "libvirtd.out").read_text(errors="replace")[-1000:]
        return words + (self.log_file.read_text(errors="replace")[-1000:] if self.log_file.exists() else "")

    def _keep_capabilities(self) -> None:
        """Keep libvirt's probe of qemu for the next host; libvirt checks itself whether it is still true."""
        CAPABILITIES.mkdir(parents=True, exist_ok=True)
        for path in (self.dir / "cache" / "qemu" / "capabilities").glob("*.xml"):
            kept = CAPABILITIES / path.name
            if not kept.exists() or kept.read_bytes() != path.read_bytes():
                partial = kept.with_suffix(f".{os.getpid()}")
                shutil.copyfile(path, partial)
                partial.replace(kept)

    def _signal(self, number: int) -> None:
        pid = self.pid
        if pid is not None:
            os.kill(pid, number)

    def _reap(self, timeout_s: float) -> None:
        """Wait for libvirtd's end; by force after the timeout."""
        child, self._child = self._child, None
        if child is not None:
            try:
                child.wait(timeout_s)
            except subprocess.TimeoutExpired:
                child.kill()
                child.wait()
        elif not wait_gone(lambda: self.pid is None, timeout_s):
            self._signal(signal.SIGKILL)
            wait_gone(lambda: self.pid is None, timeout_s)


def remove_domain(domain: libvirt.virDomain) -> None:
    """Pull the plug of a machine and forget it with its checkpoints, snapshots and NVRAM."""
    persistent = domain.isPersistent()
    if domain.isActive():
        domain.destroy()
    if persistent:
        domain.undefineFlags(_UNDEFINE)


def remove_hosts(base_dir: "os.PathLike[str] | str") -> List[str]:
    """Stop every host that an earlier process left under ``base_dir``; returns their names."""
    base = Path(base_dir)
    names = sorted(path.name for path in base.iterdir() if (path / "etc" / "libvirtd.conf").is_file()) if base.is_dir() else []
    for name in names:
        LibvirtHost(name, base).stop()
    return names


def _ip(*arguments: str) -> None:
    done = subprocess.run(["ip", *arguments], check=False, capture_output=True, text=True)
    if done.returncode != 0:
        raise LabError(f"cannot set up a lab network: ip {' '.join(arguments)}: {done.stderr.strip()}")


def _usable(connection: libvirt.virConnect) -> bool:
    try:
        return bool(connection.isAlive())
    except libvirt.libvirtError:
        return False


def _listens(path: Path) -> bool:
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        try:
            probe.connect(str(path))
        except OSError:
            return False
    return True
