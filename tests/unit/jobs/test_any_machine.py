# Copyright: (c) 2026, Sendense contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A module that works for one machine is told which, by its platform's id or by its key, and never takes silence for all of them."""

from __future__ import annotations

from typing import Any

import pytest

from ansible_collections.sendense.platform.plugins.module_utils.errors import InvalidInputError
from ansible_collections.sendense.platform.plugins.module_utils.jobs.any_machine import chosen_key
from ansible_collections.sendense.platform.plugins.module_utils.jobs.cancel import cancel_jobs

NOBODY: dict[str, Any] = {"platform": "libvirt", "machine_id": None, "machine_key": None}


@pytest.mark.parametrize(
    ("named", "key"),
    [
        ({"machine_id": "1"}, "libvirt-1"),
        ({"machine_key": "libvirt-2"}, "libvirt-2"),
        ({"machine_id": "1", "machine_key": "libvirt-2"}, "libvirt-2"),
    ],
)
def test_the_key_says_it_or_platform_and_id_do(named: dict[str, str], key: str) -> None:
    assert chosen_key({**NOBODY, **named}, "backup_verify") == key


@pytest.mark.parametrize("nothing", [None, ""])
def test_no_machine_is_not_all_machines(nothing: Any, tmp_path: Any) -> None:
    nobody = dict(NOBODY, machine_id=nothing, machine_key=nothing)
    with pytest.raises(InvalidInputError, match="^backup_prune needs machine_id or machine_key"):
        chosen_key(nobody, "backup_prune")
    with pytest.raises(InvalidInputError, match="^job_cancel needs"):
        cancel_jobs(dict(nobody, state_dir=str(tmp_path), job_ids=[], wait=0), check_mode=False)
