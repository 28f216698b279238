# Copyright: (c) 2026, Sendense contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The same installation on three machines: ansible-playbook runs at the controller and reaches hub and node by ssh alone."""

from __future__ import annotations

import sys
import tempfile
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Dict, Iterator, List, Optional, Sequence

import yaml

from tests.lab.host import LibvirtHost
from tests.lab.paths import ROOT
from tests.lab.places import CONTROLLER, HUB, NODE, SSH_PORT, Place, Places, kill_entered

from .points import leftovers
from .site import Site, Started


@dataclass
class RemoteSite(Site):
    """``directory`` has what is at the places: the controller sees its inventory, the hub its state and the repository, the node its
    state. ``storage`` is the node's for restored machines, ``files`` the hub's for restored files. The libvirt host stands beside the
    node, which uses its socket.
    """

    places: Places = field(kw_only=True)

    def __post_init__(self) -> None:
        super().__post_init__()
        self.storage, self.files = self.directory / "storage", self.directory / "files"
        network = self.places.network
        ssh = {
            "ansible_user": "root",
            "ansible_port": SSH_PORT,
            "ansible_ssh_private_key_file": str(self.places.controller.key),
            "ansible_ssh_common_args": f"-F none -o UserKnownHostsFile={self.places.controller.directory}/known_hosts",
            "ansible_python_interpreter": "/usr/bin/python3",
        }
        tunnel = {
            "host": network.address(HUB, NODE),
            "port": SSH_PORT,
            "user": "root",
            "identity_file": str(self.places.node.key),
            "host_key": self.places.hub.sshd.host_key,
        }
        hub = {**ssh, "ansible_host": network.address(HUB, CONTROLLER), "sendense_tunnel": tunnel}
        node = {**ssh, "ansible_host": network.address(NODE, CONTROLLER)}
        hosts = {"sendense_hubs": {"hosts": {"hub01": hub}}, "sendense_nodes": {"hosts": {"node01": node}}}
        (self.directory / "inventory" / "hosts.yml").write_text(yaml.safe_dump(hosts))

    def furnish(self, host: LibvirtHost, shared: Sequence[Path] = ()) -> "RemoteSite":
        """Give every machine what is its own of the directory; the libvirt host is for the node, and for discovery.

        ``shared`` is for hub and node: aids of a test that product and places know nothing of.
        """
        (self.directory / "tmp").mkdir(exist_ok=True)
        own = {
            HUB: [Path(self.hub_state), Path(self.repository), self.files],
            NODE: [Path(self.node_state), self.storage, host.dir],
        }
        for name, paths in own.items():
            for path in paths:
                path.mkdir(parents=True, exist_ok=True, mode=0o700)
            self.places.all[name].keep += [*paths, *shared]
        # What a controller has installed, and where the results of the tests are read.
        self.places.controller.keep += [self.directory, ROOT, host.dir, *_python()]
        self.places.controller.hide += [path for paths in own.values() for path in paths if path != host.dir]
        return self

    def at_controller(self, argv: Sequence[str]) -> List[str]:
        """The command line that runs a command at the controller."""
        return self.places.controller.entered(argv, str(ROOT))

    def start(self, playbook: str, limit: str = "", extra: Optional[Dict[str, Any]] = None, options: Sequence[str] = ()) -> Started:
        """Start a run at the controller."""
        started = super().start(playbook, limit, extra, options)
        return RemoteStarted(started.process, started.results, started.log)

    def environ(self) -> Dict[str, str]:
        """The environment of a run; its temporary directories are where Ansible has them by default."""
        kept = super().environ()
        del kept["ANSIBLE_REMOTE_TEMP"]
        return dict(kept, HOME="/root")

    @property
    def machines(self) -> List[Place]:
        """Hub and node."""
        return [self.places.hub, self.places.node]


class RemoteStarted(Started):
    """A running ansible-playbook at another machine."""

    def kill(self) -> None:
        """Kill it alone, not the machine."""
        kill_entered(self.process)


def _python() -> List[Path]:
    return [Path(prefix) for prefix in {sys.prefix} if prefix != "/usr"]


@contextmanager
def three_places(host: LibvirtHost, options: Sequence[str] = ()) -> Iterator[RemoteSite]:
    """An installation on three machines with an empty repository; nothing of it is left afterwards. ``options``: for every sshd."""
    with tempfile.TemporaryDirectory(prefix="sl-") as lab, tempfile.TemporaryDirectory(prefix="se-") as directory:
        places = Places(Path(lab), options)
        try:
            site = RemoteSite(Path(directory), [host.uri], places=places).furnish(host)
            places.start()
            site.initialise()
            yield site
            assert leftovers(site, host) == []
        finally:
            places.stop()
