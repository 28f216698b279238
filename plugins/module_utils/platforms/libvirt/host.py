# Copyright: (c) 2026, Sendense contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a libvirt host can run: architectures, machine types, accelerators, networks."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Dict, List, Set

from ...errors import InvalidInputError, TargetFailedError
from ...model import Nic
from .client import mapped
from .xmltext import parse

_BRIDGE = re.compile(r"[A-Za-z0-9_.-]{1,15}")
_NETWORKS_DIR = Path("/sys/class/net")


@dataclass
class HostGuests:
    """Per architecture: domain types (``qemu``, ``kvm``) and machine types, aliases mapped to their canonical names."""

    domain_types: Dict[str, List[str]] = field(default_factory=dict)
    machines: Dict[str, Dict[str, str]] = field(default_factory=dict)

    @classmethod
    def read(cls, handle: Any) -> "HostGuests":
        """From libvirt's capabilities."""
        with mapped("Cannot read the capabilities of the host", TargetFailedError):
            root = parse(handle.getCapabilities())
        found = cls()
        for guest in root.findall("guest"):
            arch = guest.find("arch")
            if guest.findtext("os_type") != "hvm" or arch is None:
                continue
            name = arch.get("name", "")
            found.domain_types[name] = [domain.get("type", "") for domain in arch.findall("domain")]
            known = found.machines.setdefault(name, {})
            for machine in arch.findall(".//machine"):
                known[(machine.text or "").strip()] = machine.get("canonical") or (machine.text or "").strip()
        return found

    def domain_type(self, architecture: str, wanted: str) -> str:
        """``kvm`` where the host offers it, unless one is asked for by name. InvalidInputError."""
        offered = self.domain_types.get(architecture, [])
        chosen = wanted if wanted != "auto" else ("kvm" if "kvm" in offered else "qemu")
        if chosen not in offered:
            raise InvalidInputError(
                f"This host cannot run {architecture} guests of type {chosen!r}; it offers: {', '.join(offered) or 'none'}.",
                details={"architecture": architecture, "domain_type": chosen},
            )
        return chosen

    def machine_type(self, architecture: str, wanted: str) -> str:
        """The source's own machine type, else the newest of its family on this host."""
        known = self.machines.get(architecture, {})
        if wanted in known:
            return known[wanted]
        for family in ("q35", "pc", "virt"):
            if family in known and (family in wanted or family != "q35"):
                return known[family]
        return ""


def network_names(handle: Any) -> Set[str]:
    """The virtual networks of this host."""
    with mapped("Cannot list the networks of the host", TargetFailedError):
        return {network.name() for network in handle.listAllNetworks()}


def map_nic(nic: Nic, mapping: Dict[str, str], networks: Set[str]) -> Nic:
    """Where a network interface goes on this host; ``network_type`` is empty if it is left out.

    A target is the name of a virtual network, ``bridge:<name>``, or ``none``. Without an entry of its own and without
    ``*`` an interface keeps its network's name, which must exist here. InvalidInputError if the target does not exist.
    """
    wanted = mapping.get(nic.network, mapping.get("*"))
    if wanted is None:
        if nic.network_type == "user":
            return Nic(nic.mac, nic.model, "user", "")
        wanted = f"bridge:{nic.network}" if nic.network_type == "bridge" else nic.network
    if wanted == "none":
        return Nic(nic.mac, nic.model, "", "")
    kind, _colon, name = wanted.partition(":")
    if kind == "bridge" and _BRIDGE.fullmatch(name) and name not in (".", "..") and (_NETWORKS_DIR / name / "bridge").is_dir():
        return Nic(nic.mac, nic.model, "bridge", name)
    if wanted in networks:
        return Nic(nic.mac, nic.model, "network", wanted)
    raise InvalidInputError(
        f"There is no network {wanted!r} at the target for the source network {nic.network!r}. Map it with 'networks' to one of: "
        f"{', '.join(sorted(networks)) or 'no virtual network'}, 'bridge:<name>' or 'none'.",
        details={"network": wanted, "source_network": nic.network, "known": sorted(networks)},
    )
