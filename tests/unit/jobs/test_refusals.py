# Copyright: (c) 2026, Sendense contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What tasks of a job refuse before they touch anything: two disks of one name, a restore of nothing."""

from __future__ import annotations

import pytest

from ansible_collections.sendense.platform.plugins.module_utils.errors import InvalidInputError
from ansible_collections.sendense.platform.plugins.module_utils.jobs.place import unique_keys
from ansible_collections.sendense.platform.plugins.module_utils.jobs.restore import request_of


def test_two_disks_of_one_key_are_refused() -> None:
    unique_keys([{"key": "disk0"}, {"key": "disk1"}])
    with pytest.raises(InvalidInputError, match="disk0, disk1, disk0"):
        unique_keys([{"key": "disk0"}, {"key": "disk1"}, {"key": "disk0"}])


def test_a_restore_needs_the_manifest_of_its_point() -> None:
    with pytest.raises(InvalidInputError, match="manifest is empty"):
        request_of({"manifest": {}})
