# Copyright: (c) 2026, Sendense contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Argument specifications shared by several modules, with the documentation fragment of each."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any, Dict

from .catalog.retention import Policy
from .datapath.tunnel_options import CIPHERS, DEFAULT_PORT
from .datapath.windows import DAYS
from .hubstate.statedir import DEFAULT_STATE_DIR

Spec = Dict[str, Dict[str, Any]]


def platform_spec() -> Spec:
    """Fragment ``platform``: how to reach a platform."""
    return {
        "platform": {"type": "str", "default": "libvirt", "choices": ["libvirt"]},
        "connection": {
            "type": "dict",
            "default": {},
            "options": {
                "uri": {"type": "str", "default": "qemu:///system"},
                "username": {"type": "str"},
                "password": {"type": "str", "no_log": True},
                "domain_type": {"type": "str", "choices": ["auto", "kvm", "qemu"], "default": "auto"},
                "scratch_dir": {"type": "path"},
                "agent_timeout": {"type": "int", "default": 10},
                "console_log": {"type": "path"},
            },
        },
    }


def place_spec() -> Spec:
    """Fragment ``place``: the state directory and the agent at the place where the task runs."""
    return {
        "state_dir": {"type": "path", "default": DEFAULT_STATE_DIR},
        "agent_path": {"type": "path"},
        "heartbeat_timeout": {"type": "int", "default": 30},
        "controller": {"type": "dict", "default": {}},
    }


def following_spec() -> Spec:
    """Fragments ``following`` and ``heartbeats``: how long work is started, followed and collected."""
    return dict(heartbeats_spec(), phase={"type": "str", "choices": ["run", "start", "collect"], "default": "run"})


def heartbeats_spec() -> Spec:
    """Fragment ``heartbeats``: what keeps a job alive at its other places meanwhile."""
    return {
        "heartbeats": {
            "type": "list",
            "elements": "dict",
            "default": [],
            "options": {"host": {"type": "str", "required": True}, "path": {"type": "path", "required": True}},
        },
    }


def tunnel_spec() -> Spec:
    """Fragment ``tunnel``: how a node reaches the exports of its hub. What its words may be is up to ``datapath.tunnel_options``."""
    return {
        "hub_network": {"type": "str", "default": ""},
        "tunnel": {
            "type": "dict",
            "default": {},
            "options": {
                "host": {"type": "str"},
                "port": {"type": "int", "default": DEFAULT_PORT},
                "user": {"type": "str"},
                "identity_file": {"type": "str"},
                "host_key": {"type": "str", "no_log": False},
                "known_hosts_file": {"type": "str"},
                "cipher": {"type": "str", "choices": list(CIPHERS), "default": CIPHERS[0]},
            },
        },
    }


def bandwidth_spec() -> Spec:
    """Fragment ``bandwidth``: what caps a copy. What its values may be is up to ``jobs.caps``."""
    window: Spec = {
        "days": {"type": "list", "elements": "str", "choices": list(DAYS)},
        "from": {"type": "raw", "required": True},
        "to": {"type": "raw", "required": True},
        "timezone": {"type": "str", "default": "UTC"},
        "bytes_per_second": {"type": "int", "required": True},
    }
    node: Spec = {
        "bytes_per_second": {"type": "int", "default": 0},
        "windows": {"type": "list", "elements": "dict", "default": [], "options": window},
    }
    return {"max_bytes_per_second": {"type": "int"}, "node_bandwidth": {"type": "dict", "options": node}}


def repository_spec(required: bool = True) -> Spec:
    """Fragment ``repository``: which repository."""
    return {
        "repository": {
            "type": "dict",
            "required": required,
            "options": {
                "type": {"type": "str", "default": "local", "choices": ["local"]},
                "path": {"type": "path", "required": True},
                "id": {"type": "str", "default": ""},
                "reserve_bytes": {"type": "int", "default": 268435456},
            },
        },
    }


def machines_spec() -> Spec:
    """Fragment ``platform.machines``: several machines, as ``sendense_source`` of the inventory describes them."""
    machine = dict(platform_spec(), machine_id={"type": "str", "required": True}, node={"type": "str"})
    return {"machines": {"type": "list", "elements": "dict", "default": [], "options": machine}}


def any_machine_spec() -> Spec:
    """Fragment ``any_machine``: one machine, also one that is gone from its platform."""
    return {"platform": platform_spec()["platform"], "machine_id": {"type": "str"}, "machine_key": {"type": "str", "no_log": False}}


def machine_spec(required: bool = True) -> Spec:
    """Which machine, by the platform's own id; each module says what it is for."""
    return {"machine_id": {"type": "str", "required": required}}


def retention_spec() -> Spec:
    """The policy of ``backup_prune``: fields and defaults of :class:`.catalog.retention.Policy`."""
    policy = Policy()
    return {name: {"type": type(value).__name__, "default": value} for name, value in asdict(policy).items()}
