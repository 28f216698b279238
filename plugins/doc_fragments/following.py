# Copyright: (c) 2026, Sendense contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Options of every module whose work may take hours."""

from __future__ import annotations


class ModuleDocFragment:
    """How long work is followed."""

    DOCUMENTATION = r"""
options:
  phase:
    description:
      - Set by the action plugin, which starts the work, follows it and collects its result.
      - V(run) does all in one call, without progress.
    type: str
    choices: [run, start, collect]
    default: run
"""
