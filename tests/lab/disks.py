# Copyright: (c) 2026, Sendense contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Disks of lab guests: what they are, how their files are made, and reading them with qemu's own tools."""

from __future__ import annotations

import json
import os
import string
import subprocess
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Dict, List, Optional, Sequence

from .paths import LabError

MIB = 1024 * 1024
#: A multiple of 512 and not of 64 KiB, so that the last block is short.
ODD_BYTES = 7 * 512


@dataclass(frozen=True)
class DiskSpec:
    """One disk to make. ``template`` is a qcow2 image that is copied (a bootable disk) instead of an empty one."""

    target: str
    size_bytes: int
    format: str = "qcow2"
    template: Optional[Path] = None
    bus: str = "virtio"


@dataclass(frozen=True)
class LabDisk:
    """One disk of an existing guest."""

    target: str
    path: Path
    format: str
    size_bytes: int
    serial: str
    bus: str = "virtio"

    @property
    def image(self) -> "ImageFile":
        """The file and its format, as the readers of ``counters`` take it."""
        return ImageFile(str(self.path), self.format)


@dataclass(frozen=True)
class ImageFile:
    """An image and its format: formats are never probed."""

    path: str
    format: str = "qcow2"


def small_disks() -> List[DiskSpec]:
    """Three small empty disks for tests that only need block I/O: qcow2, qcow2 of an odd size, raw."""
    return [DiskSpec("vda", 64 * MIB), DiskSpec("vdb", 24 * MIB + ODD_BYTES), DiskSpec("vdc", 16 * MIB, "raw")]


def data_disks(odd_mib: int = 64, raw_mib: int = 32) -> List[DiskSpec]:
    """The second and third disk of a guest that boots: qcow2 of an odd size, and raw."""
    return [DiskSpec("vdb", odd_mib * MIB + ODD_BYTES), DiskSpec("vdc", raw_mib * MIB, "raw")]


def scsi_disks(count: int, template: Path, size_bytes: int) -> List[DiskSpec]:
    """Many disks of one machine, copies of a qcow2 image; there is a name for up to 702."""
    letters = string.ascii_lowercase
    names = [*letters, *(first + second for first in letters for second in letters)]
    return [DiskSpec(f"sd{name}", size_bytes, template=template, bus="scsi") for name in names[:count]]


def create(spec: DiskSpec, path: Path) -> None:
    """Make the disk's file; it must not exist. LabError if qemu-img refuses."""
    if spec.template is not None:
        run(["cp", "--sparse=always", "--no-clobber", "--", str(spec.template), str(path)])
    elif spec.format == "raw":
        with open(path, "xb") as image:
            os.truncate(image.fileno(), spec.size_bytes)
    else:
        run(["qemu-img", "create", "-q", "-f", spec.format, "-o", "compat=1.1", "--", str(path), str(spec.size_bytes)])


def copy(source: ImageFile, destination: Path) -> Path:
    """Copy an image to raw, also one that a (suspended and flushed) guest holds open: the reference of a comparison."""
    run(["qemu-img", "convert", "-U", "-f", source.format, "-O", "raw", "--", source.path, str(destination)])
    return destination


def identical(left: ImageFile, right: ImageFile) -> bool:
    """Whether two images have the same size and, by ``qemu-img compare``, the same content."""
    if info(left)["virtual-size"] != info(right)["virtual-size"]:
        return False
    argv = ["qemu-img", "compare", "-q", "-U", "-f", left.format, "-F", right.format, "--", left.path, right.path]
    done = subprocess.run(argv, check=False, capture_output=True, text=True)
    if done.returncode not in (0, 1):
        raise LabError(f"cannot compare {left.path} with {right.path}: {done.stderr.strip()}")
    return done.returncode == 0


def info(image: ImageFile) -> Dict[str, Any]:
    """``qemu-img info`` of an image, also of one in use."""
    argv = ["qemu-img", "info", "-U", "--output=json", "-f", image.format, "--", image.path]
    return dict(json.loads(run(argv)))


def read(image: ImageFile, offset: int, length: int) -> bytes:
    """Read whole sectors of guest data from an image, also from one in use (flush the guest's disk first)."""
    # A window on the image: qemu-img dd counts from the start of the image or of the range, depending on its version.
    path = image.path.replace(",", ",,")
    node = f"driver=raw,offset={offset},size={length},file.driver={image.format},file.file.driver=file,file.file.filename={path}"
    with tempfile.TemporaryDirectory() as work:
        out = Path(work, "data")
        run(["qemu-img", "convert", "-U", "--image-opts", "-O", "raw", node, str(out)])
        data = out.read_bytes()
    if len(data) != length:
        raise LabError(f"cannot read {length} bytes at {offset} of {image.path}: got {len(data)}")
    return data


def write(image: ImageFile, offset: int, data: bytes) -> None:
    """Write guest data into an image that nobody has open."""
    with tempfile.TemporaryDirectory() as work:
        Path(work, "data").write_bytes(data)
        command = f"write -s data {offset} {len(data)}"
        run(["qemu-io", "-f", image.format, "-c", command, "--", os.path.abspath(image.path)], cwd=work)


def run(argv: Sequence[str], **options: Any) -> str:
    """Run a program to its end and return its output; LabError with its last words if it fails."""
    try:
        done = subprocess.run(argv, check=False, capture_output=True, text=True, **options)
    except FileNotFoundError as exc:
        raise LabError(f"{argv[0]} is not installed; run ./scripts/bootstrap.sh") from exc
    if done.returncode != 0:
        raise LabError(f"{' '.join(argv)} failed with {done.returncode}: {(done.stderr or done.stdout).strip()[-1000:]}")
    return done.stdout
