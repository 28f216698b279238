# Copyright: (c) 2026, Sendense contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The agent at a place, by its digest: stored once, never changed."""

from __future__ import annotations

import hashlib
import importlib.util
import io
import os
import re
import sys
import zipfile
from importlib import _bootstrap_external

from ..errors import InvalidInputError
from ..hubstate.files import replace
from ..hubstate.statedir import StateDir

ENDING = ".pyz"
_DIGEST = re.compile(r"[0-9a-f]{64}")


def agent_path(state: StateDir, digest: str) -> str:
    """Where the agent with this sha256 lies. InvalidInputError for what is no digest."""
    if not _DIGEST.fullmatch(digest):
        raise InvalidInputError(f"Agent digest {digest!r} is refused: it must be 64 lower case hex digits.")
    return os.path.join(state.agent, f"{digest}{ENDING}")


def store_agent(state: StateDir, content: bytes, digest: str) -> str:
    """Store the zipapp atomically and durably; its path. What is stored already is left alone if it is whole.

    InvalidInputError if the content does not have this digest.
    """
    path = agent_path(state, digest)
    if is_stored(state, digest):
        return path
    if hashlib.sha256(content).hexdigest() != digest:
        raise InvalidInputError(f"The agent's content does not have the digest {digest}: it was damaged on its way. Send it again.")
    replace(path, content, durable=True)
    return path


def compiled(path: str) -> str:
    """The same agent with byte code for this interpreter, made beside it when it is first asked for; its path.

    A keeper then starts in half the time. Other interpreters read the source code in it. It is ``path`` itself if there is
    nothing to compile there, or no room for the result.
    """
    fast = f"{path[: -len(ENDING)]}.{sys.implementation.cache_tag}{ENDING}"
    if os.path.isfile(fast):
        return fast
    try:
        replace(fast, _with_byte_code(path), durable=True)
    except (OSError, zipfile.BadZipFile):
        return path  # whoever runs it will say what is wrong with it
    return fast


def _with_byte_code(path: str) -> bytes:
    content = io.BytesIO()
    with zipfile.ZipFile(path) as archive, zipfile.ZipFile(content, "w", zipfile.ZIP_STORED) as result:
        for name in archive.namelist():
            source = archive.read(name)
            result.writestr(name, source)
            if name.endswith(".py"):
                result.writestr(f"{name}c", _byte_code(source, name))
    return content.getvalue()


def _byte_code(source: bytes, name: str) -> bytes:
    """A .pyc file (PEP 552) that is never compared with its source: both come into the same zip file."""
    code = compile(source, name, "exec", dont_inherit=True)
    # What py_compile calls; itself it takes and makes files only.
    return bytes(_bootstrap_external._code_to_hash_pyc(code, importlib.util.source_hash(source), False))  # type: ignore[attr-defined]


def is_stored(state: StateDir, digest: str) -> bool:
    """Whether a whole copy of this agent lies here."""
    try:
        with open(agent_path(state, digest), "rb") as stream:
            return hashlib.sha256(stream.read()).hexdigest() == digest
    except FileNotFoundError:
        return False
