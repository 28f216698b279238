# Copyright: (c) 2026, Sendense contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A network of a few machines: a namespace for each, one for the switch, and one cable per pair, which can be pulled.

The namespaces have no name anywhere: descriptors of this process and the processes in them keep them, so that nothing is left
of them when both are gone. A cable is two veth pairs and a bridge between them in the switch; pulling it takes the carrier away
from both ends, while addresses and routes stay, as with a real one: what is sent vanishes, and nobody is told.
"""

from __future__ import annotations

import ctypes
import os
import subprocess
from typing import Iterable, List, Sequence, Tuple

from .paths import LabError

_CLONE_NEWNET = 0x40000000
#: A cable by the names of its ends, sorted.
Cable = Tuple[str, str]


class Network:
    """Cables between every two of ``names``; at most nine. :meth:`close` ends it once no process is in it any more."""

    def __init__(self, names: Sequence[str]) -> None:
        self.names = list(names)
        self._switch = new_namespace()
        self._places = {name: new_namespace() for name in names}
        self.cables: List[Cable] = [(one, other) for at, one in enumerate(sorted(names)) for other in sorted(names)[at + 1 :]]
        for number, cable in enumerate(self.cables):
            self._lay(number, cable)
        for descriptor in self._places.values():
            ip(descriptor, ["link set lo up"])

    def descriptor(self, name: str) -> int:
        """The open namespace of a machine, to be handed to ``nsenter --net=/proc/self/fd/N``."""
        return self._places[name]

    def address(self, of: str, seen_from: str) -> str:
        """Where a machine finds another one."""
        cable = cable_of(of, seen_from)
        return f"10.77.{self.cables.index(cable)}.{1 + cable.index(of)}"

    def cut(self, one: str, other: str) -> None:
        """Pull the cable between two machines. Repetition is a no-op."""
        self._set(cable_of(one, other), "down")

    def mend(self, one: str, other: str) -> None:
        """Plug it in again."""
        self._set(cable_of(one, other), "up")

    def close(self) -> None:
        """Forget the namespaces."""
        for descriptor in [self._switch, *self._places.values()]:
            os.close(descriptor)
        self._places = {}

    def _lay(self, number: int, cable: Cable) -> None:
        lines = [f"link add br{number} type bridge", f"link set br{number} up"]
        for end, name in enumerate(cable):
            port, inside = f"port{number}{end}", f"to{number}"
            lines += [f"link add {port} type veth peer name {inside}{end}", f"link set {port} master br{number}", f"link set {port} up"]
            lines += [f"link set {inside}{end} netns /proc/self/fd/{self._places[name]}"]
        ip(self._switch, lines, self._places.values())
        for end, name in enumerate(cable):
            inside = f"to{number}{end}"
            ip(self._places[name], [f"address add 10.77.{number}.{1 + end}/24 dev {inside}", f"link set {inside} up"])

    def _set(self, cable: Cable, state: str) -> None:
        number = self.cables.index(cable)
        ip(self._switch, [f"link set port{number}{end} {state}" for end in range(2)])


def cable_of(one: str, other: str) -> Cable:
    """The cable between two machines."""
    first, second = sorted((one, other))
    return first, second


def new_namespace() -> int:
    """A descriptor of a new network namespace that nobody is in. OSError if the kernel refuses."""
    libc = ctypes.CDLL(None, use_errno=True)
    before = os.open("/proc/thread-self/ns/net", os.O_RDONLY | os.O_CLOEXEC)
    try:
        if libc.unshare(_CLONE_NEWNET) != 0:
            raise OSError(ctypes.get_errno(), "cannot make a network namespace; the lab needs root with CAP_SYS_ADMIN")
        made = os.open("/proc/thread-self/ns/net", os.O_RDONLY | os.O_CLOEXEC)
        if libc.setns(before, _CLONE_NEWNET) != 0:
            raise OSError(ctypes.get_errno(), "cannot return to the network namespace")
    finally:
        os.close(before)
    return made


def ip(namespace: int, lines: Sequence[str], others: Iterable[int] = ()) -> None:
    """Run lines of ``ip -batch`` in a namespace; ``others`` are descriptors that they name. LabError with what it said."""
    argv = ["nsenter", f"--net=/proc/self/fd/{namespace}", "ip", "-batch", "-"]
    text = "".join(f"{line}\n" for line in lines)
    done = subprocess.run(argv, input=text, capture_output=True, text=True, pass_fds=[namespace, *others], check=False)
    if done.returncode != 0:
        raise LabError(f"ip failed: {done.stderr.strip()}")
