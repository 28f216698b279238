# Copyright: (c) 2026, Sendense contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Three machines: controller, hub and node, with a network between them whose cables can be pulled, and a real sshd on each.

A machine is what runs in its own network, pid and mount namespaces. Killing its first process kills all of it, as a power cut
does; :meth:`Place.start` switches it on again with what is on its disk. Hub and node see neither the checkout nor its Python:
what they run, they were sent. Platforms (``LibvirtHost``) live beside the machines; who keeps their directory may use their socket.
"""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
from pathlib import Path
from typing import Any, Dict, List, Optional, Sequence

from . import place_namespace, sshd_namespace
from .network import Network
from .paths import PARTS, ROOT, LabError
from .processes import start_ticks, wait_gone
from .sshd import Sshd, make_key

CONTROLLER, HUB, NODE = "controller", "hub", "node"
NAMES = (CONTROLLER, HUB, NODE)
SSH_PORT = 22
#: What every machine has for itself: temporary files, homes, sockets, and what other tests keep in the checkout.
_OWN = ("/tmp", "/var/tmp", "/run", "/root", str(ROOT))


class Place:
    """One machine. ``directory`` is its own on every disk; of what is below the covered ones it sees only that and ``keep``,
    and nothing of ``hide``.
    """

    def __init__(self, name: str, network: Network, directory: Path, keep: Sequence[Path] = (), options: Sequence[str] = ()) -> None:
        self.name = name
        self.directory = directory
        directory.mkdir(parents=True, exist_ok=True)
        self.keep: List[Path] = [directory, *keep]
        self.hide: List[Path] = []
        self.sshd = Sshd(directory / "sshd", "0.0.0.0", SSH_PORT, options=options)
        self.key = directory / "id"
        self.public_key = make_key(self.key)
        self._network = network
        self._process: Optional["subprocess.Popen[str]"] = None

    @property
    def pid(self) -> int:
        """The first process of the machine, as seen from outside. LabError if it is off."""
        process = self._process
        if process is None or process.poll() is not None:
            raise LabError(f"the lab's machine {self.name} is switched off")
        return int(Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()[0])

    @property
    def running(self) -> bool:
        """Whether it is switched on."""
        return self._process is not None and self._process.poll() is None

    def start(self) -> "Place":
        """Switch it on and wait for its sshd; one that runs is left alone."""
        if self.running:
            return self
        descriptor = self._network.descriptor(self.name)
        keep = sorted({str(path) for path in (*self.keep, *_programs())})
        cover = [path for path in _OWN if path not in keep]
        plan = json.dumps({"cover": cover, "keep": keep, "hide": [str(path) for path in self.hide]})
        # Dies with the thread that made it, and takes the machine along.
        argv = ["setpriv", "--pdeathsig", "KILL", "nsenter", f"--net=/proc/self/fd/{descriptor}"]
        argv += ["unshare", "--mount", "--pid", "--fork", "--kill-child", "--propagation", "private"]
        argv += ["/usr/bin/python3", "-I", place_namespace.__file__]
        log = open(self.directory / "init.log", "ab")
        with log:
            self._process = subprocess.Popen(
                argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=log, text=True, pass_fds=[descriptor], cwd="/"
            )
        asked, answered = self._process.stdin, self._process.stdout
        assert asked is not None and answered is not None
        with asked, answered:
            asked.write(f"{plan}\n")
            asked.flush()
            said = answered.readline()
        if said != "ready\n":
            self._process.wait()
            raise LabError(f"the lab's machine {self.name} does not start: {(self.directory / 'init.log').read_text()[-1000:]}")
        self.sshd.prefix = self.entered([])
        self.sshd.start()
        return self

    def kill(self) -> None:
        """Kill everything in it at once. Repetition is a no-op."""
        if self.running:
            inside = self.processes()
            os.kill(self.pid, signal.SIGKILL)
            if not wait_gone(lambda: not any(start_ticks(pid) == began for pid, began in inside.items()), 20.0):
                raise LabError(f"processes of the lab's machine {self.name} cannot be killed")
        self.sshd.stop()
        if self._process is not None:
            self._process.wait()
            self._process = None

    def entered(self, argv: Sequence[str], directory: str = "/") -> List[str]:
        """The command line that runs a command in the machine, in this directory of it. To be ended by :func:`kill_entered`."""
        enter = ["nsenter", "--target", str(self.pid), "--mount", "--net", "--pid", "--", "setpriv", "--pdeathsig", "KILL"]
        return [*enter, "/bin/sh", "-c", 'cd "$0" && exec "$@"', directory, *argv]

    def run(self, *argv: str) -> str:
        """Run a command in it; its output. LabError if it fails."""
        done = subprocess.run(self.entered(argv), capture_output=True, text=True, check=False, stdin=subprocess.DEVNULL)
        if done.returncode != 0:
            raise LabError(f"{argv[0]} failed at {self.name}: {done.stderr.strip()}")
        return done.stdout

    def outside(self, pid: int) -> Optional[int]:
        """What a process is called outside that has this number in the machine; None if there is none."""
        for known in self.processes():
            try:
                status = Path(f"/proc/{known}/status").read_text()
            except (FileNotFoundError, ProcessLookupError):
                continue
            if re.search(rf"^NSpid:.*\t{pid}$", status, re.MULTILINE):
                return known
        return None

    def processes(self) -> Dict[int, str]:
        """Everything that runs in it, pid outside to start time: for comparisons, signals and searches."""
        ours = os.stat(f"/proc/{self.pid}/ns/pid").st_ino
        found = {}
        for entry in os.listdir("/proc"):
            try:
                if entry.isdigit() and os.stat(f"/proc/{entry}/ns/pid").st_ino == ours:
                    found[int(entry)] = start_ticks(int(entry))
            except (FileNotFoundError, ProcessLookupError, PermissionError):
                continue
        return found


class Places:
    """All three, able to reach each other as their roles need it: the controller the other two, the node the hub."""

    def __init__(self, directory: Path, options: Sequence[str] = ()) -> None:
        self.directory = directory
        self.network = Network(NAMES)
        self.all = {name: Place(name, self.network, directory / name, options=options) for name in NAMES}
        self.controller, self.hub, self.node = (self.all[name] for name in NAMES)
        forwards = 'restrict,port-forwarding,permitopen="127.0.0.1:*",command="/bin/false"'
        self.hub.sshd.keys = [self.controller.public_key, f"{forwards} {self.node.public_key}"]
        self.node.sshd.keys = [self.controller.public_key]
        self._acquaint(self.controller, [self.hub, self.node])

    def _acquaint(self, place: Place, others: Sequence[Place]) -> None:
        lines = [f"{self.network.address(other.name, place.name)} {other.sshd.host_key}\n" for other in others]
        (place.directory / "known_hosts").write_text("".join(lines))

    def start(self) -> "Places":
        """Switch on what is off and plug in every cable."""
        for one, other in self.network.cables:
            self.network.mend(one, other)
        for place in self.all.values():
            place.start()
        return self

    def stop(self) -> None:
        """Switch everything off; nothing of it is left but its directories."""
        for place in self.all.values():
            place.kill()
        self.network.close()


def kill_entered(process: "subprocess.Popen[Any]") -> None:
    """SIGKILL what was started by :meth:`Place.entered`, and wait for it.

    Killing the process that entered is not the same: what it started would become a child of the real machine's first process, which
    need not bury it, and a lab's machine with an unburied process cannot be switched off.
    """
    for child in Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split():
        os.kill(int(child), signal.SIGKILL)
    process.wait()


def _programs() -> List[Path]:
    """What a machine needs of the checkout to run its sshd."""
    lab = Path(sshd_namespace.__file__).parent
    return [lab, *([PARTS] if PARTS.is_dir() else [])]
