# Copyright: (c) 2026, Sendense contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Options of every module that works on a repository."""

from __future__ import annotations


class ModuleDocFragment:
    """Which repository."""

    DOCUMENTATION = r"""
options:
  repository:
    description: The repository.
    type: dict
    suboptions:
      type:
        description: The storage backend.
        type: str
        default: local
        choices: [local]
      path:
        description: Directory of the repository at the hub.
        type: path
        required: true
      id:
        description: The identity that the repository must have; empty accepts any that is initialised.
        type: str
        default: ''
      reserve_bytes:
        description: Bytes of free space that backups never use.
        type: int
        default: 268435456
"""
    # Of those that cannot do without; beside ``repository``.
    REQUIRED = r"""
options:
  repository:
    required: true
"""
