# Copyright: (c) 2026, Sendense contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The children of a keeper: export servers, movers, verifiers, a tunnel. None of them outlives it."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from dataclasses import dataclass
from typing import Any, Dict, Generator, List, Optional

from ..errors import InvalidInputError
from ..hubstate.files import read_tail
from ..hubstate.jobs import JobDir
from ..hubstate.processes import kill_group, send_signal, spawn, start_time
from .export_records import DEAD, STARTING, remove_record, write_record

EXPORT, MOVER, VERIFIER, TUNNEL = KINDS = ("export", "mover", "verifier", "tunnel")
#: Seconds between TERM and KILL.
TERM_SECONDS = 5.0
#: Seconds in which a killed process must be gone; one that is stuck in the kernel is not waited for any longer.
KILL_SECONDS = 5.0


@dataclass
class Child:
    """One child; ``record`` is set for export servers that somebody may look up."""

    name: str
    kind: str
    process: "subprocess.Popen[bytes]"
    starttime: Optional[int]
    stderr_path: str
    record: Optional[Dict[str, Any]]

    @property
    def returncode(self) -> Optional[int]:
        """None while it runs, negative for a signal."""
        return self.process.returncode

    def describe(self) -> Dict[str, Any]:
        """As the ``child`` request answers."""
        running = self.returncode is None
        return {
            "state": "running" if running else "exited",
            "kind": self.kind,
            "pid": self.process.pid,
            "returncode": self.returncode,
            "stderr_tail": read_tail(self.stderr_path),
        }


class Children:
    """All children of one keeper, by name."""

    def __init__(self, job: JobDir) -> None:
        self._job = job
        self._children: Dict[str, Child] = {}

    def names(self) -> List[str]:
        """The names of all children that were not stopped, also of those that ended by themselves."""
        return sorted(self._children)

    def stages(self) -> List[List[str]]:
        """In which order all of them are stopped: what the others still talk through is last."""
        tunnels = [name for name in self.names() if self._children[name].kind == TUNNEL]
        return [[name for name in self.names() if name not in tunnels], tunnels]

    def get(self, name: str) -> Optional[Child]:
        """The child of this name, None if there is none."""
        return self._children.get(name)

    def on_port(self, port: int) -> Optional[Child]:
        """The export server on this port, None if there is none."""
        return next((child for child in self._children.values() if (child.record or {}).get("port") == port), None)

    def start(self, name: str, argv: List[str], env: Dict[str, str], kind: str, record: Optional[Dict[str, Any]]) -> Child:
        """Start one. InvalidInputError if one of this name runs. OSError if the program cannot be started."""
        known = self._children.get(name)
        if known is not None and known.returncode is None:
            raise InvalidInputError(f"Child {name} of job {self._job.job_id} runs already (pid {known.process.pid}); stop it first.")
        if known is not None:
            self._forget(known)
        paths = [os.path.join(self._job.path, f"{name}.{stream}") for stream in ("out", "err")]
        outputs = [os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600) for path in paths]
        try:
            process = spawn(argv, stdout=outputs[0], stderr=outputs[1], env=env)
        finally:
            for descriptor in outputs:
                os.close(descriptor)
        child = Child(name, kind, process, start_time(process.pid), paths[1], None)
        self._children[name] = child
        self._save()
        if record is not None:
            child.record = dict(record, name=name, pid=process.pid, starttime=child.starttime, started_at=round(time.time(), 3))
            self.mark(child, STARTING)
        return child

    def mark(self, child: Child, state: str) -> None:
        """Write the state of an export server into its record."""
        if child.record is not None and child.record.get("state") != state:
            child.record["state"] = state
            write_record(self._job, child.record)

    def poll(self) -> None:
        """Reap the dead, and note those that should have lived."""
        for child in self._children.values():
            if child.returncode is None and child.process.poll() is not None and child.record is not None:
                child.record["returncode"] = child.returncode
                self.mark(child, DEAD)

    def kill_workers(self) -> None:
        """KILL movers and verifiers at once: nobody wants their result any more."""
        for child in self._children.values():
            if child.kind in (MOVER, VERIFIER) and child.process.poll() is None:
                kill_group(child.process.pid)

    def stop(self, names: List[str]) -> Generator[float, None, Dict[str, Optional[int]]]:
        """Stop all of these at the same time: TERM, after 5 s KILL for the process group. Return codes by name.

        The code of a process that is stuck in the kernel is None. Each is forgotten, with its record.
        """
        children = [self._children[name] for name in names if name in self._children]
        for child in children:
            if child.process.poll() is None:
                send_signal(child.process.pid, signal.SIGTERM)
        yield from _ended(children, TERM_SECONDS)
        for child in children:
            if child.process.poll() is None:
                kill_group(child.process.pid)
        yield from _ended(children, KILL_SECONDS)
        for child in children:
            self._forget(child)
        self._save()
        return {child.name: child.returncode for child in children}

    def _forget(self, child: Child) -> None:
        if self._children.get(child.name) is child:
            del self._children[child.name]
        if child.record is not None:
            remove_record(self._job, child.record)

    def _save(self) -> None:
        self._job.save_children(
            [
                {"name": child.name, "kind": child.kind, "pid": child.process.pid, "starttime": child.starttime}
                for child in self._children.values()
                if child.returncode is None
            ]
        )


def _ended(children: List[Child], seconds: float) -> Generator[float, None, None]:
    deadline = time.monotonic() + seconds
    while any(child.process.poll() is None for child in children) and time.monotonic() < deadline:
        yield 0.02
