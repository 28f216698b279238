# Copyright: (c) 2026, Sendense contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A hub with a real repository, keepers and children, and a machine whose backups the tests know byte for byte."""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
import time
import uuid
from pathlib import Path
from typing import Any, Dict, Iterator, List

import pytest

from ansible_collections.sendense.platform.plugins.module_utils.agent.build import build_agent
from ansible_collections.sendense.platform.plugins.module_utils.agent.store import store_agent
from ansible_collections.sendense.platform.plugins.module_utils.hubstate.jobs import list_jobs
from ansible_collections.sendense.platform.plugins.module_utils.hubstate.statedir import StateDir
from ansible_collections.sendense.platform.plugins.module_utils.jobs import prune, verify
from ansible_collections.sendense.platform.plugins.module_utils.repositories.registry import open_repository
from tests.contract.point_writer import Guest, read_disks


class Hub:
    """One hub; ``guest`` knows what each point must hold."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.state = StateDir(str(directory / "s")).create()
        content, digest = build_agent()
        self.agent = store_agent(self.state, content, digest)
        self.options = {"type": "local", "path": str(directory / "r"), "id": "", "reserve_bytes": 1 << 20}
        self.repository = open_repository(self.options)
        self.repository.initialise()
        self.guest = Guest()
        self.parent = ""

    def backups(self, count: int, full: bool = False) -> List[str]:
        """So many backups on top of the newest; ids."""
        if full:
            self.parent = ""
        made = []
        for number in range(count):
            self.guest.scribble(self.guest.jobs * 5 + number)
            made += self.backups_as_is(1)
        return made

    def backups_as_is(self, count: int) -> List[str]:
        """The same, of what the guest has written itself."""
        made = []
        for _number in range(count):
            self.parent = self.guest.backup(self.repository, self.parent).manifest.point_id
            made.append(self.parent)
        return made

    def params(self, **given: Any) -> Dict[str, Any]:
        """The arguments of a module that works at the hub."""
        place = {"state_dir": self.state.path, "agent_path": self.agent, "heartbeat_timeout": 30, "controller": {}}
        machine = {"machine_key": self.guest.key, "machine_id": "", "platform": "memory"}
        return dict(place, **machine, repository=self.options, phase="run", job_id=uuid.uuid4().hex, **given)

    def prune(self, check_mode: bool = False, confirm_expiry: bool = True, synthetic_full: bool = False, **policy: Any) -> Dict[str, Any]:
        """Run the job to its end."""
        params = self.params(policy=policy, point_ids=[], confirm_expiry=confirm_expiry, synthetic_full=synthetic_full)
        return prune.prune_points(params, check_mode)

    def remove(self, *point_ids: str, check_mode: bool = False, confirm_expiry: bool = False) -> Dict[str, Any]:
        """The same for chosen points."""
        params = self.params(policy=None, point_ids=list(point_ids), confirm_expiry=confirm_expiry, synthetic_full=False)
        return prune.prune_points(params, check_mode)

    def verify(self) -> Dict[str, Any]:
        """Verify every point."""
        return verify.verify_points(self.params(point_ids=[], all_points=True), False)

    def there(self) -> List[str]:
        """Ids of the points in the repository, oldest first."""
        return [point.manifest.point_id for point in self.repository.list()]

    def wrong(self) -> List[str]:
        """Sound points that do not hold what the guest had."""
        sound = [point for point in self.repository.list() if point.status == "ok"]
        return [one.manifest.point_id for one in sound if read_disks(self.repository, one) != self.guest.contents[one.manifest.point_id]]

    def left_over(self) -> List[str]:
        """What a job left: at the hub, and in the machine's directory."""
        found = [job.path for job in list_jobs(self.state)] + os.listdir(self.state.leases)
        machine = self.directory / "r" / "machines" / self.guest.key
        return found + [str(path) for path in machine.glob("points/*") if "." in path.name] + [str(path) for path in machine.glob("merge*")]


@pytest.fixture
def hub() -> Iterator[Hub]:
    """A hub of which nothing is left, neither files of jobs nor processes."""
    directory = Path(tempfile.mkdtemp(prefix="sp-"))
    try:
        made = Hub(directory)
        yield made
        assert made.left_over() == []
        deadline = time.monotonic() + 10
        while processes(directory) and time.monotonic() < deadline:
            time.sleep(0.05)  # a keeper that has answered needs a moment to end
        assert processes(directory) == []
    finally:
        subprocess.run(["chattr", "-R", "-f", "-i", str(directory)], check=False)
        shutil.rmtree(directory)


def processes(directory: Path) -> List[str]:
    """Command lines of living processes that have to do with the directory."""
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            line = path.read_bytes().replace(b"\0", b" ").decode(errors="replace")
        except (FileNotFoundError, ProcessLookupError):
            continue
        if f"{directory}/" in line:
            found.append(line)
    return found
