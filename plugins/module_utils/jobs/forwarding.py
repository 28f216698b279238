# Copyright: (c) 2026, Sendense contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A node's way to exports that a platform serves at another machine: one ssh for each of its sockets."""

from __future__ import annotations

import time
from functools import partial
from typing import Sequence

from ..datapath.children import TUNNEL
from ..datapath.ssh_route import ENVIRONMENT, SshRoute, await_forward, forward_argv, way_failed
from ..errors import JobAbandonedError, SendenseError
from ..platforms._base import Forward
from .place import JobPlace

#: Seconds in which a forward that broke a copy must be seen to have ended.
LOSS_SECONDS = 1.0
_NAME = "source-way"


def lead(place: JobPlace, forwards: Sequence[Forward]) -> bool:
    """Lead the sockets of a snapshot to this place, as children of its keeper; whether any had to be. TunnelFailedError."""
    started = False
    for number, forward in enumerate(forwards):
        name, route = f"{_NAME}{number}", SshRoute(**forward.route)
        if place.client.child(name)["state"] != "running":
            place.client.start(name, forward_argv(route, forward.socket, forward.remote_socket), env=ENVIRONMENT, kind=TUNNEL)
            started = True
        await_forward(route, forward.socket, partial(place.client.child, name))
    return started


def explain_way(place: JobPlace, error: SendenseError) -> SendenseError:
    """The loss of the way to a source, if that is why a copy failed; else the error as it is."""
    names = sorted(name for name in place.client.ping()["children"] if name.startswith(_NAME))
    if not names or not error.retryable or isinstance(error, JobAbandonedError):
        return error
    deadline = time.monotonic() + LOSS_SECONDS
    while True:
        ended = {name: child for name, child in ((name, place.client.child(name)) for name in names) if child["state"] == "exited"}
        if ended or time.monotonic() >= deadline:
            break
        time.sleep(0.1)
    for name, child in ended.items():
        route = SshRoute(**place.load("snapshot")["forwards"][int(name[len(_NAME) :])]["route"])
        advice = "See that this node reaches it, then run the job again."
        lost = way_failed(route.server, "was lost while it carried data", child["stderr_tail"], advice)
        lost.details = dict(error.details, **lost.details, cause=error.msg)
        return lost
    return error
