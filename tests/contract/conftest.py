# Copyright: (c) 2026, Sendense contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Fixtures of the contract tests: the lab's libvirt host."""

from __future__ import annotations

from tests.lab.fixtures import guest_factory, host_factory, lab_base, libvirt_host

__all__ = ["guest_factory", "host_factory", "lab_base", "libvirt_host"]
