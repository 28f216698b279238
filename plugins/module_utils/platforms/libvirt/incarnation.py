# Copyright: (c) 2026, Sendense contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a later snapshot of a machine is compared with, to notice what change tracking may not have survived."""

from __future__ import annotations

from typing import Any, Dict

from ...errors import SnapshotFailedError
from .client import Client, libvirt, mapped

_BOOT_ID = "/proc/sys/kernel/random/boot_id"
#: How a run of a machine may begin otherwise than by booting, by the names of libvirt's reasons.
_BEGAN = {
    "VIR_DOMAIN_RUNNING_RESTORED": "restored",
    "VIR_DOMAIN_RUNNING_FROM_SNAPSHOT": "restored",
    "VIR_DOMAIN_RUNNING_CRASHED": "crashed",
}


def incarnation_of(client: Client, domain: Any) -> Dict[str, str]:
    """See ``Snapshot.incarnation``. libvirt forgets how a run began once the machine was paused: then only that it is another run."""
    with mapped("Cannot ask for the state of the machine"):
        state, reason = domain.state()
        run = str(domain.ID()) if domain.isActive() else ""
    began = ""
    if state == libvirt.VIR_DOMAIN_RUNNING:
        began = next((word for name, word in _BEGAN.items() if getattr(libvirt, name) == reason), "")
    return {"host": _host(client), "run": run, "began": began}


def _host(client: Client) -> str:
    """This boot of the libvirt host; empty where the kernel does not tell."""
    try:
        return (client.files.read(_BOOT_ID) or b"").decode("ascii", "replace").strip()
    except (OSError, SnapshotFailedError):
        return ""
