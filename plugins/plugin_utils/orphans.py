# Copyright: (c) 2026, Sendense contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A worker of Ansible has nobody to report to once ansible-playbook was killed; it must not wait for that for ever.

Every worker holds both ends of the pipe that results and messages travel through, so writing to it neither fails nor ends when
ansible-playbook is gone: once the pipe is full, the worker and all others that want to write stay for good.
"""

from __future__ import annotations

import ctypes
import multiprocessing
import os
import signal

_PR_SET_PDEATHSIG = 1


def end_with_parent() -> None:
    """Let the kernel kill this worker as soon as ansible-playbook is gone, now if it already is. Does nothing outside a worker.

    To be called before anything is written for ansible-playbook, and not while a module works.
    """
    parent = multiprocessing.parent_process()
    if parent is None or parent.pid is None:
        return
    if ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0) != 0:
        return  # no Linux, or not allowed: as it is with any other action
    if os.getppid() != parent.pid:
        os.kill(os.getpid(), signal.SIGKILL)
