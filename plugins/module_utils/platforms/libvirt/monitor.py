# Copyright: (c) 2026, Sendense contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What only qemu itself can tell or do. libvirt marks a domain that was asked this way as tainted: only where there is no other."""

from __future__ import annotations

import json
import os
from typing import Any, Dict, List

from .client import mapped
from .naming import scratch_prefix

try:
    import libvirt_qemu
except ImportError:
    libvirt_qemu = None


def available() -> bool:
    """Whether the binding for qemu is there."""
    return libvirt_qemu is not None


def block_nodes(domain: Any) -> List[Dict[str, Any]]:
    """What qemu says of its block nodes: ``node-name``, ``drv``, ``file``, ``dirty-bitmaps``... Needs :func:`available`."""
    return list(_ask(domain, "query-named-block-nodes", {"flat": True}).get("return", []))


def remove_scratch_nodes(domain: Any, job_id: str) -> List[str]:
    """Close the scratch files of a job that qemu still has open though no backup job runs; their paths. Others' stay.

    libvirt forgets them if it dies while it begins a backup: the space of the deleted files would come back only when the
    machine is shut down. A node that something uses is refused by qemu, and stays.
    """
    if not available():
        return []
    ours = [node for node in block_nodes(domain) if os.path.basename(str(node.get("file", ""))).startswith(scratch_prefix(job_id))]
    removed: List[str] = []
    for node in sorted(ours, key=lambda one: one.get("drv") == "file"):  # what reads a file goes before the file
        answer = _ask(domain, "blockdev-del", {"node-name": node["node-name"]})
        if "return" in answer and node["file"] not in removed:
            removed.append(node["file"])
    return removed


def _ask(domain: Any, command: str, arguments: Dict[str, Any]) -> Dict[str, Any]:
    with mapped(f"Cannot ask qemu for {command}"):
        answer = json.loads(libvirt_qemu.qemuMonitorCommand(domain, json.dumps({"execute": command, "arguments": arguments}), 0))
    return answer if isinstance(answer, dict) else {}
