# Copyright: (c) 2026, Sendense contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The lab's libvirt host as another machine: reached by a real sshd that runs where its libvirtd does."""

from __future__ import annotations

import itertools
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Iterator, List

import pytest

from ansible_collections.sendense.platform.plugins.module_utils.platforms.libvirt import host_files, qemu_img
from tests.contract.libvirt_lab import LibvirtSourceLab
from tests.lab.guest import Guest
from tests.lab.host import LibvirtHost
from tests.lab.sshd import Sshd, make_key

_ports = itertools.count(2200)


class RemoteHost:
    """The sshd of a libvirt host, and how to log in. ``scratch_dir`` is where qemu makes what a backup needs."""

    def __init__(self, host: LibvirtHost, sshd: Sshd, key: Path, known_hosts: Path, scratch_dir: Path) -> None:
        self.host, self.sshd, self.key, self.known_hosts, self.scratch_dir = host, sshd, key, known_hosts, scratch_dir

    @property
    def uri(self) -> str:
        """libvirt of that host over ssh, at its usual socket."""
        query = f"keyfile={self.key}&known_hosts={self.known_hosts}"
        return f"qemu+ssh://root@{self.sshd.address}:{self.sshd.port}/system?{query}"

    def left(self) -> List[str]:
        """What lies in the host's directory for scratch files."""
        return sorted(path.name for path in self.scratch_dir.iterdir())


@contextmanager
def remote_host(host: LibvirtHost, address: str = "127.0.0.1") -> Iterator[RemoteHost]:
    """Run an sshd beside a libvirtd, in its mount namespace, where its sockets have their usual places."""
    directory = host.dir / "ssh"
    directory.mkdir(exist_ok=True)
    scratch = host.dir / "scratch"
    scratch.mkdir(exist_ok=True)
    key = directory / "id"
    prefix = ["nsenter", "--target", str(host.pid), "--mount"]
    with Sshd(directory / "sshd", address, next(_ports), keys=[make_key(key)], prefix=prefix) as sshd:
        known_hosts = directory / "known_hosts"
        known_hosts.unlink(missing_ok=True)
        yield RemoteHost(host, sshd, key, sshd.known_hosts(known_hosts), scratch)


def forbid_paths(patch: pytest.MonkeyPatch) -> None:
    """Let whatever would open a file of the libvirt host by path fail: in the lab it is there, at a real other machine it is not."""

    def refuse(*_arguments: object) -> None:
        raise AssertionError("a path of the libvirt host was used as if it were one of this place")

    patch.setattr(qemu_img, "_run", refuse)
    for name in ("names", "unlink", "read"):
        patch.setattr(host_files.LocalFiles, name, refuse)


class RemoteSourceLab(LibvirtSourceLab):
    """The same guest, seen from a machine that is not its host."""

    paths_are_ours = False

    def __init__(self, guest: Guest, remote: RemoteHost, **connection: Any) -> None:
        super().__init__(guest, **{"uri": remote.uri, "scratch_dir": str(remote.scratch_dir), **connection})
        self.remote = remote

    def state(self) -> str:
        return super().state() + repr(self.remote.left())

    def remove(self) -> None:
        left = self.remote.left()
        super().remove()
        assert left == []
