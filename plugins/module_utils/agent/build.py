# Copyright: (c) 2026, Sendense contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The agent: all of module_utils as one zipapp that any Python 3.9 can run, the same bytes wherever it is built.

Built on the controller from the files beside this one; stored by its digest at hubs and nodes.
"""

from __future__ import annotations

import hashlib
import io
import os
import zipfile
from typing import Dict, Tuple

from ..errors import DependencyMissingError

#: Where the code lies in the zipapp, so that its imports are those of the collection.
NAMESPACE = "ansible_collections/sendense/platform/plugins/module_utils"
#: The oldest time that a zip file can carry: no build may differ from the next.
_EPOCH = (1980, 1, 1, 0, 0, 0)

_MAIN = f"""import sys

from {NAMESPACE.replace("/", ".")}.agent.main import main

sys.exit(main(sys.argv[1:]))
"""


def build_agent(source: str = "") -> Tuple[bytes, str]:
    """The zipapp and its sha256. ``source`` is a module_utils directory, by default the one that this file lies in.

    DependencyMissingError if there is no source code there (this very file runs from a zip file).
    """
    root = source or os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
    content = io.BytesIO()
    with zipfile.ZipFile(content, "w", zipfile.ZIP_STORED) as archive:
        for name, data in sorted(_files(root).items()):
            entry = zipfile.ZipInfo(name, _EPOCH)
            entry.create_system = 3
            entry.external_attr = 0o600 << 16
            # Stored, not deflated: the bytes must not depend on the controller's version of zlib.
            archive.writestr(entry, data, zipfile.ZIP_STORED)
    built = content.getvalue()
    return built, hashlib.sha256(built).hexdigest()


def _files(root: str) -> Dict[str, bytes]:
    files: Dict[str, bytes] = {"__main__.py": _MAIN.encode("ascii")}
    package = NAMESPACE.split("/")
    for depth in range(1, len(package)):
        files["/".join(package[:depth] + ["__init__.py"])] = b""
    for folder, folders, names in os.walk(root):
        folders[:] = sorted(name for name in folders if name != "__pycache__")
        relative = os.path.relpath(folder, root)
        prefix = NAMESPACE if relative == "." else f"{NAMESPACE}/{relative.replace(os.sep, '/')}"
        files.setdefault(f"{prefix}/__init__.py", b"")
        for name in names:
            if name.endswith(".py"):
                with open(os.path.join(folder, name), "rb") as stream:
                    files[f"{prefix}/{name}"] = stream.read()
    if f"{NAMESPACE}/agent/main.py" not in files:
        raise DependencyMissingError(
            f"Cannot build the agent: there is no source code in {root}. Build it on the controller, from an installed collection.",
            details={"path": root},
        )
    return files
