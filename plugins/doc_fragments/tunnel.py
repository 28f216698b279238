# Copyright: (c) 2026, Sendense contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Options of the modules by which a node begins its half of a job, and with it its way to the hub."""

from __future__ import annotations


class ModuleDocFragment:
    """How a node reaches the exports of its hub."""

    DOCUMENTATION = r"""
options:
  hub_network:
    description:
      - C(job.network) as the hub's half of the job returned it. Where it is the network of this node, too, data goes over the loopback.
        Elsewhere O(tunnel) is needed; it is made and proven before anything is touched.
    type: str
    default: ''
  tunnel:
    description:
      - How this node reaches the sshd of its hub, C(sendense_tunnel) of the hub in the inventory. Not looked at where none is needed.
      - No ssh configuration, known hosts or agent of this machine takes part.
    type: dict
    default: {}
    suboptions:
      host:
        description: Name or address of the hub, as this node knows it.
        type: str
      port:
        description: Port of its sshd.
        type: int
        default: 22
      user:
        description: User at the hub. It needs no right but to forward to its loopback.
        type: str
      identity_file:
        description: Private key at this node, without a passphrase. An absolute path.
        type: str
      host_key:
        description: Public key of the hub's sshd, one line such as C(ssh-ed25519 AAAA...). Either this or O(tunnel.known_hosts_file).
        type: str
      known_hosts_file:
        description: File at this node with the keys of hubs. An absolute path.
        type: str
      cipher:
        description: How the data is encrypted.
        type: str
        choices: [aes128-gcm@openssh.com, aes256-gcm@openssh.com, chacha20-poly1305@openssh.com]
        default: aes128-gcm@openssh.com
"""
