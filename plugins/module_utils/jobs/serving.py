# Copyright: (c) 2026, Sendense contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Starts an export server for one block node as a child of a job's keeper."""

from __future__ import annotations

from typing import Any, Dict, Optional

from ..datapath.exports import export_argv
from ..datapath.keeper_client import KeeperClient
from ..datapath.native_aio import REFUSED
from ..errors import ExportFailedError


def start_server(
    client: KeeperClient, name: str, node: Dict[str, Any], record: Dict[str, Any], writable: bool = False, bitmap: str = ""
) -> None:
    """Serve ``node`` as ``record["export"]`` on ``record["port"]`` or ``record["socket"]``; returns when it greets clients.

    ExportFailedError with the server's last words; PortBusyError.
    """
    try:
        _start(client, name, node, record, writable, bitmap, None)
    except ExportFailedError as error:
        if REFUSED not in str(error.details.get("stderr")):
            raise
        # Others took what was left of the kernel's queues since the server was planned.
        _start(client, name, node, record, writable, bitmap, "threads")


def _start(
    client: KeeperClient, name: str, node: Dict[str, Any], record: Dict[str, Any], writable: bool, bitmap: str, aio: Optional[str]
) -> None:
    argv, env = export_argv(
        node,
        export=record["export"],
        port=record.get("port"),
        socket=record.get("socket"),
        writable=writable,
        bitmap=bitmap or None,
        aio=aio,
    )
    client.start(name, argv, env=env, kind="export", record=record)
