# Copyright: (c) 2026, Sendense contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The lab guest's initramfs: busybox, a few kernel modules, the guest agent with its libraries, and our init.

Written as a ``newc`` archive directly: no root, no device nodes, the same bytes for the same inputs.
"""

from __future__ import annotations

import stat
from pathlib import Path
from typing import Dict, List, Tuple

from .disks import run
from .paths import KERNEL, PARTS, LabError

_SOURCES = Path(__file__).parent / "guest_files"
#: In the order in which they must be inserted.
_MODULES = (
    "virtio_ring",
    "virtio",
    "virtio_pci_legacy_dev",
    "virtio_pci_modern_dev",
    "virtio_pci",
    "virtio_blk",
    "virtio_console",
    "evdev",
    "button",
)

#: Path in the archive -> mode and content.
Tree = Dict[str, Tuple[int, bytes]]


def kernel_image() -> Path:
    """The distribution's kernel as scripts/bootstrap.sh unpacked it. LabError if it did not."""
    found = sorted(KERNEL.glob("boot/vmlinuz-*"))
    if not found:
        raise LabError(f"there is no kernel below {KERNEL}; run ./scripts/bootstrap.sh")
    return found[-1]


def build() -> bytes:
    """The archive, uncompressed: unpacking costs an emulated processor more than reading it does."""
    tree: Tree = {}
    for directory in ("bin", "lib", "lib/modules", "lib64", "etc", "etc/acpi", "etc/acpi/PWRF", "sbin", "usr", "usr/sbin"):
        tree[directory] = (stat.S_IFDIR | 0o755, b"")
    _add(tree, "init", _SOURCES / "init")
    _add(tree, "sbin/shutdown", _SOURCES / "shutdown")
    _add(tree, "etc/acpi/PWRF/00000080", _SOURCES / "shutdown")
    _add(tree, "bin/busybox", _part("bin/busybox"))
    _add_modules(tree)
    _add_agent(tree)
    return _newc(tree)


def _add_modules(tree: Tree) -> None:
    version = kernel_image().name.removeprefix("vmlinuz-")
    modules = KERNEL / "lib" / "modules" / version
    builtin = (modules / "modules.builtin").read_text()
    names: List[str] = []
    for name in _MODULES:
        files = sorted((modules / "kernel").rglob(f"{name}.ko"))
        if files:
            _add(tree, f"lib/modules/{name}.ko", files[0])
            names.append(name)
        elif f"/{name}.ko\n" not in builtin:
            raise LabError(f"kernel {version} has no module {name}")
    tree["lib/modules.list"] = (stat.S_IFREG | 0o644, " ".join(names).encode())


def _add_agent(tree: Tree) -> None:
    program = _part("usr/sbin/qemu-ga")
    _add(tree, "usr/sbin/qemu-ga", program)
    for line in run(["ldd", str(program)]).splitlines():
        words = line.split()
        if "not found" in line:
            raise LabError(f"the guest agent needs {words[0]}, which is not installed; run ./scripts/bootstrap.sh")
        path = words[2] if "=>" in words else words[0]
        if path.startswith("/"):
            # The loader has a fixed path; it finds libraries in /lib.
            _add(tree, path[1:] if "ld-linux" in path else f"lib/{Path(path).name}", Path(path))


def _part(path: str) -> Path:
    found = PARTS / path
    if not found.is_file():
        raise LabError(f"there is no {found}; run ./scripts/bootstrap.sh")
    return found


def _add(tree: Tree, name: str, source: Path) -> None:
    mode = 0o755 if source.stat().st_mode & 0o111 else 0o644
    tree[name] = (stat.S_IFREG | mode, source.read_bytes())


def _newc(tree: Tree) -> bytes:
    archive = bytearray()
    for inode, (name, (mode, content)) in enumerate([*tree.items(), ("TRAILER!!!", (0, b""))], start=1):
        fields = (inode, mode, 0, 0, 1, 0, len(content), 0, 0, 0, 0, len(name) + 1, 0)
        archive += b"070701" + b"".join(b"%08X" % field for field in fields) + name.encode() + b"\0"
        archive += bytes(-len(archive) % 4)
        archive += content
        archive += bytes(-len(archive) % 4)
    return bytes(archive)
