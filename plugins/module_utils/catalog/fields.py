# Copyright: (c) 2026, Sendense contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Checks of single manifest fields: each takes a value and returns what is wrong with it, or an empty string."""

from __future__ import annotations

import re
from typing import Any, Callable, Mapping

from ..errors import SendenseError
from ..model import Machine, machine_key
from .times import is_utc_text

Check = Callable[[Any], str]

FULL = "full"
INCREMENTAL = "incremental"

POINT_ID = re.compile(r"[0-9]{8}T[0-9]{6}Z-[0-9a-f]{8}")
MACHINE_KEY = re.compile(r"[a-z][a-z0-9]{0,31}-[a-z0-9][a-z0-9-]{0,63}")
JOB_ID = re.compile(r"[0-9a-f]{32}")
DISK_KEY = re.compile(r"disk(0|[1-9][0-9]{0,3})")
REPOSITORY_ID = re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}")
_FILE = re.compile(r"[a-z0-9][a-z0-9._-]{0,63}")
_ALGORITHM = re.compile(r"[a-z0-9][a-z0-9_-]{0,31}")
_HEX = re.compile(r"(?:[0-9a-f]{2}){8,64}")
_SHA256 = re.compile(r"[0-9a-f]{64}")

#: Names in a point's directory that are never a disk's or a machine's file.
RESERVED_FILES = ("manifest.json", "job.json")
#: Larger than any disk and than any file: beyond it a number is damage, not a size.
_MAXIMUM = 1 << 63


def one_of(*allowed: str) -> Check:
    """The value is one of these texts."""
    return lambda value: "" if value in allowed and isinstance(value, str) else f"is {value!r}, not one of {', '.join(allowed)}"


def matching(pattern: "re.Pattern[str]", what: str, empty: bool = False) -> Check:
    """The value is a text that matches as a whole; ``empty`` also allows the empty one."""

    def check(value: Any) -> str:
        if isinstance(value, str) and (pattern.fullmatch(value) or (empty and not value)):
            return ""
        return f"is {value!r}, not {what}"

    return check


def number(minimum: int = 0) -> Check:
    """The value is a whole number from ``minimum``."""

    def check(value: Any) -> str:
        if isinstance(value, int) and not isinstance(value, bool) and minimum <= value < _MAXIMUM:
            return ""
        return f"is {value!r}, not a whole number from {minimum}"

    return check


def text(value: Any) -> str:
    """Any text: it is data of the platform and may hold every character."""
    return "" if isinstance(value, str) else f"is {value!r}, not a text"


def texts(value: Any) -> str:
    """A list of texts."""
    return "" if isinstance(value, list) and all(isinstance(item, str) for item in value) else "is not a list of texts"


def text_by_text(value: Any) -> str:
    """A mapping of texts to texts."""
    good = isinstance(value, dict) and all(isinstance(item, str) for pair in value.items() for item in pair)
    return "" if good else "is not a mapping of texts"


def list_of_text_by_text(value: Any) -> str:
    """A list of mappings of texts to texts."""
    return "" if isinstance(value, list) and not any(text_by_text(item) for item in value) else "is not a list of mappings of texts"


def file_name(value: Any) -> str:
    """A plain file name: no directory, no reserved name, nothing that a shell or an option parser would notice."""
    if isinstance(value, str) and _FILE.fullmatch(value) and value not in RESERVED_FILES:
        return ""
    return f"is {value!r}, not a plain file name"


def time(value: Any) -> str:
    """A time in the one spelling."""
    return "" if is_utc_text(value) else f"is {value!r}, not a time like 2026-11-20T11:54:00Z"


def block_bytes(value: Any) -> str:
    """A power of two from 4 KiB to 64 MiB."""
    good = isinstance(value, int) and not isinstance(value, bool) and 4096 <= value <= 1 << 26 and value & (value - 1) == 0
    return "" if good else f"is {value!r}, not a power of two from 4096"


def boolean(value: Any) -> str:
    """True or false."""
    return "" if isinstance(value, bool) else f"is {value!r}, not true or false"


def exactly_false(value: Any) -> str:
    """The value is false: for what this schema cannot hold yet."""
    return "" if value is False else f"is {value!r}, not false"


def record(fields: Mapping[str, Check], nullable: bool = False) -> Check:
    """A mapping with exactly these fields; ``nullable`` also allows null."""

    def check(value: Any) -> str:
        if nullable and value is None:
            return ""
        return first_fault(value, fields)

    return check


def first_fault(value: Any, fields: Mapping[str, Check]) -> str:
    """What is wrong with a mapping that must hold exactly ``fields``; empty if nothing is."""
    if not isinstance(value, dict):
        return "is not a mapping"
    missing = sorted(set(fields) - set(value))
    unknown = sorted(str(name) for name in set(value) - set(fields))
    if missing or unknown:
        return f"lacks {missing} and has unknown {unknown}"
    for name, check in fields.items():
        fault = check(value[name])
        if fault:
            return f"field {name} {fault}"
    return ""


def machine(value: Any) -> str:
    """A machine description that :class:`Machine` takes back, whose key is path-safe."""
    if not isinstance(value, dict):
        return "is not a mapping"
    for name in ("platform", "id", "name"):
        if not isinstance(value.get(name), str):
            return f"has no text {name}"
    disks = value.get("disks")
    if not isinstance(disks, list):
        return "has no list of disks"
    if any(not isinstance(disk, dict) or text(disk.get("id")) or number()(disk.get("size_bytes")) for disk in disks):
        return "has a disk without id or size_bytes"
    try:
        Machine.from_dict(value)
    except (TypeError, KeyError, ValueError, AttributeError, SendenseError) as error:
        return f"is not a machine description ({error})"
    return matching(MACHINE_KEY, "a machine key")(machine_key(value["platform"], value["id"]))


def algorithm() -> Check:
    """The name of a hash algorithm."""
    return matching(_ALGORITHM, "the name of a hash algorithm")


def digest(empty: bool = False) -> Check:
    """Lower-case hexadecimal, 8 to 64 bytes."""
    return matching(_HEX, "a digest", empty)


def sha256() -> Check:
    """A SHA-256 in lower-case hexadecimal."""
    return matching(_SHA256, "a SHA-256")
