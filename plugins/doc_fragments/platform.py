# Copyright: (c) 2026, Sendense contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Options of every module that talks to a platform."""

from __future__ import annotations

from textwrap import indent
from typing import ClassVar

_CONNECTION = r"""
uri:
  description: The libvirt connection URI.
  type: str
  default: qemu:///system
username:
  description: User name, where the URI's transport asks for one (SASL).
  type: str
password:
  description: Password for it; take it from a vault or another lookup, never from the command line.
  type: str
domain_type:
  description: Type of the domains that a restore defines; V(auto) takes kvm where the host offers it.
  type: str
  choices: [auto, kvm, qemu]
  default: auto
scratch_dir:
  description:
    - Directory for the scratch files of running backup jobs, which grow with what the guest writes meanwhile.
    - Without it they lie in the directory of the job.
  type: path
agent_timeout:
  description: Seconds to wait for an answer of the guest agent.
  type: int
  default: 10
console_log:
  description: File at the node for the serial console of restored machines, instead of a pseudo terminal.
  type: path
"""


class ModuleDocFragment:
    """How to reach a platform."""

    # Annotated, because ansible-test reads plain assignments only where a text stands there as it is.
    DOCUMENTATION: ClassVar[str] = (
        r"""
options:
  platform:
    description: The virtualization platform.
    type: str
    default: libvirt
    choices: [libvirt]
  connection:
    description: How to reach the platform from the place where the task runs.
    type: dict
    default: {}
    suboptions:
"""
        + indent(_CONNECTION, " " * 6)
        + r"""
requirements:
  - python3-libvirt of the distribution, at the place where the task runs
"""
    )
    # For modules that look at several machines.
    MACHINES: ClassVar[str] = (
        r"""
options:
  machines:
    description: The machines to look at, as C(sendense_source) of the inventory describes them.
    type: list
    elements: dict
    default: []
    suboptions:
      machine_id:
        description: The machine, by the platform's own id.
        type: str
        required: true
      platform:
        description: Its platform.
        type: str
        default: libvirt
        choices: [libvirt]
      connection:
        description: How to reach the platform from the node.
        type: dict
        default: {}
        suboptions:
"""
        + indent(_CONNECTION, " " * 10)
        + r"""
      node:
        description: Inventory name of the node; not used by the module.
        type: str
"""
    )
