# Copyright: (c) 2026, Sendense contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Options of the modules that move data, or that begin a job in which data will be moved."""

from __future__ import annotations


class ModuleDocFragment:
    """What caps a copy. Modules that only begin its job refuse what cannot be meant before anything is touched."""

    DOCUMENTATION = r"""
options:
  max_bytes_per_second:
    description: Cap on the bandwidth of the whole job, at least 16384; none without it.
    type: int
  node_bandwidth:
    description:
      - What all movers that run at this place may use together, in both directions; the lowest of all caps counts.
      - Every mover sees once a second what the others use, so that what one does not need is not lost to them.
    type: dict
    suboptions:
      bytes_per_second:
        description: At any time; V(0) means only in the windows. At least 16384.
        type: int
        default: 0
      windows:
        description: Times with a lower cap. Where they overlap the lowest counts. They are looked at while a copy runs.
        type: list
        elements: dict
        default: []
        suboptions:
          days:
            description: The days on which the window begins; every day without it.
            type: list
            elements: str
            choices: [mon, tue, wed, thu, fri, sat, sun]
          from:
            description: Time of day at which it begins, as in V("08:00").
            type: raw
            required: true
          to:
            description: Time of day at which it ends, up to V("24:00"); on the next day if that is earlier.
            type: raw
            required: true
          timezone:
            description: Whose clock that is, for example V(Europe/Berlin).
            type: str
            default: UTC
          bytes_per_second:
            description: The cap in it, at least 16384.
            type: int
            required: true
"""
