# Copyright: (c) 2026, Sendense contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A merge as a job does it, without the job: begin, move the data with real qemu, re-read, finish."""

from __future__ import annotations

from typing import Any, Dict, List

from ansible_collections.sendense.platform.plugins.module_utils.datapath.blockhashes import BlockHashFile
from ansible_collections.sendense.platform.plugins.module_utils.datapath.hashing import algorithm
from ansible_collections.sendense.platform.plugins.module_utils.datapath.merger import MergeJob, MergeOptions, merge
from ansible_collections.sendense.platform.plugins.module_utils.errors import VerificationFailedError
from ansible_collections.sendense.platform.plugins.module_utils.repositories._base import OpenMerge, Point, Repository
from ansible_collections.sendense.platform.plugins.module_utils.repositories.digests import file_digest
from tests.contract.point_writer import read_node

MERGE_JOB = "f" * 32
VERIFIED = {"at": "2026-11-21T00:00:00Z", "method": "cached", "reason": "a test"}


def merged(repository: Repository, key: str, survivor: str, consumed: List[str], job_id: str = MERGE_JOB) -> Point:
    """All steps; the survivor."""
    opened = repository.begin_merge(key, survivor, consumed, job_id)
    move(opened)
    return prove_and_finish(repository, opened)


def move(opened: OpenMerge) -> None:
    """Move the data, with the product's merger."""
    result = merge([MergeJob(**order) for order in opened.orders], MergeOptions())
    assert result.state == "done", result.error


def prove_and_finish(repository: Repository, opened: OpenMerge) -> Point:
    """Re-read what was moved and finish. VerificationFailedError if it is not what the hashes say."""
    images = repository.merged_images(opened)
    hashes = repository.merged_hashes(opened)
    digests = {key: reread(images[key], hashes[key]) for key in images}
    return repository.finish_merge(opened, digests, VERIFIED)


def reread(node: Dict[str, Any], hashes: str) -> str:
    """Compare every held block with its hash; the digest of the image file."""
    data = read_node(node)
    with BlockHashFile(hashes) as known:
        size, hasher = known.header.block_size, algorithm(known.header.algorithm)
        held = list(known.held())
        wrong = [block for block, digest in held if hasher.digest_of(data[block * size : (block + 1) * size]) != digest]
        if known.header.level == "full":
            kept = {block for block, _digest in held}
            wrong += [at // size for at in range(0, len(data), size) if at // size not in kept and any(data[at : at + size])]
        name = known.header.algorithm
    if wrong:
        raise VerificationFailedError(f"blocks {wrong} are not what was recorded")
    return file_digest(str(node["file"]["filename"]), name)
