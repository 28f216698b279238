# Copyright: (c) 2026, Sendense contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The few things that are asked of qemu-img: facts of an image, and bitmaps of an image that no qemu holds.

The format is always stated and never probed, and backing files are never opened by what a header says, except in
:func:`chain`, which follows plain absolute paths of stated formats only.
"""

from __future__ import annotations

import json
import os
import subprocess
from dataclasses import dataclass, field
from typing import Any, Dict, List

from ...errors import DependencyMissingError, SnapshotFailedError

_TIMEOUT_S = 60
_MAX_DEPTH = 64
_FORMATS = ("qcow2", "raw")


@dataclass(frozen=True)
class ImageInfo:
    """What an image says of itself. ``bitmaps`` maps a name to its flags (``auto``, ``in-use``)."""

    path: str
    format: str
    size_bytes: int
    allocated_bytes: int
    compat: str = ""
    bitmaps: Dict[str, List[str]] = field(default_factory=dict)
    backing_path: str = ""
    backing_format: str = ""

    def bitmap_usable(self, name: str) -> bool:
        """Whether the bitmap was stored cleanly and has been recording. Only true answers while no qemu holds the image."""
        flags = self.bitmaps.get(name, [])
        return "in-use" not in flags and "auto" in flags


def info(path: str, image_format: str) -> ImageInfo:
    """Facts of one image, also of one in use. SnapshotFailedError if it cannot be read."""
    data = json.loads(_run(["qemu-img", "info", "-U", "--output=json", "-f", _known(image_format, path), "--", _absolute(path)]))
    specific = data.get("format-specific", {}).get("data", {})
    return ImageInfo(
        path=path,
        format=image_format,
        size_bytes=int(data["virtual-size"]),
        allocated_bytes=int(data.get("actual-size", data["virtual-size"])),
        compat=str(specific.get("compat", "")),
        bitmaps={bitmap["name"]: list(bitmap.get("flags", [])) for bitmap in specific.get("bitmaps", [])},
        backing_path=str(data.get("full-backing-filename") or data.get("backing-filename") or ""),
        backing_format=str(data.get("backing-filename-format", "")),
    )


def chain(path: str, image_format: str) -> List[ImageInfo]:
    """The image and everything below it, top first.

    SnapshotFailedError for a backing file without a stated format, one that is no plain path, or an endless chain.
    """
    images = [info(path, image_format)]
    while images[-1].backing_path:
        top = images[-1]
        if not top.backing_format:
            raise SnapshotFailedError(
                f"Cannot read {path}: the format of its backing file {top.backing_path!r} is not recorded, and guessing it would let "
                "a guest choose what is read. Record it with 'qemu-img rebase -u -F'.",
                retryable=False,
            )
        if len(images) >= _MAX_DEPTH:
            raise SnapshotFailedError(f"Cannot read {path}: its chain of backing files is deeper than {_MAX_DEPTH}.", retryable=False)
        images.append(info(top.backing_path, top.backing_format))
    return images


def node(images: List[ImageInfo]) -> Dict[str, Any]:
    """The block node that opens exactly this chain, whatever the headers say."""
    built: Dict[str, Any] = {}
    for image in reversed(images):
        driver = "host_device" if not os.path.isfile(image.path) else "file"
        layer: Dict[str, Any] = {"driver": image.format, "file": {"driver": driver, "filename": image.path}}
        if image.format == "qcow2":
            layer["backing"] = {**built, "read-only": True} if built else None
        built = layer
    return built


def data_bytes(images: List[ImageInfo]) -> int:
    """Upper bound in bytes of the data in the chain.

    ``map`` counts compressed clusters in full but misses what a running qemu has only in memory; the files' allocation has
    that. The virtual size bounds both.
    """
    size, allocated = images[0].size_bytes, sum(image.allocated_bytes for image in images)
    if all(image.format == "raw" for image in images):
        return min(size, allocated)
    try:
        extents = json.loads(_run(["qemu-img", "map", "-U", "--output=json", "json:" + json.dumps(node(images))]))
    except SnapshotFailedError:
        return size
    mapped = sum(extent["length"] for extent in extents if extent["data"])
    return min(size, max(mapped, allocated))


def add_bitmap(path: str, name: str) -> None:
    """Add a recording bitmap to a qcow2 image that nothing else holds. SnapshotFailedError."""
    _run(["qemu-img", "bitmap", "--add", "-f", "qcow2", "--", _absolute(path), name])


def remove_bitmap(path: str, name: str) -> None:
    """Remove a bitmap, also a broken one, from a qcow2 image that nothing else holds. SnapshotFailedError."""
    _run(["qemu-img", "bitmap", "--remove", "-f", "qcow2", "--", _absolute(path), name])


def _known(image_format: str, path: str) -> str:
    if image_format not in _FORMATS:
        raise SnapshotFailedError(f"Cannot read {path}: images of format {image_format!r} are not supported.", retryable=False)
    return image_format


def _absolute(path: str) -> str:
    """qemu-img takes ``nbd:...`` or ``json:...`` for a name as an order; a path that begins with a slash is only a path."""
    if not path.startswith("/"):
        raise SnapshotFailedError(f"Cannot read image {path!r}: it is not an absolute path.", retryable=False)
    return path


def _run(argv: List[str]) -> str:
    try:
        done = subprocess.run(
            argv, check=False, capture_output=True, text=True, errors="replace", timeout=_TIMEOUT_S, stdin=subprocess.DEVNULL
        )
    except FileNotFoundError as exc:
        raise DependencyMissingError("qemu-img is not installed at this place; install the package qemu-utils.") from exc
    except subprocess.TimeoutExpired as exc:
        raise SnapshotFailedError(f"'{' '.join(argv[:3])}' on {argv[-1]} did not end within {_TIMEOUT_S} s.") from exc
    if done.returncode != 0:
        words = done.stderr.strip()[-500:]
        raise SnapshotFailedError(f"'{' '.join(argv[:3])}' failed: {words}.", details={"argv": argv, "returncode": done.returncode})
    return done.stdout
