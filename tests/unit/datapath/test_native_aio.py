# Copyright: (c) 2026, Sendense contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

import pytest

from ansible_collections.sendense.platform.plugins.module_utils.datapath.native_aio import has_room


@pytest.mark.parametrize(
    "used, limit, expected",
    [
        ("0\n", "65536\n", True),
        ("48128\n", "65536\n", True),
        ("48129\n", "65536\n", False),
        ("65536\n", "65536\n", False),
        ("0\n", "1024\n", False),
        ("0\n", "1366\n", True),
    ],
)
def test_a_quarter_of_all_places_is_left_to_others(tmp_path, used, limit, expected):
    (tmp_path / "aio-nr").write_text(used)
    (tmp_path / "aio-max-nr").write_text(limit)
    assert has_room(str(tmp_path)) is expected


def test_a_kernel_that_does_not_tell_has_none(tmp_path):
    assert has_room(str(tmp_path)) is False
    (tmp_path / "aio-nr").write_text("0\n")
    (tmp_path / "aio-max-nr").write_text("")
    assert has_room(str(tmp_path)) is False


def test_the_machine_itself_is_asked():
    with open("/proc/sys/fs/aio-nr", encoding="ascii") as used, open("/proc/sys/fs/aio-max-nr", encoding="ascii") as limit:
        crowded = int(used.read()) > int(limit.read()) // 2
    assert has_room() or crowded
