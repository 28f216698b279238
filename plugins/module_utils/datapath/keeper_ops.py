# Copyright: (c) 2026, Sendense contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a keeper can be asked to do for its job.

An operation that has to wait is a generator that yields how many seconds it wants to sleep; the keeper's loop serves
others meanwhile. None of them blocks.
"""

from __future__ import annotations

import errno
import os
import random
import re
import time
from typing import Any, Callable, Dict, Generator, List, Optional, Union

from ..errors import DependencyMissingError, ExportFailedError, InvalidInputError, PortBusyError
from ..hubstate.cancelling import leave_note
from ..hubstate.files import read_tail
from ..hubstate.jobs import JobDir
from ..hubstate.locks import FileLease
from ..hubstate.ports import PortLease, PortOwner, PortPool, port_is_free
from ..hubstate.undo import UndoReport, run_undos
from ..steps import reached
from .children import EXPORT, KINDS, Child, Children
from .export_records import RUNNING
from .listeners import greets, listens

Answer = Dict[str, Any]
Waiting = Generator[float, None, Answer]

#: Seconds that an export server may need to open its image and to listen.
START_SECONDS = 15.0

_CHILD_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
_LEASE_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,219}")
#: Seconds for which undos are tried again that cannot reach what they undo: a link that flaps must not leave a guest as it is.
AGAIN_SECONDS = 30.0


class JobKeeper:
    """The leases, ports, children and undo commands of one job."""

    def __init__(self, job: JobDir, pool: PortPool) -> None:
        self.job = job
        self.children = Children(job)
        self._pool = pool
        self._leases: Dict[str, FileLease] = {}
        self._ports: Dict[int, PortLease] = {}
        self._since = time.monotonic()

    def perform(self, request: Dict[str, Any]) -> Union[Answer, Waiting]:
        """Begin what a request asks for. InvalidInputError for an unknown operation or a bad argument."""
        operations: Dict[str, Callable[[Dict[str, Any]], Union[Answer, Waiting]]] = {
            "ping": self._ping,
            "hold": self._hold,
            "lease_ports": self._lease_ports,
            "release_port": self._release_port,
            "start": self._start,
            "child": self._child,
            "stop": self._stop,
            "undo_add": self._undo_add,
            "undo_remove": self._undo_remove,
        }
        operation = operations.get(str(request.get("op")))
        if operation is None:
            raise InvalidInputError(f"Keepers do not know the operation {request.get('op')!r}: use {', '.join(sorted(operations))}.")
        return operation(request)

    def end(self, undo: bool, note: bool = False) -> Waiting:
        """Stop everything, run the undos if wanted, release everything, remove the job directory.

        ``note``: leave word that the job was cancelled, for the play that still waits for it.
        Servers are stopped before the undos, because an undo may need the lock on an image that a server holds; the leases are
        released after them. The directory of a job whose undo failed stays for cleanup.
        """
        if note:
            leave_note(self.job.path, [undo["name"] for undo in self.job.undos()])
        if undo:
            self.children.kill_workers()
        codes: Dict[str, Optional[int]] = {}
        for names in self.children.stages():
            codes.update((yield from self.children.stop(names)))
        reached("keeper:children-stopped")
        report = UndoReport()
        if undo:
            report = yield from run_undos(self.job, again_s=AGAIN_SECONDS)
        else:
            self.job.save_undos([])
        reached("keeper:undone")
        self._release_all()
        reached("keeper:released")
        if not report.failed:
            self.job.remove()
        return {"returncodes": codes, "undone": report.undone, "failed": report.failed}

    def _release_all(self) -> None:
        for port in self._ports.values():
            port.release()
        for lease in self._leases.values():
            lease.release()
        self._ports.clear()
        self._leases.clear()

    def _ping(self, request: Dict[str, Any]) -> Answer:
        return {
            "pid": os.getpid(),
            "job_id": self.job.job_id,
            "role": self.job.role,
            "uptime_s": round(time.monotonic() - self._since, 3),
            "children": {name: _brief(self.children.get(name)) for name in self.children.names()},
            "ports": sorted(self._ports),
            "leases": sorted(self._leases),
        }

    def _hold(self, request: Dict[str, Any]) -> Answer:
        name, shared = _text(request, "name", _LEASE_NAME), bool(request.get("shared"))
        held = self._leases.get(name)
        if held is not None and held.shared == shared:
            return {}
        if held is not None:
            raise InvalidInputError(f"Lease {name} is held by this job in the other mode; it cannot be changed.")
        owner = dict(_mapping(request, "owner"), job=self.job.job_id, role=self.job.role)
        self._leases[name] = FileLease.acquire(os.path.join(self.job.state.leases, f"{name}.lease"), owner, shared=shared)
        reached("keeper:lease-held")
        return {}

    def _lease_ports(self, request: Dict[str, Any]) -> Waiting:
        wanted, wait_s = request.get("exports"), float(request.get("wait_s") or 0)
        if not isinstance(wanted, list) or not all(isinstance(export, dict) for export in wanted):
            raise InvalidInputError("lease_ports needs exports: a list of {machine, node, export}.")
        owners = [PortOwner(self.job.job_id, *(str(export.get(key, "")) for key in ("machine", "node", "export"))) for export in wanted]
        deadline = time.monotonic() + wait_s
        while True:
            leases = self._pool.try_allocate(owners)
            if leases is not None:
                self._ports.update({lease.port: lease for lease in leases})
                reached("keeper:ports-leased")
                return {"ports": [lease.port for lease in leases]}
            if time.monotonic() >= deadline:
                raise self._pool.exhausted(len(owners), wait_s)
            # A random pause, so that keepers that wait do not all try at the same moment.
            yield random.uniform(0.02, 0.1)

    def _release_port(self, request: Dict[str, Any]) -> Waiting:
        port = request.get("port")
        if not isinstance(port, int):
            raise InvalidInputError(f"Port {port!r} is refused: it must be a number.")
        child = self.children.on_port(port)
        if child is not None:
            yield from self.children.stop([child.name])
        lease = self._ports.pop(port, None)
        if lease is not None:
            lease.release()
        return {"released": lease is not None}

    def _start(self, request: Dict[str, Any]) -> Waiting:
        name, argv, kind = _text(request, "name", _CHILD_NAME), _argv(request), request.get("kind")
        if kind not in KINDS:
            raise InvalidInputError(f"Child kind {kind!r} is refused: use one of {', '.join(KINDS)}.")
        record = self._record(request) if kind == EXPORT else None
        env = {str(key): str(value) for key, value in _mapping(request, "env").items()}
        try:
            child = self.children.start(name, argv, env, kind, record)
        except OSError as error:
            raise DependencyMissingError(
                f"Cannot start {argv[0]} for {name}: {error.strerror}. Install it at this place.", details={"program": argv[0]}
            ) from error
        reached(f"keeper:{kind}-started")
        if record is not None:
            yield from self._serving(child, record)
        return {"pid": child.process.pid}

    def _record(self, request: Dict[str, Any]) -> Optional[Dict[str, Any]]:
        given = _mapping(request, "record")
        if not given:
            return None
        record = dict({"port": None, "socket": None, "machine": "", "export": ""}, **given)
        record.update(job=self.job.job_id, role=self.job.role)
        if record["port"] is not None and record["port"] not in self._ports:
            raise InvalidInputError(f"Port {record['port']} is not leased by job {self.job.job_id}; lease it before a server starts.")
        if record["port"] is None and not isinstance(record["socket"], str):
            raise InvalidInputError("The record of an export needs its port or its socket.")
        return record

    def _serving(self, child: Child, record: Dict[str, Any]) -> Generator[float, None, None]:
        """Wait until the server greets; ExportFailedError with its last words if it ends or takes too long."""
        deadline = time.monotonic() + START_SECONDS
        steps = _until_it_serves(child.process.pid, record)
        served = False
        while not served and child.process.poll() is None and time.monotonic() < deadline:
            try:
                yield next(steps)
            except StopIteration:
                served = True
        steps.close()
        if served and child.process.poll() is None:
            self.children.mark(child, RUNNING)
            return
        why = f"did not serve within {START_SECONDS:g} s" if child.returncode is None else f"ended with exit code {child.returncode}"
        tail = read_tail(child.stderr_path)
        ended = child.returncode is not None
        yield from self.children.stop([child.name])
        port = record["port"]
        if ended and port is not None and (os.strerror(errno.EADDRINUSE) in tail or not port_is_free(port)):
            raise PortBusyError(
                f"The export server {child.name} ({record['export']}) cannot listen: port {port} of 127.0.0.1 is in use by a program "
                "outside the port pool. Run the job again; it takes another port.",
                details={"name": child.name, "port": port, "stderr": tail},
            )
        raise ExportFailedError(
            f"The export server {child.name} ({record['export']}) {why}: {tail or 'it said nothing'}. "
            "Look at its image and at the storage below it, then run the job again.",
            details={"name": child.name, "returncode": child.returncode, "stderr": tail},
        )

    def _child(self, request: Dict[str, Any]) -> Answer:
        child = self.children.get(_text(request, "name", _CHILD_NAME))
        if child is None:
            return {"state": "absent", "kind": None, "pid": None, "returncode": None, "stderr_tail": ""}
        return child.describe()

    def _stop(self, request: Dict[str, Any]) -> Waiting:
        names = request.get("names")
        if not isinstance(names, list):
            raise InvalidInputError("stop needs names: a list of children.")
        checked = [_text({"name": name}, "name", _CHILD_NAME) for name in names]
        codes = yield from self.children.stop(checked)
        return {"returncodes": {name: codes.get(name) for name in checked}}

    def _undo_add(self, request: Dict[str, Any]) -> Answer:
        name, argv = _text(request, "name", _CHILD_NAME), _argv(request)
        self.job.save_undos([undo for undo in self.job.undos() if undo["name"] != name] + [{"name": name, "argv": argv}])
        reached("keeper:undo-saved")
        return {}

    def _undo_remove(self, request: Dict[str, Any]) -> Answer:
        name = _text(request, "name", _CHILD_NAME)
        self.job.save_undos([undo for undo in self.job.undos() if undo["name"] != name])
        return {}


def _until_it_serves(pid: int, record: Dict[str, Any]) -> Generator[float, None, None]:
    while True:
        if listens(pid, record["port"], record["socket"]) and (yield from greets(record["port"], record["socket"])):
            return
        yield 0.01


def _brief(child: Optional[Child]) -> Dict[str, Any]:
    if child is None:
        return {"state": "absent"}
    return {"kind": child.kind, "state": "running" if child.returncode is None else "exited", "pid": child.process.pid}


def _text(request: Dict[str, Any], field: str, pattern: "re.Pattern[str]") -> str:
    value = request.get(field)
    if not isinstance(value, str) or not pattern.fullmatch(value):
        raise InvalidInputError(f"{field} {value!r} is refused: it must match {pattern.pattern}.")
    return value


def _mapping(request: Dict[str, Any], field: str) -> Dict[str, Any]:
    value = request.get(field) or {}
    if not isinstance(value, dict):
        raise InvalidInputError(f"{field} is refused: it must be a mapping.")
    return value


def _argv(request: Dict[str, Any]) -> List[str]:
    argv = request.get("argv")
    if not isinstance(argv, list) or not argv or not all(isinstance(word, str) and "\0" not in word for word in argv):
        raise InvalidInputError("argv is refused: it must be a list of strings that begins with a program.")
    return argv
