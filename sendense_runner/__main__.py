# Copyright: (c) 2026, Sendense contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Lets ``python -m sendense_runner`` be the ``sendense`` command of a checkout."""

from __future__ import annotations

import sys

from .cli import main

sys.exit(main(sys.argv[1:]))
