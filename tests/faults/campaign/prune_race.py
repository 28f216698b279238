# Copyright: (c) 2026, Sendense contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A prune against an increment, a restore and a verification, in both orders, at chosen steps and at random moments.

Whoever comes second waits for another day or is right: never do both succeed on data that does not fit together.
"""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any, Callable, Dict, List

from ansible_collections.sendense.platform.plugins.module_utils.errors import SendenseError
from ansible_collections.sendense.platform.plugins.module_utils.jobs import exports, place
from tests.faults.oracle import sha256
from tests.lab.disks import run

from . import pruning
from ._base import Family, Outcome
from .hub_process import HubProcess
from .workbench import COPIED, OPENED, SERVED, Workbench

#: Steps of a prune at which the others come: none at which it holds the lock of the repository, for which everybody waits.
AT_WORK = ["prune:taken-over", "prune:planned", "prune:deleted", "prune:merge-begun", "prune:merger-started", "prune:data-moved"]
AT_WORK += ["prune:checker-started", "prune:merge-finished"]
#: With these a job may say that it cannot have its point now, or that it has expired.
REFUSALS = {"JOB_RUNNING", "POINT_IN_USE", "POINT_NOT_FOUND"}
MOMENT_SECONDS = 2.0

#: In lines of a race that did not happen, because the prune was over when the other job began.
NOT_MET = "not met"

Race = Callable[[Workbench], List[str]]


class PruneRace(Family):
    """Each hit is one meeting of a prune with another job of the same machine."""

    NAME = "prune-race"
    FULL = 32
    SHORT = 6

    def run(self, base: Path, seed: int, count: int) -> Outcome:
        outcome, bench = Outcome(), Workbench(seed).initialise()
        races = [prune_meets_backup, prune_meets_restore, prune_meets_verify, backup_meets_prune, restore_meets_prune, verify_meets_prune]
        races += [any_moment]
        try:
            bench.chain(pruning.KEEP)
            while outcome.hit < count and outcome.attempted < 2 * count and not outcome.problems:
                race = races[outcome.attempted % len(races)]
                outcome.attempted += 1
                pruning.history(bench)
                pruning.let_go(bench)
                findings = _one(bench, race)
                outcome.judge([f"{finding} [{race.__name__}]" for finding in findings if finding != NOT_MET])
                outcome.hit += NOT_MET not in findings
        finally:
            outcome.judge(bench.close())
        return outcome


def _one(bench: Workbench, race: Race) -> List[str]:
    findings = race(bench) + bench.settle(40.0) + bench.oracle.points() + bench.oracle.jobs() + bench.oracle.leaks()
    again = pruning.prune(bench)
    findings += [f"O5 the next prune: {again['error']}"] if "error" in again else []
    return findings + pruning.retention(bench) + bench.settle() + bench.oracle.points()


# --- a prune is at work, and another job comes ---------------------------------------------------------------------------


def _during_a_prune(bench: Workbench, other: Callable[[], List[str]]) -> List[str]:
    step = bench.random.choice(AT_WORK)
    running = HubProcess.start("prune", pruning.params(bench), bench.directory, stop=step)
    stopped = running.stopped_at(step)
    findings = [f"O5 the prune never came to {step}"] if stopped is None else [f"{one} (prune at {step})" for one in other()]
    if stopped is not None:
        running.go_on(stopped)
    answer = running.outcome()
    return findings + ([f"O5 the prune: {answer['error']}"] if "error" in answer else [])


def prune_meets_backup(bench: Workbench) -> List[str]:
    """A backup that begins while a prune is at work is refused, and may try again later."""
    return _during_a_prune(bench, lambda: _refused(bench))


def _refused(bench: Workbench) -> List[str]:
    attempt = bench.backup()
    return [] if attempt.code == "JOB_RUNNING" else [f"O1 a backup came to {attempt.code or 'a point'} beside a prune"]


def prune_meets_restore(bench: Workbench) -> List[str]:
    """A restore of any point is refused or right."""
    return _during_a_prune(bench, lambda: _restore_any(bench))


def prune_meets_verify(bench: Workbench) -> List[str]:
    """A verification of everything is refused or finds nothing."""
    return _during_a_prune(bench, lambda: _verify(bench))


def any_moment(bench: Workbench) -> List[str]:
    """Nobody waits for anybody."""
    running = HubProcess.start("prune", pruning.params(bench), bench.directory)
    time.sleep(bench.random.uniform(0, MOMENT_SECONDS))
    findings = [] if running.process.poll() is None else [NOT_MET]
    findings += bench.random.choice([_verify, _restore_any, _maybe_backup])(bench)
    answer = running.outcome()
    return findings + ([f"O5 the prune: {answer['error']}"] if "error" in answer else [])


def _maybe_backup(bench: Workbench) -> List[str]:
    attempt = bench.backup()
    return [] if attempt.ok or attempt.code == "JOB_RUNNING" else [f"O5 a backup beside a prune: {attempt.error or attempt.untyped}"]


# --- another job is at work, and a prune comes ------------------------------------------------------------------------------


def backup_meets_prune(bench: Workbench) -> List[str]:
    """Between its plan and its commit the increment's parent stays what it is."""
    answers: List[Dict[str, Any]] = []
    moment = bench.random.choice([OPENED, SERVED, COPIED])
    attempt = bench.backup({moment: lambda: answers.append(pruning.prune(bench))})
    bench.scribble()
    findings = [] if attempt.ok and set(attempt.levels) == {"incremental"} else [f"O5 the backup: {attempt}"]
    return findings + _nothing_went(answers[0])


def restore_meets_prune(bench: Workbench) -> List[str]:
    """What is served goes on to be what was backed up, while all that may go around it goes."""
    point_id = bench.random.choice(bench.point_ids("ok"))
    served, job_id = _serve(bench, point_id)
    try:
        answer = pruning.prune(bench)
        findings = _compare(bench, point_id, served)
    finally:
        exports.stop(dict(bench.common(), job_id=job_id, port=None, state="stopped"))
    return findings + ([f"O5 the prune: {answer['error']}"] if "error" in answer else [])


def verify_meets_prune(bench: Workbench) -> List[str]:
    """A verification that holds its points finds all of them as they were."""
    params = dict(bench.common(), point_ids=[], all_points=True, job_id=place.new_job_id())
    step = bench.random.choice(["verify:points-held", "keeper:verifier-started"])
    running = HubProcess.start("verify", params, bench.directory, stop=step)
    stopped = running.stopped_at(step)
    findings = [f"O5 the verification never came to {step}"] if stopped is None else _nothing_went(pruning.prune(bench))
    if stopped is not None:
        running.go_on(stopped)
    answer = running.outcome()
    return findings + ([] if answer.get("result", {}).get("ok") is True else [f"O1 the verification said {answer}"])


def _nothing_went(answer: Dict[str, Any]) -> List[str]:
    """The prune succeeded, but let nothing go, and said why of each."""
    result = answer.get("result", {})
    if "error" in answer or result["changed"] or not result["left"] or any(len(row["reasons"]) < 2 for row in result["left"]):
        return [f"O1 the prune beside another job: {answer}"]
    return []


# --- what the others do ------------------------------------------------------------------------------------------------------


def _verify(bench: Workbench) -> List[str]:
    try:
        result = bench.verify()
    except SendenseError as error:
        return [] if error.error_code in REFUSALS else [f"O5 a verification beside a prune: {error.error_code} {error}"]
    return [] if result["ok"] else [f"O1 a verification beside a prune found {result['points']}"]


def _restore_any(bench: Workbench) -> List[str]:
    point_id = bench.random.choice(bench.point_ids("ok"))
    try:
        served, job_id = _serve(bench, point_id)
    except SendenseError as error:
        return [] if error.error_code in REFUSALS else [f"O5 a restore beside a prune: {error.error_code} {error}"]
    try:
        return _compare(bench, point_id, served)
    finally:
        exports.stop(dict(bench.common(), job_id=job_id, port=None, state="stopped"))


def _serve(bench: Workbench, point_id: str) -> Any:
    opened = exports.start_for_restore(dict(bench.common(), point_id=point_id, only=[]), check_mode=False)
    return {export["key"]: export["uri"] for export in opened["exports"]}, opened["job"]["id"]


def _compare(bench: Workbench, point_id: str, served: Dict[str, str]) -> List[str]:
    found = []
    for key, uri in served.items():
        raw = bench.rig / f"{key}.raw"
        run(["qemu-img", "convert", "-f", "raw", "-O", "raw", uri, str(raw)])
        if sha256(raw) != bench.oracle.references[point_id][key]:
            found.append(f"O1 {point_id}: {key} was served otherwise than it was backed up")
        raw.unlink()
    return found
