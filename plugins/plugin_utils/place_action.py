# Copyright: (c) 2026, Sendense contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What the action plugins of this collection share: the agent at the place, following long work, the one error shape."""

from __future__ import annotations

import json
import os
import shlex
import tempfile
import time
from typing import Any, Callable, ClassVar, Dict, Optional

from ansible.errors import AnsibleConnectionFailure, AnsibleError
from ansible.plugins.action import ActionBase
from ansible.utils.display import Display
from ansible.vars.clean import remove_internal_keys

from ansible_collections.sendense.platform.plugins.module_utils.agent.build import build_agent
from ansible_collections.sendense.platform.plugins.module_utils.errors import (
    CopyStalledError,
    JobAbandonedError,
    JobCancelledError,
    PlaceUnreachableError,
    SendenseError,
)
from ansible_collections.sendense.platform.plugins.module_utils.hubstate.cancelling import cancelled_error, cancelled_test
from ansible_collections.sendense.platform.plugins.module_utils.hubstate.controller import identify
from ansible_collections.sendense.platform.plugins.module_utils.hubstate.jobs import ROLES
from ansible_collections.sendense.platform.plugins.module_utils.hubstate.statedir import DEFAULT_STATE_DIR
from ansible_collections.sendense.platform.plugins.plugin_utils import in_process
from ansible_collections.sendense.platform.plugins.plugin_utils.orphans import end_with_parent
from ansible_collections.sendense.platform.plugins.plugin_utils.places import (
    Beating,
    Hearts,
    PlaceLostError,
    cancelled_elsewhere,
    touch_here,
)

PROGRESS_PREFIX = "SENDENSE-PROGRESS "
#: Seconds between two looks at a status file, and so between two lines of progress.
POLL_SECONDS = 1.0
#: Seconds between two heartbeats at the other places of the job.
BEAT_SECONDS = 5.0
#: Seconds without any change of the status file after which the child itself is given up; it writes once a second.
SILENCE_SECONDS = 60.0

display = Display()


class PlaceAction(ActionBase):
    """Runs the module of the same name at the place of the task, with the agent stored there beforehand."""

    _supports_check_mode = True
    needs_agent = True
    #: The module's own ``main``, for places where it can run in a fork of this process; imported once, before workers are forked.
    module_main: ClassVar[Any] = None

    def run(self, tmp: Optional[str] = None, task_vars: Optional[Dict[str, Any]] = None) -> Dict[str, Any]:
        """Run the task; a typed error becomes the result of a failed task."""
        super().run(tmp, task_vars)
        del tmp
        try:
            return self._run(dict(self._task.args), task_vars or {})
        finally:
            end_with_parent()

    def _run(self, arguments: Dict[str, Any], variables: Dict[str, Any]) -> Dict[str, Any]:
        try:
            if self.needs_agent and not self._task.check_mode:
                arguments["agent_path"] = self.store_agent(arguments.get("state_dir") or DEFAULT_STATE_DIR)
                # This is a worker; what a job ends with is ansible-playbook itself.
                arguments["controller"] = identify(os.getppid())
            result = self.perform(arguments, variables)
        except SendenseError as error:
            result = dict(error.as_result(), failed=True)
        except AnsibleError as error:
            # Files of a cancelled job are gone: that is no defect of connections.
            reason: Optional[SendenseError] = self._cancellation(arguments, variables)
            if reason is None and isinstance(error, AnsibleConnectionFailure):
                # A failure and not Ansible's "unreachable": the machine of the play is not what is gone, and a rescue has to run.
                reason = self._unreachable(error)
            if reason is None:
                raise
            return dict(reason.as_result(), failed=True)
        if result.get("failed") and result.get("error_code") != JobCancelledError.error_code and not self._task.check_mode:
            cancelled = self._cancellation(arguments, variables)
            result.update({} if cancelled is None else cancelled.as_result())
        return result

    def _unreachable(self, error: AnsibleError) -> PlaceUnreachableError:
        where = error.place if isinstance(error, PlaceLostError) else str(self._task.delegate_to or self._play_context.remote_addr or "")
        return PlaceUnreachableError(
            f"The connection to {where} failed: {str(error).strip().rstrip('.')}. What the job has begun there ends by itself once no "
            f"sign of life comes any more. Check that machine and the way to it, then run the job again.",
            details={"place": where},
        )

    def _cancellation(self, arguments: Dict[str, Any], task_vars: Dict[str, Any]) -> Optional[JobCancelledError]:
        """Why a task of this job had to fail, if the job was cancelled here or at one of the places whose hearts it beats."""
        job = arguments.get("job")
        job_id = str(arguments.get("job_id") or (job.get("id") if isinstance(job, dict) else ""))
        folder = os.path.join(arguments.get("state_dir") or DEFAULT_STATE_DIR, "jobs")
        for path in [os.path.join(folder, f"{job_id}-{role}") for role in ROLES] if job_id.isalnum() else []:
            try:
                if self._low_level_execute_command(shlex.join(cancelled_test(path)), sudoable=False)["rc"] == 0:
                    return cancelled_error(path)
            except AnsibleConnectionFailure:
                break
        return cancelled_elsewhere(arguments.get("heartbeats"), task_vars, self._play_context)

    def perform(self, arguments: Dict[str, Any], task_vars: Dict[str, Any]) -> Dict[str, Any]:
        """The work of one action; the default is to run the module."""
        return self.module(arguments, task_vars)

    def module(self, arguments: Dict[str, Any], task_vars: Dict[str, Any]) -> Dict[str, Any]:
        """Run the module of this action's name at the task's place; meanwhile the job stays alive at its other places."""
        forked = self.module_main is not None and in_process.is_possible(self, task_vars)
        if not arguments.get("heartbeats") or self._task.check_mode:
            return self._forked_module(arguments, task_vars, _nothing) if forked else self._started_module(arguments, task_vars)
        hearts = Hearts(arguments["heartbeats"], task_vars, self._play_context)
        if not forked:
            with Beating(hearts, BEAT_SECONDS):
                return self._started_module(arguments, task_vars)
        parent = os.getppid()
        try:
            # No thread beats here: a process with threads is not to be forked.
            return self._forked_module(arguments, task_vars, lambda: hearts.beat() if os.getppid() == parent else None)
        finally:
            hearts.close()

    def _started_module(self, arguments: Dict[str, Any], task_vars: Dict[str, Any]) -> Dict[str, Any]:
        return self._execute_module(module_name=self._task.action, module_args=arguments, task_vars=task_vars)

    def _forked_module(self, arguments: Dict[str, Any], task_vars: Dict[str, Any], meanwhile: Callable[[], None]) -> Dict[str, Any]:
        given = dict(arguments)
        self._update_module_args(self._task.action, given, task_vars)
        answer = in_process.run(self.module_main, given, meanwhile, BEAT_SECONDS)
        if answer["rc"] < 0:
            raise SendenseError(
                f"The process of {self._task.action} was killed by signal {-answer['rc']}. The job is undone; run it again, and if "
                "nobody killed it, look for an out-of-memory kill in the kernel's log.",
                details={"rc": answer["rc"], "stderr": answer["stderr"]},
            )
        result = self._parse_returned_data(answer, in_process.PROFILE)
        remove_internal_keys(result)
        return dict(result)

    def run_followed(self, arguments: Dict[str, Any], task_vars: Dict[str, Any]) -> Dict[str, Any]:
        """Run a module whose work may take hours: start it, follow its status file, collect the result."""
        if self._task.check_mode:
            return self.module(arguments, task_vars)
        result = self.module(dict(arguments, phase="start"), task_vars)
        hearts: Optional[Hearts] = None
        try:
            while not result.get("failed") and result.get("following"):
                if hearts is None:
                    hearts = Hearts(arguments.get("heartbeats") or [], task_vars, self._play_context)
                self._follow(result["following"], hearts, task_vars)
                result = self.module(dict(arguments, phase="collect"), task_vars)
        finally:
            if hearts is not None:
                hearts.close()
        return result

    def _follow(self, following: Dict[str, str], hearts: Hearts, task_vars: Dict[str, Any]) -> None:
        """Echo progress and beat the hearts until the child says that it has ended."""
        end_with_parent()
        beaten, changed, seen, parent = 0.0, time.monotonic(), "", os.getppid()
        while True:
            now = time.monotonic()
            if os.getppid() != parent:
                # A worker outlives an ansible-playbook that was killed; it must not keep a job alive that nobody awaits.
                raise JobAbandonedError("ansible-playbook was killed while it followed this job. Run the playbook again.")
            if now - beaten >= BEAT_SECONDS:
                hearts.beat()
                beaten = now
            text = self._beat_and_read(following["heartbeat_path"], following["status_path"])
            if text is None:
                return  # cancelled or given up: the module knows
            if text != seen:
                seen, changed = text, now
                status = _decoded(text)
                if status.get("state") in ("done", "failed", "cancelled"):
                    return
                self._echo(following["name"], status, task_vars)
            elif now - changed > SILENCE_SECONDS:
                raise CopyStalledError(
                    f"The {following['name']} of this job has reported nothing for {SILENCE_SECONDS:.0f} s. It or its storage "
                    "hangs; the job is undone. Check the machine that it runs on, then run the job again.",
                    details={"status_path": following["status_path"]},
                )
            time.sleep(POLL_SECONDS)

    def _beat_and_read(self, heartbeat_path: str, status_path: str) -> Optional[str]:
        """Beat the heart at the task's own place and read a status file there; empty if there is none yet, None without a job."""
        if not self._is_here():
            heart = shlex.quote(heartbeat_path)
            answer = self._low_level_execute_command(f"touch -c {heart}; cat {shlex.quote(status_path)}; test -e {heart}", sudoable=False)
            # 1 is what test answers; a connection that failed has other codes and proves nothing.
            return None if answer.get("rc") == 1 else str(answer.get("stdout", ""))
        touch_here(heartbeat_path)
        if not os.path.exists(heartbeat_path):
            return None
        try:
            with open(status_path, encoding="utf-8") as stream:
                return stream.read()
        except FileNotFoundError:
            return ""

    def _is_here(self) -> bool:
        """Whether the task's place is this machine and user, so that its files need no command to be seen."""
        return self._connection.transport == "local" and self._connection.become is None and not self._play_context.become

    def _echo(self, name: str, status: Dict[str, Any], task_vars: Dict[str, Any]) -> None:
        if not status:
            return
        done, total, rate = (int(status.get(field) or 0) for field in ("bytes_done", "bytes_total", "rate"))
        percent = 100.0 * done / total if total else 100.0
        cap = status.get("cap") or {}
        capped = f", capped at {cap['bytes_per_second'] / 2**20:.3g} MiB/s ({cap['by']})" if cap.get("binds") else ""
        line = {
            "machine": str(task_vars.get("inventory_hostname", "")),
            "step": name,
            "bytes_done": done,
            "bytes_total": total,
            "rate": rate,
            "eta_s": status.get("eta_s"),
            "text": f"{percent:.0f} % of {total / 2**20:.0f} MiB, {rate / 2**20:.0f} MiB/s{capped}",
            "cap": cap or None,
            "disks": {key: disk.get("bytes_read", 0) for key, disk in status.get("disks", {}).items()},
        }
        display.display(PROGRESS_PREFIX + json.dumps(line, sort_keys=True))

    def store_agent(self, state_dir: str) -> str:
        """Store the agent's zipapp by its digest at the task's place, if it is not there; returns its path."""
        content, digest = build_agent()
        folder = os.path.join(state_dir, "agent")
        path = os.path.join(folder, f"{digest}.pyz")
        if self._is_stored(path):
            return path
        handle, local = tempfile.mkstemp(prefix="sendense-agent-")
        try:
            with os.fdopen(handle, "wb") as stream:
                stream.write(content)
            partial = f"{path}.{os.getpid()}.tmp"
            quoted = {"folder": shlex.quote(folder), "state": shlex.quote(state_dir)}
            self._command("umask 077 && mkdir -p {state} {folder}".format(**quoted))
            self._connection.put_file(local, partial)
            self._command(f"sync {shlex.quote(partial)} && mv -f {shlex.quote(partial)} {shlex.quote(path)}")
        finally:
            os.unlink(local)
        return path

    def _is_stored(self, path: str) -> bool:
        if self._is_here():
            return os.path.isfile(path) and os.path.getsize(path) > 0
        return bool(self._low_level_execute_command(f"test -s {shlex.quote(path)}", sudoable=False)["rc"] == 0)

    def _command(self, command: str) -> None:
        answer = self._low_level_execute_command(command, sudoable=False)
        if answer["rc"] != 0:
            raise SendenseError(
                f"Cannot prepare the state directory at this place: {answer.get('stderr', '').strip()}. "
                "Check that the connection's user may write there.",
                details={"rc": answer["rc"]},
            )


def _nothing() -> None:
    """What there is to do meanwhile, where no other place waits for a sign of life."""


def _decoded(text: str) -> Dict[str, Any]:
    """A status file's content; an unreadable one (not yet written) is no status."""
    try:
        status = json.loads(text)
    except ValueError:
        return {}
    return status if isinstance(status, dict) else {}
