# Copyright: (c) 2026, Sendense contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Plain text tables for people at a terminal."""

from __future__ import annotations

from typing import Any, Dict, List, Sequence


def table(rows: Sequence[Dict[str, Any]], columns: Sequence[str]) -> List[str]:
    """Aligned lines, a header first; control characters of foreign names are shown escaped."""
    cells = [[column.replace("_", " ") for column in columns]]
    cells += [[printable(row.get(column, "")) for column in columns] for row in rows]
    widths = [max(len(line[position]) for line in cells) for position in range(len(columns))]
    return ["  ".join(text.ljust(width) for text, width in zip(line, widths, strict=True)).rstrip() for line in cells]


def printable(value: Any) -> str:
    """Text of a value in which no character can move the cursor or start a new line."""
    return "".join(char if char.isprintable() else char.encode("unicode_escape").decode() for char in str(value))


def human_bytes(count: Any) -> str:
    """Bytes in binary units with three significant digits at most."""
    value = float(count or 0)
    for unit in ("B", "KiB", "MiB", "GiB"):
        if value < 1024 or unit == "GiB":
            return f"{value:.0f} {unit}" if unit == "B" else f"{value:.1f} {unit}"
        value /= 1024
    return str(count)
