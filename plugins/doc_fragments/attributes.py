# Copyright: (c) 2026, Sendense contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What modules of this collection support, in the words that ansible-doc shows; a module says only what is different."""

from __future__ import annotations


class ModuleDocFragment:
    """Attribute texts."""

    DOCUMENTATION = r"""
options: {}
attributes:
  action_group:
    description: Use C(group/sendense.platform.sendense) in C(module_defaults) to set defaults for this module.
    support: full
    membership:
      - sendense.platform.sendense
  check_mode:
    description: Can run in check_mode and return the changed status prediction without modifying anything.
    support: full
  diff_mode:
    description: Returns details on what has changed, or would change in check_mode, when in diff mode.
    support: none
"""
