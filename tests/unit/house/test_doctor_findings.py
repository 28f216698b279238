# Copyright: (c) 2026, Sendense contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Every kind of finding of the doctor has a section in its runbook that says the same, and every section is of a kind."""

from __future__ import annotations

import re
from typing import Dict

import pytest

from ansible_collections.sendense.platform.plugins.module_utils.jobs.doctor.kinds import KINDS
from tests.unit.house.rules import ROOT

PAGE = ROOT / "docs/runbooks/doctor-findings.md"


def sections() -> Dict[str, str]:
    """Text of each section by its heading, on one line."""
    parts = re.split(r"^### (\w+)$", PAGE.read_text(encoding="utf-8"), flags=re.MULTILINE)
    return {name: " ".join(text.split()) for name, text in zip(parts[1::2], parts[2::2], strict=True)}


def test_there_is_one_section_for_each_kind_and_no_other() -> None:
    assert sorted(sections()) == sorted(KINDS)


@pytest.mark.parametrize("name", sorted(KINDS))
def test_the_section_says_what_the_report_says(name: str) -> None:
    kind, text = KINDS[name], sections()[name]
    assert f"Severity: {kind.severity}." in text and f"**Means.** {kind.meaning}" in text
    assert ("Can be mended." in text) == bool(kind.mending) and kind.mending.lower() in text.lower()
    assert "**Comes from.**" in text and "**To do.**" in text


def test_restoring_comes_first() -> None:
    for page in sorted((ROOT / "docs/runbooks").glob("*.md")):
        headings = re.findall(r"^## (.+)$", page.read_text(encoding="utf-8"), re.MULTILINE)
        if page.name in ("doctor-findings.md", "full-disk.md", "damaged-point.md"):
            assert headings[0] == "Restore first"
