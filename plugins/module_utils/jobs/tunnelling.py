# Copyright: (c) 2026, Sendense contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A node's way to the exports of its hub: the loopback if both see the same one, else one SSH tunnel per job."""

from __future__ import annotations

import os
import random
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any, Callable, Dict, Optional

from ..datapath import tunnel
from ..datapath.children import TUNNEL
from ..datapath.exports import check_export
from ..datapath.targets import TCP, UNIX, NbdTarget, parse_uri
from ..datapath.tunnel_options import TunnelOptions, parse_options
from ..errors import DependencyMissingError, InvalidInputError, JobAbandonedError, SendenseError, TunnelFailedError
from ..hubstate.files import read_tail
from ..hubstate.machine import network
from ..hubstate.processes import kill_group, spawn
from ..steps import reached
from .place import JobPlace

#: Exports that are checked at the same time: each check is some ten round trips of a link that may be long.
CHECKS = 8
#: Seconds in which a tunnel that broke a copy must be seen to have ended.
LOSS_SECONDS = 3.0
#: How often a hub is asked that turns connections away because many jobs begin at once, and the pause before the next time, in seconds.
ATTEMPTS, PAUSE_SECONDS = 6, (0.5, 3.0)
#: Where check mode puts its sockets: a short path whatever TMPDIR is, for the kernel's limit is 107 bytes.
TEMPORARY = "/tmp"


def needed(params: Dict[str, Any]) -> Optional[TunnelOptions]:
    """How this node reaches the hub; None where the hub's loopback is its own. InvalidInputError if it cannot be known."""
    if not params.get("hub_network") or params["hub_network"] == network():
        return None
    given = params.get("tunnel") or {}
    if not any(given.get(name) for name in ("host", "user", "identity_file", "host_key", "known_hosts_file")):
        raise InvalidInputError(
            "Hub and node are different machines (or network namespaces), and no tunnel between them is configured. Set "
            "sendense_tunnel for the hub in the inventory: host, user, identity_file and host_key. Nothing was touched."
        )
    return parse_options(given)


def dig(place: JobPlace, options: Optional[TunnelOptions]) -> Dict[str, Any]:
    """Connect to the hub and prove it, as a child of this place's keeper; what a task says about it, nothing if none is needed.

    TunnelFailedError, InvalidInputError, DependencyMissingError.
    """
    if options is None:
        return {}
    argv = tunnel.prepare(options, place.job.path)

    def attempt() -> None:
        place.client.start(TUNNEL, argv, env=tunnel.ENVIRONMENT, kind=TUNNEL)
        try:
            tunnel.prove(options, place.job.path, partial(place.client.child, TUNNEL))
        except TunnelFailedError:
            place.client.stop(TUNNEL)
            raise

    _patiently(attempt)
    place.save("tunnel", options.describe())
    reached("tunnel:proved")
    return options.describe()


def rehearsed(options: Optional[TunnelOptions]) -> Dict[str, Any]:
    """For check mode: as :func:`dig`, and nothing of it is left."""
    if options is None:
        return {}
    _patiently(partial(_rehearse, options))
    return options.describe()


def _rehearse(options: TunnelOptions) -> None:
    with tempfile.TemporaryDirectory(prefix="sendense-tunnel-", dir=TEMPORARY) as folder:
        argv = tunnel.prepare(options, folder)
        words = os.path.join(folder, "err")
        with open(words, "wb") as stream:
            try:
                process = spawn(argv, stdout=stream, stderr=stream, env=tunnel.ENVIRONMENT)
            except OSError as error:
                text = f"Cannot start ssh for the tunnel to the hub: {error.strerror}. Install it at this node."
                raise DependencyMissingError(text) from error

        def look() -> Dict[str, Any]:
            code = process.poll()
            return {"state": "running" if code is None else "exited", "returncode": code, "stderr_tail": read_tail(words)}

        try:
            tunnel.prove(options, folder, look)
        finally:
            kill_group(process.pid)
            process.wait()


def _patiently(attempt: Callable[[], None]) -> None:
    """Try again, if the hub turns this node away only because it is busy with others."""
    for left in range(ATTEMPTS - 1, -1, -1):
        try:
            attempt()
            return
        except TunnelFailedError as error:
            if not left or not tunnel.is_busy(error):
                raise
        time.sleep(random.uniform(*PAUSE_SECONDS))


def carry(place: JobPlace, uris: Dict[str, str], sizes: Dict[str, int]) -> Dict[str, str]:
    """The URIs, by disk key, at which this place reaches the hub's exports, each checked if they lead through a tunnel.

    InvalidInputError for URIs that are no exports of a hub; TunnelFailedError; ExportFailedError.
    """
    child = place.client.child(TUNNEL)
    if child["state"] == "absent":
        return uris
    if child["state"] != "running":
        raise tunnel.failed(_server(place), "was lost", child["stderr_tail"])
    far = {key: parse_uri(uri, key) for key, uri in uris.items()}
    strange = sorted(key for key, target in far.items() if target.transport != TCP or target.host != "127.0.0.1")
    if strange:
        raise InvalidInputError(f"{', '.join(strange)}: not an export on the hub's loopback. Say with at_hub which side of the copy it is.")
    ports = {_socket_name(key): target.port for key, target in far.items()}
    look = partial(place.client.child, TUNNEL)
    tunnel.forward(_server(place), place.job.path, ports, look)
    near = {key: _near(place, target) for key, target in far.items()}
    with place.beating(), ThreadPoolExecutor(CHECKS) as pool:
        checks = [pool.submit(check_export, near[key], sizes[key]) for key in sorted(near)]
        for check in checks:
            try:
                check.result()
            except SendenseError as error:
                for other in checks:
                    other.cancel()
                raise explain(place, error) from error
    reached("tunnel:forwarded")
    return near


def _socket_name(key: str) -> str:
    return f"{key}.tunnel.sock"


def _near(place: JobPlace, far: NbdTarget) -> str:
    socket = os.path.join(place.job.path, _socket_name(far.key))
    return NbdTarget(key=far.key, transport=UNIX, socket=socket, export=far.export).uri()


def _server(place: JobPlace) -> str:
    known = place.load("tunnel")
    return f"{known['user']}@{known['host']} port {known['port']}"


def explain(place: JobPlace, error: SendenseError) -> SendenseError:
    """The loss of the tunnel, if that is why a copy failed; else the error as it is."""
    if not error.retryable or isinstance(error, JobAbandonedError):
        return error
    deadline = time.monotonic() + LOSS_SECONDS
    while True:
        child = place.client.child(TUNNEL)
        if child["state"] == "absent" or (child["state"] == "running" and time.monotonic() >= deadline):
            return error
        if child["state"] != "running":
            break
        time.sleep(0.1)
    lost = tunnel.failed(_server(place), "was lost while it carried data", child["stderr_tail"])
    lost.details = dict(error.details, **lost.details, cause=error.msg)
    return lost
