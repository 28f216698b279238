# Copyright: (c) 2026, Sendense contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A ``qemu-nbd`` in front of the real one on the path: it puts ``blkdebug`` below every image that is served for writing."""

from __future__ import annotations

import json
import os
import shutil
import sys
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Dict, Iterator, List

_SHIM = """#!{python}
import json, os, sys
argv = sys.argv[1:]
if "--read-only" not in argv:
    node = json.loads(argv[-1][len("json:"):])
    node["file"] = {{"driver": "blkdebug", "image": node["file"], "inject-error": json.loads({rules!r})}}
    argv[-1] = "json:" + json.dumps(node)
os.execv({real!r}, [{real!r}, *argv])
"""


@contextmanager
def blkdebug_targets(directory: Path, rules: List[Dict[str, Any]]) -> Iterator[None]:
    """Servers that are started inside inject these errors (members of blkdebug's ``inject-error``); without rules nothing."""
    if not rules:
        yield
        return
    programs, path = directory / "shims", os.environ["PATH"]
    programs.mkdir()
    real = shutil.which("qemu-nbd")
    assert real, "qemu-nbd is not installed"
    shim = programs / "qemu-nbd"
    shim.write_text(_SHIM.format(python=sys.executable, rules=json.dumps(rules), real=real))
    shim.chmod(0o755)
    os.environ["PATH"] = f"{programs}:{path}"
    try:
        yield
    finally:
        os.environ["PATH"] = path
        shutil.rmtree(programs)
