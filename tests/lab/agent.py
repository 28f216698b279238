# Copyright: (c) 2026, Sendense contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The guest agent of a lab guest, through libvirt."""

from __future__ import annotations

import base64
import json
import time
from typing import Any, Dict, Optional

import libvirt
import libvirt_qemu

from .paths import LabError


class GuestAgent:
    """Commands to qemu-ga in one guest. Errors are libvirt's, except LabError for a guest that never answers."""

    def __init__(self, domain: libvirt.virDomain, timeout_s: int = 10) -> None:
        self._domain = domain
        self._timeout_s = timeout_s

    def call(self, command: str, arguments: Optional[Dict[str, Any]] = None) -> Any:
        """One agent command; returns what its ``return`` holds."""
        request = {"execute": command, **({"arguments": arguments} if arguments else {})}
        answer = libvirt_qemu.qemuAgentCommand(self._domain, json.dumps(request), self._timeout_s, 0)
        return json.loads(answer)["return"]

    def ping(self) -> bool:
        """Whether the agent answers now."""
        try:
            self.call("guest-ping")
        except libvirt.libvirtError:
            return False
        return True

    def wait(self, timeout_s: float = 60.0) -> "GuestAgent":
        """Wait until the agent answers."""
        deadline = time.monotonic() + timeout_s
        while not self.ping():
            if time.monotonic() > deadline:
                raise LabError(f"the agent of {self._domain.name()!r} did not answer within {timeout_s:.0f} s")
            time.sleep(0.1)
        return self

    def freeze_status(self) -> str:
        """``thawed`` or ``frozen``."""
        return str(self.call("guest-fsfreeze-status"))

    def freeze(self) -> int:
        """Freeze the guest's file systems; returns how many."""
        return int(self.call("guest-fsfreeze-freeze"))

    def thaw(self) -> int:
        """Thaw them; returns how many were frozen."""
        return int(self.call("guest-fsfreeze-thaw"))

    def write_file(self, path: str, data: bytes) -> None:
        """Write a file in the guest and flush it to the disk."""
        handle = self.call("guest-file-open", {"path": path, "mode": "w"})
        try:
            self.call("guest-file-write", {"handle": handle, "buf-b64": base64.b64encode(data).decode()})
            self.call("guest-file-flush", {"handle": handle})
        finally:
            self.call("guest-file-close", {"handle": handle})
        self.run("/bin/sync")

    def read_file(self, path: str, limit: int = 1 << 20) -> bytes:
        """Read a file in the guest, at most ``limit`` bytes."""
        handle = self.call("guest-file-open", {"path": path, "mode": "r"})
        try:
            return base64.b64decode(self.call("guest-file-read", {"handle": handle, "count": limit})["buf-b64"])
        finally:
            self.call("guest-file-close", {"handle": handle})

    def run(self, path: str, *arguments: str, timeout_s: float = 30.0) -> str:
        """Run a program in the guest to its end; returns its output, LabError if it fails."""
        started = self.call("guest-exec", {"path": path, "arg": list(arguments), "capture-output": True})
        deadline = time.monotonic() + timeout_s
        while True:
            status = self.call("guest-exec-status", {"pid": started["pid"]})
            if status["exited"]:
                break
            if time.monotonic() > deadline:
                raise LabError(f"{path} in {self._domain.name()!r} did not end within {timeout_s:.0f} s")
            time.sleep(0.05)
        output = base64.b64decode(status.get("out-data", "")).decode(errors="replace")
        if status.get("exitcode") != 0:
            errors = base64.b64decode(status.get("err-data", "")).decode(errors="replace")
            raise LabError(f"{path} in {self._domain.name()!r} failed: {status.get('exitcode')} {errors}")
        return output
