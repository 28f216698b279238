# Copyright: (c) 2026, Sendense contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The caps on the bandwidth of a copy, from the arguments of a module."""

from __future__ import annotations

import os
from typing import Any, Dict

from ..datapath.mover_plan import MoverOptions, record
from ..hubstate.statedir import StateDir


def caps(params: Dict[str, Any]) -> Dict[str, Any]:
    """Those of the mover's options that cap it."""
    options: Dict[str, Any] = {}
    if params.get("max_bytes_per_second"):
        options["bandwidth_bytes_per_s"] = params["max_bytes_per_second"]
    node = params.get("node_bandwidth")
    if node:
        options["node_bandwidth"] = dict(node, directory=os.path.join(StateDir(params["state_dir"]).path, "bandwidth"))
    return options


def require_caps(params: Dict[str, Any]) -> None:
    """InvalidInputError for caps that the copy of this job would refuse: before its machine is touched, not afterwards."""
    record(MoverOptions, caps(params), "options").check()
