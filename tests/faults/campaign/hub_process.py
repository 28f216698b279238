# Copyright: (c) 2026, Sendense contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A job of the hub in processes of its own, as a playbook runs it: a controller, and a fork of it for each call of the module.

``python -m tests.faults.campaign.hub_process JOB PARAMS`` prints what the job came to as JSON. It hands over to the controller at
each child at once, so that every call but the first takes up a job that is at work.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Callable, Dict, List, Optional

from ansible_collections.sendense.platform.plugins.module_utils.errors import JobNotFoundError
from ansible_collections.sendense.platform.plugins.module_utils.hubstate.controller import identify
from ansible_collections.sendense.platform.plugins.module_utils.hubstate.jobs import list_jobs
from ansible_collections.sendense.platform.plugins.module_utils.hubstate.processes import is_alive
from ansible_collections.sendense.platform.plugins.module_utils.hubstate.statedir import StateDir
from ansible_collections.sendense.platform.plugins.module_utils.jobs import expiry, following, prune, verify
from ansible_collections.sendense.platform.plugins.module_utils.module import failure
from tests.faults.kills import process_state, resume, send
from tests.lab.paths import ROOT

JOBS: Dict[str, Callable[[Dict[str, Any], bool], Dict[str, Any]]] = {"prune": prune.prune_points, "verify": verify.verify_points}
#: Seconds that a job on a few MiB may take on a busy machine.
PATIENCE_SECONDS = 90.0
#: Seconds after which the module is asked for a child that says nothing.
SILENCE_SECONDS = 3.0


@dataclass
class HubProcess:
    """One running job. ``hook`` is the file of its steps; it stops itself at those that :meth:`start` was told."""

    process: "subprocess.Popen[str]"
    hook: Path
    job_id: str
    state: StateDir

    @classmethod
    def start(cls, job: str, params: Dict[str, Any], folder: Path, stop: str = "", kill: str = "") -> "HubProcess":
        """Start it; ``folder`` gets its files. ``stop`` and ``kill`` are steps at which the process that reached them does so to itself."""
        hook = folder / f"steps-{params['job_id']}"
        hook.write_text("")
        Path(f"{hook}.stop").write_text(f"{stop}\n")
        Path(f"{hook}.kill").write_text(f"{kill}\n")
        plan = folder / f"params-{params['job_id']}.json"
        plan.write_text(json.dumps(params))
        path = os.pathsep.join([str(ROOT / "collections"), str(ROOT)])
        argv = [sys.executable, "-m", __name__, job, str(plan)]
        environ = dict(os.environ, PYTHONPATH=path, SENDENSE_STEP_HOOK=str(hook))
        process = subprocess.Popen(argv, env=environ, cwd=ROOT, stdout=subprocess.PIPE, text=True)
        return cls(process, hook, params["job_id"], StateDir(params["state_dir"]))

    def steps(self) -> List[str]:
        """The steps that were reached, in order."""
        return [line.split(" ")[0] for line in self.hook.read_text().splitlines()]

    def stopped_at(self, step: str) -> Optional[int]:
        """Wait until a process has stopped itself at this step: its id; None if the job ended without."""
        deadline = time.monotonic() + PATIENCE_SECONDS
        while time.monotonic() < deadline:
            for line in self.hook.read_text().splitlines():
                name, _subject, pid = line.split(" ")
                if name == step and process_state(int(pid)) == "T":
                    return int(pid)
            if self.process.poll() is not None:
                return None
            time.sleep(0.01)
        raise AssertionError(f"the job did not come to {step} within {PATIENCE_SECONDS:.0f} s: {self.steps()}")

    def go_on(self, pid: int) -> None:
        """Let a stopped process continue, and stop nowhere else."""
        Path(f"{self.hook}.stop").write_text("")
        resume(pid)

    def victim(self, name: str) -> Optional[int]:
        """The process id of "keeper", "controller" or a child of the keeper whose name begins so; None if it does not live."""
        if name == "controller":
            return self.process.pid
        for job in list_jobs(self.state):
            try:
                if job.job_id != self.job_id or not job.alive():
                    continue
                if name == "keeper":
                    return int(job.meta()["pid"] or 0) or None
                children = [
                    int(one["pid"]) for one in job.children() if one["name"].startswith(name) and is_alive(one["pid"], one["starttime"])
                ]
                return children[0] if children else None
            except JobNotFoundError:
                continue
        return None

    def outcome(self) -> Dict[str, Any]:
        """Its end: ``result``, or ``error`` in the one shape; an error code of "KILLED" if a process of it was."""
        try:
            text, _nothing = self.process.communicate(timeout=PATIENCE_SECONDS)
        except subprocess.TimeoutExpired:
            send(self.process.pid)
            self.process.wait()
            raise AssertionError(f"the job did not end within {PATIENCE_SECONDS:.0f} s: {self.steps()}") from None
        return dict(json.loads(text)) if text else {"error": {"error_code": "KILLED", "msg": "the controller was killed"}}


def main(argv: List[str]) -> int:
    """The controller."""
    job, plan = argv
    params = json.loads(Path(plan).read_text())
    params["controller"] = identify(os.getpid())
    following.GRACE_SECONDS = 0.0
    if params.get("now"):
        expiry.time.time = lambda: float(params["now"])  # type: ignore[assignment]
    answer = _module(job, dict(params, phase="start"))
    while "following" in answer.get("result", {}):
        _await(answer["result"]["following"])
        answer = _module(job, dict(params, phase="collect"))
    print(json.dumps(answer))
    return 0


def _await(child: Dict[str, str]) -> None:
    """Beat the heart until the child's status says that it has ended or says nothing any more, or the job has gone.

    The action plugin gives a silent child 75 s; here the module is asked sooner, which sees whether the child lives.
    """
    seen, since = "", time.monotonic()
    while time.monotonic() - since < SILENCE_SECONDS and os.path.exists(child["heartbeat_path"]):
        try:
            os.utime(child["heartbeat_path"])
            text = Path(child["status_path"]).read_text()
            if text != seen:
                seen, since = text, time.monotonic()
            if json.loads(text)["state"] in ("done", "failed", "cancelled"):
                return
        except (FileNotFoundError, ValueError):
            pass
        time.sleep(0.02)


def _module(job: str, params: Dict[str, Any]) -> Dict[str, Any]:
    """One call of the module, in a fork; what it says."""
    reading, writing = os.pipe()
    pid = os.fork()
    if pid == 0:
        code = 1
        try:
            signal.signal(signal.SIGTERM, signal.SIG_DFL)
            os.close(reading)
            os.write(writing, json.dumps(_call(job, params)).encode())
            code = 0
        finally:
            os._exit(code)
    os.close(writing)
    with os.fdopen(reading, "rb") as stream:
        text = stream.read()
    status = os.waitpid(pid, 0)[1]
    if text and status == 0:
        return dict(json.loads(text))
    return {"error": {"error_code": "KILLED", "msg": f"the module ended with {os.waitstatus_to_exitcode(status)}"}}


def _call(job: str, params: Dict[str, Any]) -> Dict[str, Any]:
    try:
        return {"result": JOBS[job](params, False)}
    except Exception as error:  # noqa: BLE001 - main: as the product's own main, so that a defect is not taken for a kill
        return {"error": failure(error)}


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
