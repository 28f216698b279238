# Copyright: (c) 2026, Sendense contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The caller's side of the keeper's socket: one JSON line there, one back."""

from __future__ import annotations

import json
import os
import socket
import time
from typing import Any, Dict, List, Optional

from ..errors import JobAbandonedError, JobCancelledError, JobNotFoundError, KeeperFailedError, SendenseError, from_result
from ..hubstate.cancelling import cancelled_error, was_cancelled
from .targets import MAX_SOCKET_BYTES

#: Seconds for an answer that needs no waiting; a keeper is single-threaded but never blocks.
ANSWER_SECONDS = 30.0
#: Seconds for what may have to stop servers and run undo commands one after another.
END_SECONDS = 600.0


class KeeperClient:
    """Talks to the keeper of one job. Any request is also a heartbeat.

    Every method raises the keeper's own typed error, JobNotFoundError if no keeper listens, JobAbandonedError if it
    goes away before it has answered, and instead of both JobCancelledError if the job was cancelled. A keeper that is there and
    does not answer is KeeperFailedError after ``answer_s`` seconds, and at once when it is asked again.
    """

    def __init__(self, socket_path: str, answer_s: float = ANSWER_SECONDS) -> None:
        self.socket_path = socket_path
        self._answer_s = answer_s
        self._hangs = False

    def ping(self) -> Dict[str, Any]:
        """``pid``, ``job_id``, ``role``, ``uptime_s``, ``children`` (by name: kind, state, pid), ``ports``, ``leases``."""
        return self._call("ping")

    def hold(self, name: str, owner: Dict[str, Any], shared: bool = False) -> None:
        """Take the lease of this name until the job ends; repetition is fine. LeaseHeldError with the holder."""
        self._call("hold", name=name, owner=owner, shared=shared)

    def lease_ports(self, exports: List[Dict[str, str]], wait_s: float) -> List[int]:
        """One port for each of ``{"machine", "node", "export"}``, all or nothing. PortsExhaustedError after ``wait_s`` seconds."""
        answer = self._call("lease_ports", timeout_s=wait_s + self._answer_s, exports=exports, wait_s=wait_s)
        return [int(port) for port in answer["ports"]]

    def release_port(self, port: int) -> bool:
        """Stop the server on this port and give the port back; False if this job does not hold it."""
        return bool(self._call("release_port", port=port)["released"])

    def start(
        self,
        name: str,
        argv: List[str],
        env: Optional[Dict[str, str]] = None,
        kind: str = "export",
        record: Optional[Dict[str, Any]] = None,
    ) -> int:
        """Start a child (kind export, mover, verifier); its pid. An export is started when it greets clients. ExportFailedError."""
        return int(self._call("start", name=name, argv=argv, env=env or {}, kind=kind, record=record)["pid"])

    def child(self, name: str) -> Dict[str, Any]:
        """``state`` (running, exited, absent), ``pid``, ``returncode``, ``stderr_tail``."""
        return self._call("child", name=name)

    def stop(self, name: str) -> Optional[int]:
        """TERM, KILL after 5 s, and forget the child; its return code, None if there is no such child."""
        return self.stop_all([name])[name]

    def stop_all(self, names: List[str]) -> Dict[str, Optional[int]]:
        """As :meth:`stop`, of several children at the same time; return codes by name."""
        codes = self._call("stop", names=names)["returncodes"]
        return {name: None if codes[name] is None else int(codes[name]) for name in names}

    def undo_add(self, name: str, argv: List[str]) -> None:
        """Persist a command that undoes what is about to be done. The same name again replaces it."""
        self._call("undo_add", name=name, argv=argv)

    def undo_remove(self, name: str) -> None:
        """Forget an undo command; repetition is fine."""
        self._call("undo_remove", name=name)

    def finish(self) -> None:
        """Stop children, release everything, forget the undos, remove the job directory; returns when the keeper is gone."""
        self.ping()  # a keeper that hangs is found in seconds, not after the time that an end may take
        self._call("finish", timeout_s=END_SECONDS, until_gone=True)

    def abort(self) -> Dict[str, Any]:
        """Run the undos, then as :meth:`finish`: ``undone`` (names) and ``failed`` (name, error; left for cleanup)."""
        self.ping()
        return self._call("abort", timeout_s=END_SECONDS, until_gone=True)

    def _call(self, op: str, timeout_s: Optional[float] = None, until_gone: bool = False, **arguments: Any) -> Dict[str, Any]:
        if self._hangs:
            raise self._hung(op)
        request = json.dumps(dict(arguments, op=op)).encode("ascii") + b"\n"
        deadline = time.monotonic() + (self._answer_s if timeout_s is None else timeout_s)
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as connection:
            connection.settimeout(self._answer_s)
            self._connect(connection)
            try:
                connection.sendall(request)
                answer = self._read_line(connection, op, deadline)
                if until_gone:
                    # The keeper closes this connection by exiting.
                    self._read_line(connection, op, deadline)
            except socket.timeout as error:
                raise self._hung(op) from error
            except OSError as error:
                raise self._lost(op, str(error) or "no answer") from error
        if not answer.endswith(b"\n"):
            raise self._lost(op, "the keeper went away")
        decoded = json.loads(answer)
        if not decoded.pop("ok"):
            raise from_result(decoded["error"])
        return dict(decoded)

    def _read_line(self, connection: socket.socket, op: str, deadline: float) -> bytes:
        """One line, or what came before the end of the connection."""
        found = bytearray()
        while not found.endswith(b"\n"):
            try:
                part = connection.recv(65536)
            except socket.timeout:
                self._look_after(op, deadline)
                continue
            if not part:
                break
            found += part
        return bytes(found)

    def _look_after(self, op: str, deadline: float) -> None:
        """Between two waits for a long answer: a keeper that lives answers a ping meanwhile. KeeperFailedError."""
        if time.monotonic() >= deadline:
            raise self._hung(op)
        try:
            self.ping()
        except (JobNotFoundError, JobAbandonedError, JobCancelledError):
            return  # it has just ended: so does the connection

    def _hung(self, op: str) -> KeeperFailedError:
        self._hangs = True
        return KeeperFailedError(
            f"The keeper at {self.socket_path} does not answer {op}: it hangs. What its job holds stays held until it runs again or is "
            "killed. See what stops it at that place (its pid is in job.json beside the socket), then run the job again.",
            details={"socket": self.socket_path, "op": op},
        )

    def _connect(self, connection: socket.socket) -> None:
        if len(os.fsencode(self.socket_path)) > MAX_SOCKET_BYTES:
            raise JobNotFoundError(f"Keeper socket {self.socket_path} is too long to exist. Use a shorter state directory.")
        try:
            connection.connect(self.socket_path)
        except (socket.timeout, BlockingIOError) as error:
            raise self._hung("connect") from error  # so many wait for it that there is no room for one more
        except OSError as error:
            self._raise_if_cancelled(error)
            raise JobNotFoundError(
                f"No keeper answers at {self.socket_path} ({error.strerror}): the job ended, was given up or its keeper was killed. "
                "Run the cleanup playbook and begin anew.",
                details={"socket": self.socket_path},
            ) from error

    def _raise_if_cancelled(self, cause: OSError) -> None:
        job_path = os.path.dirname(self.socket_path)
        if was_cancelled(job_path):
            raise cancelled_error(job_path) from cause

    def _lost(self, op: str, why: str) -> SendenseError:
        job_path = os.path.dirname(self.socket_path)
        if was_cancelled(job_path):
            return cancelled_error(job_path)
        return JobAbandonedError(
            f"The keeper at {self.socket_path} did not answer {op}: {why}. Its job is given up; run it again.",
            details={"socket": self.socket_path, "op": op},
        )
