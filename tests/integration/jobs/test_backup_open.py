# Copyright: (c) 2026, Sendense contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""How a backup begins at the hub: what it stands on while another run ends, and what its partial point says of it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from ansible_collections.sendense.platform.plugins.module_utils.jobs import backup, cleanup, exports
from ansible_collections.sendense.platform.plugins.module_utils.jobs.place import HUB, JobPlace, attach
from tests.integration.prune.conftest import Hub, hub

__all__ = ["hub"]


def test_nothing_is_built_on_what_a_run_has_distrusted_that_was_just_ending(hub: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    newest = hub.backups(2)[-1]
    hold = JobPlace.hold

    def held(place: JobPlace, *what: Any) -> None:
        hub.repository.distrust(hub.guest.key, newest, "an audit found a lie")
        hold(place, *what)

    monkeypatch.setattr(JobPlace, "hold", held)
    machine = {"platform": hub.guest.machine.platform, "machine_id": hub.guest.machine.id}
    params = hub.params(full=False, max_chain_depth=30) | machine
    opened = backup.open_backup(params, False)
    attach(params, HUB, opened["job"]["id"]).finish()
    assert opened["machine_key"] == hub.guest.key
    assert (opened["parent_id"], opened["previous"], opened["full_reason"]) == ("", [], "tracking_lied")


def test_a_point_being_written_says_which_hub_writes_it_and_no_other_hub_cleans_it_away(hub: Hub, tmp_path: Path) -> None:
    machine = {"platform": hub.guest.machine.platform, "machine_id": hub.guest.machine.id}
    params = hub.params(full=True, max_chain_depth=30) | machine
    job = backup.open_backup(params, False)["job"]["id"]
    disk = {"key": "disk0", "id": "serial-a", "size_bytes": 1 << 20, "level": "full", "reason": "requested", "expected_bytes": 0}
    order = {"disks": [disk], "created_at": "2026-11-20T12:00:00Z", "parent_id": "", "node": "here", "port_wait": 5}
    exports.start_for_backup(params | order | {"job_id": job})
    [partial] = hub.repository.partials(hub.guest.key)
    other = {"state_dir": str(tmp_path / "other"), "repository": hub.options, "machines": [dict(machine, connection={})]}
    assert cleanup.clean_hub(other, False)["removed"] == []
    assert len(hub.repository.partials(hub.guest.key)) == 1
    backup.abort_backup(params | {"job": {"id": job}}, False)
    assert partial.hub_id == hub.state.hub_id()
