# Copyright: (c) 2026, Sendense contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Read-only servers on unix sockets for what stays at one place: the re-read of a commit, verification."""

from __future__ import annotations

import os
from typing import Any, Dict

from ..datapath.exports import check_export
from .place import JobPlace
from .serving import start_server

_PREFIX = "reread-"


def start_readers(place: JobPlace, images: Dict[str, Dict[str, Any]], sizes: Dict[str, int]) -> Dict[str, str]:
    """Serve each block node in a fresh process past the page cache where possible; NBD URIs by disk key."""
    uris = {}
    for key, image in sorted(images.items()):
        socket = os.path.join(place.job.path, f"{_PREFIX}{key}.sock")
        record = {"machine": place.job.meta().get("machine_key", ""), "export": key, "socket": socket}
        start_server(place.client, f"{_PREFIX}{key}", image, record)
        uris[key] = f"nbd+unix:///{key}?socket={socket}"
    for key, uri in uris.items():
        check_export(uri, sizes[key])
    return uris


def stop_readers(place: JobPlace) -> None:
    """Stop the servers of :func:`start_readers`."""
    place.client.stop_all([name for name in sorted(place.client.ping()["children"]) if name.startswith(_PREFIX)])


def image_path(image: Dict[str, Any]) -> str:
    """The file of a block node's own layer."""
    return str(image["file"]["filename"])
