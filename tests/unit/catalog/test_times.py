# Copyright: (c) 2026, Sendense contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""One spelling of a time."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ansible_collections.sendense.platform.plugins.module_utils.catalog.times import compact, is_utc_text, utc_from_seconds, utc_text
from ansible_collections.sendense.platform.plugins.module_utils.errors import InvalidInputError


@pytest.mark.parametrize("text", ["2026-11-20T11:54:00Z", "2026-11-20T11:54:00+00:00", "2026-11-20T11:54:00.123456+00:00"])
def test_utc_is_spelled_one_way(text: str) -> None:
    assert utc_text(text) == "2026-11-20T11:54:00Z"
    assert compact(text) == "20261120T115400Z"
    assert is_utc_text(text) is (text == "2026-11-20T11:54:00Z")


@pytest.mark.parametrize("text", ["", "now", "2026-11-20", "2026-11-20T11:54:00", "2026-11-20T11:54:00+01:00", "2026-02-29T00:00:00Z",
                                  "2026-11-20T24:00:00Z", "2026-11-20T11:54:00Z\n", "\u0662026-11-20T11:54:00Z"])  # fmt: skip
def test_anything_else_is_refused(text: str) -> None:
    with pytest.raises(InvalidInputError):
        utc_text(text)
    assert not is_utc_text(text)


@given(st.integers(0, 4102444800), st.integers(0, 4102444800))
def test_texts_compare_as_times_do(first: int, second: int) -> None:
    assert (utc_from_seconds(first) < utc_from_seconds(second)) == (first < second)
    assert is_utc_text(utc_from_seconds(first))
