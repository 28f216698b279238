# Copyright: (c) 2026, Sendense contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Finds the collection's shared kernel, ``hubstate``: the only part of the collection that the runner imports."""

from __future__ import annotations

import importlib
import sys
from pathlib import Path
from types import ModuleType

PACKAGE = "ansible_collections.sendense.platform.plugins.module_utils.hubstate"


def hubstate(name: str) -> ModuleType:
    """The module ``hubstate.<name>``: of an installed collection, else of the checkout that this package lies in."""
    try:
        return importlib.import_module(f"{PACKAGE}.{name}")
    except ModuleNotFoundError as error:
        if not PACKAGE.startswith(str(error.name)):
            raise
    sys.path.append(str(Path(__file__).resolve().parents[1] / "collections"))
    importlib.invalidate_caches()
    return importlib.import_module(f"{PACKAGE}.{name}")
