# Copyright: (c) 2026, Sendense contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A node's way to exports that a platform serves at another machine: one ssh for each of its sockets."""

from __future__ import annotations

from functools import partial
from typing import Sequence

from ..datapath.children import TUNNEL
from ..datapath.ssh_route import ENVIRONMENT, SshRoute, await_forward, forward_argv
from ..platforms._base import Forward
from .place import JobPlace


def lead(place: JobPlace, forwards: Sequence[Forward]) -> bool:
    """Lead the sockets of a snapshot to this place, as children of its keeper; whether any had to be. TunnelFailedError."""
    started = False
    for number, forward in enumerate(forwards):
        name, route = f"source-way{number}", SshRoute(**forward.route)
        if place.client.child(name)["state"] != "running":
            place.client.start(name, forward_argv(route, forward.socket, forward.remote_socket), env=ENVIRONMENT, kind=TUNNEL)
            started = True
        await_forward(route, forward.socket, partial(place.client.child, name))
    return started
