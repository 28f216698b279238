# Copyright: (c) 2026, Sendense contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The control plane: launches the playbooks of ``sendense.platform`` and records what they did."""

from __future__ import annotations

__version__ = "0.1.0"
