# Copyright: (c) 2026, Sendense contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The agent at a place, by its digest: stored once, never changed."""

from __future__ import annotations

import hashlib
import os
import re

from ..errors import InvalidInputError
from ..hubstate.files import sync_directory
from ..hubstate.statedir import StateDir

_DIGEST = re.compile(r"[0-9a-f]{64}")


def agent_path(state: StateDir, digest: str) -> str:
    """Where the agent with this sha256 lies. InvalidInputError for what is no digest."""
    if not _DIGEST.fullmatch(digest):
        raise InvalidInputError(f"Agent digest {digest!r} is refused: it must be 64 lower case hex digits.")
    return os.path.join(state.agent, f"{digest}.pyz")


def store_agent(state: StateDir, content: bytes, digest: str) -> str:
    """Store the zipapp atomically and durably; its path. What is stored already is left alone if it is whole.

    InvalidInputError if the content does not have this digest.
    """
    path = agent_path(state, digest)
    if is_stored(state, digest):
        return path
    if hashlib.sha256(content).hexdigest() != digest:
        raise InvalidInputError(f"The agent's content does not have the digest {digest}: it was damaged on its way. Send it again.")
    partial = f"{path}.{os.getpid()}.tmp"
    descriptor = os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    try:
        with os.fdopen(descriptor, "wb") as stream:
            stream.write(content)
            stream.flush()
            os.fsync(stream.fileno())
        os.replace(partial, path)
    except BaseException:
        os.unlink(partial)
        raise
    sync_directory(state.agent)
    return path


def is_stored(state: StateDir, digest: str) -> bool:
    """Whether a whole copy of this agent lies here."""
    try:
        with open(agent_path(state, digest), "rb") as stream:
            return hashlib.sha256(stream.read()).hexdigest() == digest
    except FileNotFoundError:
        return False
