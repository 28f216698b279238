# Copyright: (c) 2026, Sendense contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The one machine that a task is about, which may be gone from its platform: arguments of the documentation fragment of this name."""

from __future__ import annotations

from typing import Any, Dict

from ..errors import InvalidInputError
from ..model import machine_key


def chosen_key(params: Dict[str, Any], module: str) -> str:
    """Key of the machine that the arguments of ``module`` name. InvalidInputError if they name none: it is never all machines."""
    if params["machine_key"]:
        return str(params["machine_key"])
    if not params["machine_id"]:
        raise InvalidInputError(f"{module} needs machine_id or machine_key: it works for one machine, never for all of them.")
    return machine_key(params["platform"], params["machine_id"])
