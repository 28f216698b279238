# Copyright: (c) 2026, Sendense contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a backup that opens stands on, while another run of the same machine ends."""

from __future__ import annotations

from typing import Any

import pytest

from ansible_collections.sendense.platform.plugins.module_utils.jobs import backup
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
