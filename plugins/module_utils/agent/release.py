# Copyright: (c) 2026, Sendense contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Undo commands of a job: what a keeper runs when it gives the job up, and ``cleanup`` when the keeper died too.

``agent release --file F`` reads what to undo from a private file of the job directory, so that no credential and no
machine name is ever on a command line. Every kind is safe to repeat.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
from typing import Any, Callable, Dict, List, Optional, Tuple

from ..catalog.decision import known_change_ids
from ..errors import InvalidInputError, PlatformUnreachableError, SendenseError
from ..hubstate.undo import UNREACHABLE
from ..model import machine_key
from ..platforms._base import PreparedMachine
from ..platforms.registry import source as open_source
from ..platforms.registry import target as open_target
from ..repositories._base import PointFilter
from ..repositories.registry import open_repository

#: Seconds that the undo of a snapshot waits for the hub's half of its job to be undone.
FATE_SECONDS = 6.0


def release_snapshot(order: Dict[str, Any]) -> List[str]:
    """End the job at the source, thaw the guest, and tidy the change tracking if the repository can be asked from here.

    Only the repository knows whether the backup was committed. Where it is out of reach, the next run or ``cleanup`` tidies.
    """
    with open_source(order["platform"], order["connection"]) as source:
        removed = source.close_snapshot(order["machine_id"], order["job_id"], "", False, [])
        fate = backup_fate(order)
        if fate is not None:
            removed += source.close_snapshot(order["machine_id"], order["job_id"], order["owner"], *fate)
    return removed


def backup_fate(order: Dict[str, Any]) -> Optional[Tuple[bool, List[str]]]:
    """Whether the job's backup was committed, and the change ids still needed; None if that cannot be told for good.

    It can be told once no partial point of the job is left, which its hub removes at the same time as this undo runs.
    """
    key = machine_key(order["platform"], order["machine_id"])
    deadline = time.monotonic() + FATE_SECONDS
    try:
        repository = open_repository(order["repository"]) if order.get("repository") else None
        if repository is None or repository.identity()["owner"] != order["owner"]:
            return None
        while any(partial.job_id == order["job_id"] for partial in repository.partials(key)):
            if time.monotonic() > deadline:
                return None
            time.sleep(0.1)
        points = repository.list(PointFilter(machine_key=key))
    except SendenseError:
        return None
    return any(point.manifest.job_id == order["job_id"] for point in points), known_change_ids(points)


def release_point(order: Dict[str, Any]) -> List[str]:
    """Remove the partial point of the job; a committed one is not touched."""
    repository = open_repository(order["repository"])
    return ["partial point"] if repository.abort(order["machine_key"], order["job_id"]) else []


def release_machine(order: Dict[str, Any]) -> List[str]:
    """Remove the disks and the definition of a machine whose restore did not end."""
    with open_target(order["platform"], order["connection"]) as target:
        return target.destroy(PreparedMachine.from_dict(order["prepared"]))


def release_files(order: Dict[str, Any]) -> List[str]:
    """Remove the files that a restore to files had begun."""
    removed = []
    for path in order["paths"]:
        if os.path.lexists(path):
            os.unlink(path)
            removed.append(path)
    return removed


KINDS: Dict[str, Callable[[Dict[str, Any]], List[str]]] = {
    "snapshot": release_snapshot,
    "point": release_point,
    "machine": release_machine,
    "files": release_files,
}


def main(argv: List[str]) -> int:
    """Run one undo command. Exit code 0: undone; 1: failed, may be repeated; 2: bad input; 3: what it undoes is out of reach now."""
    parser = argparse.ArgumentParser(prog="agent release")
    parser.add_argument("--file", required=True, help="JSON file that says what to undo")
    options = parser.parse_args(argv)
    try:
        with open(options.file, encoding="utf-8") as stream:
            order = json.load(stream)
        if order.get("kind") not in KINDS:
            raise InvalidInputError(f"Cannot undo {order.get('kind')!r}: known kinds are {', '.join(sorted(KINDS))}.")
        removed = KINDS[order["kind"]](order)
    except SendenseError as error:
        json.dump(error.as_result(), sys.stderr)
        return UNREACHABLE if isinstance(error, PlatformUnreachableError) else 1
    except (OSError, ValueError, KeyError) as error:
        sys.stderr.write(f"Cannot read what to undo from {options.file}: {error!r}\n")
        return 2
    json.dump({"removed": removed}, sys.stdout)
    return 0
