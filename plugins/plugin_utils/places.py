# Copyright: (c) 2026, Sendense contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Connections to the places of a job other than the one that a task runs at.

A task reaches one host; a job lives at two (hub and node), and both have to hear the heartbeat while the task follows
hours of copying. These helpers open the other host's own Ansible connection, as its inventory variables describe it.
"""

from __future__ import annotations

import os
import shlex
import tempfile
import threading
from contextlib import contextmanager
from typing import Any, Dict, Iterator, List, Optional

from ansible import constants
from ansible.errors import AnsibleConnectionFailure, AnsibleError
from ansible.plugins.loader import connection_loader
from ansible.utils.display import Display

from ansible_collections.sendense.platform.plugins.module_utils.errors import JobCancelledError
from ansible_collections.sendense.platform.plugins.module_utils.hubstate.cancelling import cancelled_error, cancelled_test

display = Display()


def touch_here(path: str) -> None:
    """Set the time of a file of the controller to now, if it exists; AnsibleError if that is not allowed."""
    try:
        os.utime(path)
    except (FileNotFoundError, NotADirectoryError):
        return
    except OSError as error:
        raise AnsibleError(f"Cannot touch {path}: {error.strerror}") from error


class PlaceLostError(AnsibleConnectionFailure):
    """The connection to another place than the task's own failed; ``place`` is its name in the inventory."""

    def __init__(self, place: str, reason: str) -> None:
        super().__init__(reason)
        self.place = place


class Place:
    """One inventory host, reached by its own connection plugin."""

    def __init__(self, host: str, task_vars: Dict[str, Any], play_context: Any) -> None:
        hostvars = task_vars["hostvars"]
        if host not in hostvars:
            raise AnsibleError(f"Place {host!r} is not in the inventory; a job can only use hubs and nodes of its inventory.")
        variables = hostvars[host]
        name = variables.get("ansible_connection") or "ansible.builtin.ssh"
        context = play_context.copy()
        context.remote_addr = variables.get("ansible_host", host)
        self.host = host
        self._connection = connection_loader.get(name, context)
        if self._connection is None:
            raise AnsibleError(f"Place {host!r}: there is no connection plugin {name!r}.")
        # Only what this connection asks for: other variables of the host may be templates that mean nothing here.
        wanted = constants.config.get_plugin_vars("connection", self._connection._load_name)
        self._connection.set_options(var_options={name: variables[name] for name in wanted if name in variables})

    def run(self, argv: List[str]) -> str:
        """Run one command and return its output; AnsibleError if it fails, PlaceLostError if the place cannot be reached."""
        with self._named():
            code, out, err = self._connection.exec_command(shlex.join(argv), in_data=None, sudoable=False)
        if code != 0:
            reason = err.decode(errors="replace").strip()
            raise AnsibleError(f"Command {argv[0]} failed at place {self.host} with exit code {code}: {reason}")
        return out.decode(errors="replace")

    def touch(self, path: str) -> None:
        """Set the time of a file, if it exists, to now; AnsibleError if the place cannot be reached."""
        if self._connection.transport == "local":
            touch_here(path)
        else:
            self.run(["touch", "-c", path])

    def succeeds(self, argv: List[str]) -> bool:
        """Whether a command ends with exit code 0; False also for a place that cannot be reached."""
        try:
            self.run(argv)
        except AnsibleError:
            return False
        return True

    def fetch(self, remote: str, local: str) -> None:
        """Copy a file of that place to the controller; PlaceLostError if the place cannot be reached."""
        with self._named():
            self._connection.fetch_file(remote, local)

    @contextmanager
    def _named(self) -> Iterator[None]:
        """Whose connection failed."""
        try:
            yield
        except AnsibleConnectionFailure as error:
            raise PlaceLostError(self.host, str(error)) from error

    def close(self) -> None:
        """End the connection."""
        self._connection.close()


class Hearts:
    """Beats the heartbeat files of a job at other places; a place that cannot be reached is reported, not fatal.

    Its keeper gives the job up by itself after 30 s without a beat, which is the right end for a place that is cut off.
    """

    def __init__(self, heartbeats: List[Dict[str, str]], task_vars: Dict[str, Any], play_context: Any) -> None:
        self._files = [(Place(beat["host"], task_vars, play_context), beat["path"]) for beat in heartbeats]

    def beat(self) -> None:
        """Touch every file that still exists."""
        for place, path in self._files:
            try:
                place.touch(path)
            except AnsibleError as error:
                display.warning(f"No heartbeat for the job at {place.host}: {error}")

    def close(self) -> None:
        """End all connections."""
        for place, _path in self._files:
            place.close()


class Beating:
    """Beats hearts from a thread while the caller waits for one module: its place may need longer than a keeper's patience.

    It ends with the block, or when ansible-playbook is gone: a worker that outlives it must not keep jobs alive.
    """

    def __init__(self, hearts: Hearts, pause_s: float) -> None:
        self._hearts = hearts
        self._pause_s = pause_s
        self._parent = os.getppid()
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._beat, daemon=True)

    def __enter__(self) -> "Beating":
        self._thread.start()
        return self

    def __exit__(self, *exc: object) -> None:
        self._ended.set()
        self._thread.join()
        self._hearts.close()

    def _beat(self) -> None:
        while os.getppid() == self._parent:
            self._hearts.beat()
            if self._ended.wait(self._pause_s):
                return


def cancelled_elsewhere(heartbeats: Any, task_vars: Dict[str, Any], play_context: Any) -> Optional[JobCancelledError]:
    """The cancel of a job at one of the places whose hearts it beats; None also if they cannot be asked."""
    for beat in heartbeats if isinstance(heartbeats, list) else []:
        try:
            place, path = Place(str(beat["host"]), task_vars, play_context), os.path.dirname(str(beat["path"]))
        except (AnsibleError, KeyError, TypeError):
            continue
        try:
            if place.succeeds(cancelled_test(path)):
                return cancelled_error(path)
        finally:
            place.close()
    return None


def relay_file(source: Place, remote: str, put: Any, destination: str) -> None:
    """Bring one file from ``source`` to where ``put(local, destination)`` puts it, through a private temporary file."""
    handle, local = tempfile.mkstemp(prefix="sendense-relay-")
    os.close(handle)
    try:
        source.fetch(remote, local)
        put(local, destination)
    finally:
        os.unlink(local)
