# Copyright: (c) 2026, Sendense contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The lab guest's first disk: it boots by itself under BIOS and under UEFI, and holds a file system with real files.

    LBA 2048   bios      GRUB's core image; boot code in sector 0 loads it
        4096   esp       FAT: kernel, initramfs, EFI/BOOT/BOOTX64.EFI
       86016   lab-counter   1 MiB: counter record, control record
       88064   lab-data  ext4, mounted by the guest at /data

Made without loop devices or mounts, and cached by a digest of everything that goes into it.
"""

from __future__ import annotations

import hashlib
import os
import random
import shutil
import struct
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import List

from . import initramfs
from .counters import COUNTER_OFFSET
from .disks import MIB, ImageFile, run
from .paths import IMAGES, PARTS

_SECTOR = 512
_CORE_LBA = 2048
_ESP_LBA, _ESP_SECTORS = 4096, 81920
_COUNTER_LBA = COUNTER_OFFSET // _SECTOR
_COUNTER_SECTORS = 2048
_DATA_LBA = _COUNTER_LBA + _COUNTER_SECTORS
_PARTITIONS = f"""label: gpt
label-id: 5E4DE45E-0000-4000-8000-000000000001
start={_CORE_LBA}, size=2048, type=21686148-6449-6E6F-744E-656564454649, name=bios
start={_ESP_LBA}, size={_ESP_SECTORS}, type=C12A7328-F81F-11D2-BA4B-00A0C93EC93B, name=esp
start={_COUNTER_LBA}, size={_COUNTER_SECTORS}, name=lab-counter
start={_DATA_LBA}, name=lab-data
"""
_COMMAND_LINE = "console=ttyS0 quiet loglevel=3 panic=5 mitigations=off nokaslr no_timer_check audit=0 random.trust_cpu=on"
_GRUB_CONFIG = f"set gfxpayload=text\nlinux /vmlinuz {_COMMAND_LINE}\ninitrd /initrd.img\nboot\n"


@dataclass(frozen=True)
class GuestImage:
    """A bootable disk to copy from (qcow2 v3, no backing file)."""

    path: Path
    size_bytes: int


def guest_image(size_mib: int = 256, files_mib: int = 8) -> GuestImage:
    """The image of this size with this many MiB of files; built if there is none. LabError if a part is missing."""
    archive = initramfs.build()
    kernel = initramfs.kernel_image()
    digest = hashlib.sha256(archive)
    for part in (Path(__file__).read_bytes(), kernel.read_bytes(), f"{size_mib} {files_mib}".encode()):
        digest.update(hashlib.sha256(part).digest())
    path = IMAGES / f"{digest.hexdigest()[:24]}.qcow2"
    if not path.exists():
        IMAGES.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=IMAGES) as work:
            made = _build(Path(work), archive, kernel, size_mib, files_mib)
            made.replace(path)
    return GuestImage(path, size_mib * MIB)


def _build(work: Path, archive: bytes, kernel: Path, size_mib: int, files_mib: int) -> Path:
    disk = work / "disk.raw"
    with open(disk, "xb") as image:
        os.truncate(image.fileno(), size_mib * MIB)
    run(["sfdisk", "--quiet", str(disk)], input=_PARTITIONS)
    (work / "grub.cfg").write_text(_GRUB_CONFIG)
    (work / "initrd.img").write_bytes(archive)
    _place(disk, _esp(work, kernel), _ESP_LBA)
    # The backup partition table occupies the last 33 sectors; one MiB keeps the file system aligned.
    _place(disk, _data(work, size_mib * MIB - _DATA_LBA * _SECTOR - MIB, files_mib), _DATA_LBA)
    _boot_code(disk, work)
    made = work / "disk.qcow2"
    run(["qemu-img", "convert", "-f", "raw", "-O", "qcow2", "-o", "compat=1.1", str(disk), str(made)])
    return made


def _esp(work: Path, kernel: Path) -> Path:
    esp, loader = work / "esp.img", work / "BOOTX64.EFI"
    _grub_image("x86_64-efi", work, loader, "/", ["part_gpt", "fat", "linux", "boot"])
    run(["mkfs.vfat", "-F", "32", "-n", "ESP", "-C", str(esp), str(_ESP_SECTORS // 2)])
    run(["mmd", "-i", str(esp), "::EFI", "::EFI/BOOT"])
    for source, name in ((loader, "EFI/BOOT/BOOTX64.EFI"), (kernel, "vmlinuz"), (work / "initrd.img", "initrd.img")):
        run(["mcopy", "-i", str(esp), str(source), f"::{name}"])
    return esp


def _boot_code(disk: Path, work: Path) -> None:
    """Put GRUB's first sector and core image where the BIOS and the first sector look for them."""
    core = work / "core.img"
    _grub_image("i386-pc", work, core, "(,gpt2)/", ["biosdisk", "part_gpt", "fat", "linux", "boot"])
    first = bytearray((PARTS / "usr/lib/grub/i386-pc/boot.img").read_bytes())
    rest = bytearray(core.read_bytes())
    struct.pack_into("<Q", first, 0x5C, _CORE_LBA)
    struct.pack_into("<Q", rest, 0x1F4, _CORE_LBA + 1)
    with open(disk, "r+b") as image:
        image.write(first[:440])  # the rest of the sector is the protective partition table
        image.seek(_CORE_LBA * _SECTOR)
        image.write(rest)


def _grub_image(platform: str, work: Path, output: Path, prefix: str, modules: List[str]) -> None:
    argv = [str(PARTS / "usr/bin/grub-mkimage"), "-O", platform, "-d", str(PARTS / "usr/lib/grub" / platform)]
    argv += ["-p", prefix, "-c", str(work / "grub.cfg"), "-o", str(output)]
    run([*argv, *modules])


def _data(work: Path, size: int, files_mib: int) -> Path:
    image, tree = work / "data.img", work / "data"
    _write_files(tree, files_mib)
    with open(image, "xb") as handle:
        os.truncate(handle.fileno(), size)
    run(["mke2fs", "-q", "-t", "ext4", "-L", "lab-data", "-E", "root_owner=0:0", "-d", str(tree), str(image)])
    return image


def _write_files(tree: Path, files_mib: int) -> None:
    """Half random, half text; the same files every time, with their digests beside them."""
    source = random.Random(files_mib)
    lines = []
    for number in range(files_mib * 4):
        name = f"{'random' if number % 2 else 'text'}/{number % 7} of seven/file-{number:03d}"
        size = source.randrange(128 * 1024, 384 * 1024)
        content = source.randbytes(size) if number % 2 else _text(source, size)
        path = tree / "files" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
        lines.append(f"{hashlib.sha256(content).hexdigest()}  {name}\n")
    (tree / "files.sha256").write_text("".join(lines))


def _text(source: random.Random, size: int) -> bytes:
    words = ["backup", "restore", "replica", "machine", "disk", "block", "point", "chain", "hash", "verified"]
    return " ".join(source.choices(words, k=size // 7)).encode().ljust(size, b"\n")[:size]


def _place(disk: Path, part: Path, lba: int) -> None:
    """Copy a partition's content into the disk, leaving holes as holes."""
    with open(part, "rb") as source, open(disk, "r+b") as image:
        image.seek(lba * _SECTOR)
        while chunk := source.read(MIB):
            if chunk.count(0) == len(chunk):
                image.seek(len(chunk), os.SEEK_CUR)
            else:
                image.write(chunk)
    part.unlink()


def image_file(image: GuestImage) -> ImageFile:
    """The image with its format."""
    return ImageFile(str(image.path), "qcow2")


def remove_images() -> None:
    """Forget all built images."""
    shutil.rmtree(IMAGES, ignore_errors=True)
