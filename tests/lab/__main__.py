# Copyright: (c) 2026, Sendense contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""``python -m tests.lab up|status|down|build``: the lab by hand. Needs root."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Any, Dict, List

import libvirt

from . import up
from .image import guest_image
from .paths import BUILD, LabError


def table(state: Dict[str, Any]) -> str:
    """Host and guests as lines for a person."""
    if not state["hosts"]:
        return "the lab is down"
    lines = [f"host {host['name']}: {host['uri']}" for host in state["hosts"]]
    lines.append(f"{'guest':<12}{'firmware':<10}{'state':<8}{'counter':>8}  disks")
    for guest in state["guests"]:
        disks = ", ".join(f"{disk['target']} {disk['format']} {disk['size_bytes'] / 2**20:.1f} MiB" for disk in guest["disks"])
        power = "running" if guest["active"] else "off"
        lines.append(f"{guest['name']:<12}{guest['firmware']:<10}{power:<8}{guest['counter']:>8}  {disks}")
    return "\n".join(lines)


def main(argv: List[str]) -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.lab", description=__doc__)
    parser.add_argument("--directory", type=Path, default=BUILD, help="where its files are (default: build/lab)")
    parser.add_argument("action", choices=["up", "status", "down", "build"])
    arguments = parser.parse_args(argv)
    directory = arguments.directory.resolve()
    try:
        if arguments.action == "build":
            print(guest_image().path)
        elif arguments.action == "down":
            names = up.down(directory)
            print(f"stopped: {', '.join(names)}" if names else "nothing was running")
        else:
            print(table(up.up(directory) if arguments.action == "up" else up.status(directory)))
    except (LabError, libvirt.libvirtError, OSError) as exc:
        print(f"lab: {exc}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
