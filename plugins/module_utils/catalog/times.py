# Copyright: (c) 2026, Sendense contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The one spelling of a time in manifests and file names: UTC, seconds, ``2026-11-20T11:54:00Z``.

One spelling makes text comparison the same as comparison in time.
"""

from __future__ import annotations

import re
from datetime import datetime, timezone

from ..errors import InvalidInputError

_ACCEPTED = re.compile(r"(\d{4}-\d{2}-\d{2}T\d{2}:\d{2}:\d{2})(?:\.\d{1,9})?(?:Z|\+00:00)", re.ASCII)


def utc_text(text: str) -> str:
    """``text`` (UTC, ISO 8601, ``Z`` or ``+00:00``, fractions cut off) in the one spelling. InvalidInputError."""
    match = _ACCEPTED.fullmatch(text)
    if match is None:
        raise InvalidInputError(f"Cannot read the time {text!r}: it is not UTC in ISO 8601. Write it as 2026-11-20T11:54:00Z.")
    try:
        datetime.strptime(match.group(1), "%Y-%m-%dT%H:%M:%S")
    except ValueError as error:
        raise InvalidInputError(f"Cannot read the time {text!r}: there is no such day or hour. Correct it.") from error
    return f"{match.group(1)}Z"


def utc_from_seconds(seconds: float) -> str:
    """Seconds since the epoch in the one spelling."""
    return datetime.fromtimestamp(int(seconds), timezone.utc).strftime("%Y-%m-%dT%H:%M:%SZ")


def compact(text: str) -> str:
    """A time of the one spelling as ``20261120T115400Z``, for file names."""
    return utc_text(text).replace("-", "").replace(":", "")


def is_utc_text(value: object) -> bool:
    """Whether ``value`` is a real time in exactly the one spelling."""
    if not isinstance(value, str):
        return False
    try:
        return utc_text(value) == value
    except InvalidInputError:
        return False
