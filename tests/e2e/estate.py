# Copyright: (c) 2026, Sendense contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""An installation with hosts of its own, and ways to see every byte that a run could have changed."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import stat
import tempfile
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Dict, Iterator, List, Optional, Sequence

import libvirt
import libvirt_qemu
import yaml

from tests.lab.disks import MIB, ODD_BYTES, DiskSpec
from tests.lab.guest import Guest
from tests.lab.host import LibvirtHost

from .points import leftovers
from .site import ROOT, Run, Site


@dataclass
class Estate:
    """A site with its libvirt hosts. ``home`` is the HOME of every run and holds a canary."""

    site: Site
    hosts: List[LibvirtHost]

    @property
    def home(self) -> Path:
        """What a hostile ``rm -rf "$HOME"`` would empty."""
        return self.site.directory / "home"

    def guest(self, name: str, data_bytes: int = MIB, host: int = 0, **options: Any) -> Guest:
        """A started guest that runs no instruction, with data on a qcow2 and on a raw disk."""
        disks = [DiskSpec("vda", 16 * MIB + ODD_BYTES), DiskSpec("vdb", 2 * MIB, "raw")]
        guest = Guest.create(self.hosts[host], name, options.pop("disks", disks), **options).start(paused=True)
        guest.write("vda", 0x5A, 0, data_bytes)
        guest.flush("vda")
        return guest

    def generated(self, name: str, plays: Sequence[Dict[str, Any]], limit: str = "", ok: bool = True, **extra: Any) -> Run:
        """Run plays that a test wrote."""
        path = self.site.directory / f"{name}.yml"
        path.write_text(yaml.safe_dump(list(plays), sort_keys=False))
        return self.site.play(os.path.relpath(path.with_suffix(""), ROOT / "playbooks"), limit, extra, ok=ok)

    def points(self, guest: Guest) -> Dict[str, str]:
        """Digest of everything of a machine in the repository, by path."""
        return tree(Path(self.site.repository, "machines", f"libvirt-{guest.uuid}", "points"))

    def changeable(self) -> Dict[str, Any]:
        """All that a run could change at the repository, the state directories and the platform."""
        found: Dict[str, Any] = {}
        for path in (self.site.repository, self.site.hub_state, self.site.node_state):
            found.update(tree(Path(path)))
        for host in self.hosts:
            found.update({f"{host.name} {name}": state for name, state in platform_state(host).items()})
            found.update(tree(host.guests_dir))
        return found


@contextmanager
def estate(lab_base: Path, name: str, hosts: int = 1, machines: str = "") -> Iterator[Estate]:
    """An estate that must be left without anything of a job; ``machines``: text of a further inventory file."""
    directory = Path(tempfile.mkdtemp(prefix="se-"))
    started = [LibvirtHost(f"{name}{number}", lab_base) for number in range(hosts)]
    try:
        for host in started:
            host.start()
        made = Estate(Site(directory, [host.uri for host in started]), started)
        made.home.mkdir()
        (made.home / "canary").write_text("sings")
        made.site.environment["HOME"] = str(made.home)
        if machines:
            (directory / "inventory" / "more.yml").write_text(machines)
        made.site.initialise()
        yield made
        assert [found for host in started for found in leftovers(made.site, host)] == []
    finally:
        for host in started:
            host.stop()
        shutil.rmtree(directory)


def tree(root: Path) -> Dict[str, str]:
    """Kind, mode, size, time of last change and digest of everything below a directory, by path."""
    found: Dict[str, str] = {}
    for path in [root, *sorted(root.rglob("*"))] if root.exists() else []:
        about = path.lstat()
        words = [stat.filemode(about.st_mode), str(about.st_mtime_ns)]
        if stat.S_ISREG(about.st_mode):
            words += [str(about.st_size), hashlib.sha256(path.read_bytes()).hexdigest()]
        found[str(path)] = " ".join(words)
    return found


def platform_state(host: LibvirtHost) -> Dict[str, str]:
    """Definition, checkpoints, power, running job and dirty bitmaps of every machine of a host."""
    found: Dict[str, str] = {}
    for domain in host.connection.listAllDomains():
        name = domain.UUIDString()
        found[f"{name} xml"] = domain.XMLDesc(0) + domain.XMLDesc(libvirt.VIR_DOMAIN_XML_INACTIVE)
        found[f"{name} state"] = f"{domain.state()}"
        for checkpoint in domain.listAllCheckpoints():
            found[f"{name} checkpoint {checkpoint.getName()}"] = checkpoint.getXMLDesc(0)
        if domain.isActive():
            found[f"{name} job"] = str(domain.jobInfo()[0])
            found[f"{name} bitmaps"] = json.dumps(bitmaps(domain), sort_keys=True)
    return found


def bitmaps(domain: libvirt.virDomain) -> Dict[str, Any]:
    """The dirty bitmaps of a running machine as its qemu has them, by block node."""
    answer = json.loads(libvirt_qemu.qemuMonitorCommand(domain, '{"execute": "query-named-block-nodes", "arguments": {"flat": true}}', 0))
    return {node["node-name"]: node.get("dirty-bitmaps", []) for node in answer["return"]}


def only(run: Run, host: str) -> Dict[str, Any]:
    """The typed error of a machine's job; asserts that it has the shape that every failure has."""
    error = run.error(host)
    assert error, f"{host} did not fail:\n{run.output}"
    assert isinstance(error["msg"], str) and error["msg"] and "{{" not in error["msg"]
    assert isinstance(error["details"], dict) and isinstance(error["retryable"], bool) and error["error_code"]
    return error


def changed_anywhere(run: Run) -> Dict[str, int]:
    """How many tasks changed something, for the hosts where any did."""
    return {host: stats["changed"] for host, stats in run.stats.items() if stats["changed"]}


def play(tasks: Sequence[Dict[str, Any]], hosts: str = "hub01", variables: Optional[Dict[str, Any]] = None) -> Dict[str, Any]:
    """A play with these tasks."""
    return {"name": "Generated by a test", "hosts": hosts, "gather_facts": False, "vars": dict(variables or {}), "tasks": list(tasks)}
