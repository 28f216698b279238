# Copyright: (c) 2026, Sendense contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Plans for mover and verifier: strict, and checked before anything is touched."""

from __future__ import annotations

import json

import pytest

from ansible_collections.sendense.platform.plugins.module_utils.datapath.loop import Stop, balance, end_state
from ansible_collections.sendense.platform.plugins.module_utils.datapath.mover_plan import (
    DiskJob,
    MoverOptions,
    check_jobs,
    read_plan,
    write_plan,
)
from ansible_collections.sendense.platform.plugins.module_utils.datapath.verifier import (
    VerifyJob,
    check_verify_jobs,
    read_verify_plan,
    write_verify_plan,
)
from ansible_collections.sendense.platform.plugins.module_utils.errors import (
    CopyFailedError,
    InvalidInputError,
    JobCancelledError,
)

DISK = {"key": "disk0", "source_uri": "nbd://h/a", "target_uri": "nbd://h/b"}


def test_a_plan_is_read_as_it_was_written(tmp_path):
    jobs = [DiskJob(**DISK, level="incremental", changed_context="qemu:dirty-bitmap:b", size_bytes=512)]
    options = MoverOptions(depth=3, stall_seconds=2)
    write_plan(str(tmp_path / "p"), jobs, options)
    assert read_plan(str(tmp_path / "p")) == (jobs, options)
    verify = [VerifyJob("disk0", "nbd://h/a", ["/h0", "/h1"], "all", 512)]
    write_verify_plan(str(tmp_path / "v"), verify, options)
    assert read_verify_plan(str(tmp_path / "v")) == (verify, options)


@pytest.mark.parametrize(
    "change",
    [
        {"key": "vda"},
        {"key": 0},
        {"source_uri": "nbd://h/b"},
        {"source_uri": "file:///etc/passwd"},
        {"target_uri": ""},
        {"level": "differential"},
        {"level": "incremental"},
        {"level": "incremental", "changed_context": "c", "changed_flag": 0},
        {"size_bytes": -1},
        {"size_bytes": True},
        {"size_bytes": "512"},
        {"unknown": 1},
    ],
)
def test_bad_disks_are_refused(tmp_path, change):
    (tmp_path / "p").write_text(json.dumps({"disks": [{**DISK, **change}]}))
    with pytest.raises(InvalidInputError):
        read_plan(str(tmp_path / "p"))


@pytest.mark.parametrize(
    "options",
    [
        {"request_bytes": 65535},
        {"request_bytes": 0},
        {"request_bytes": 64 << 20},
        {"depth": -1},
        {"depth": 65},
        {"prime_bytes": -1},
        {"stall_seconds": 0},
        {"flush_seconds": -1},
        {"bandwidth_bytes_per_s": -1},
        {"hash_algorithm": "md5"},
        {"threads": 0},
        {"treads": 1},
    ],
)
def test_bad_options_are_refused(tmp_path, options):
    (tmp_path / "p").write_text(json.dumps({"disks": [DISK], "options": options}))
    with pytest.raises(InvalidInputError):
        read_plan(str(tmp_path / "p"))


@pytest.mark.parametrize(
    "text", ["", "[]", "{}", '{"disks": {}}', '{"disks": []}', '{"disks": [1]}', '{"disks": [{}]}', '{"x": 1, "disks": []}']
)
def test_bad_documents_are_refused(tmp_path, text):
    (tmp_path / "p").write_text(text)
    for read in (read_plan, read_verify_plan):
        with pytest.raises(InvalidInputError):
            read(str(tmp_path / "p"))
        with pytest.raises(InvalidInputError):
            read(str(tmp_path / "absent"))


@pytest.mark.parametrize(
    "second",
    [
        {"key": "disk0", "target_uri": "nbd://h/c"},
        {"key": "disk1", "target_uri": "nbd://H:10808/b"},
        {"key": "disk1", "target_uri": "nbd://h/c", "hashes_path": "/x/../h"},
    ],
    ids=["disk", "target", "hash file"],
)
def test_nothing_may_be_named_twice(second):
    with pytest.raises(InvalidInputError):
        check_jobs([DiskJob(**DISK, hashes_path="/h"), DiskJob(**{**DISK, **second})])


@pytest.mark.parametrize("change", [{"mode": "some"}, {"hashes": []}, {"uri": "x"}, {"key": "x"}])
def test_bad_verifications_are_refused(change):
    with pytest.raises(InvalidInputError):
        check_verify_jobs([VerifyJob(**{"key": "disk0", "uri": "nbd://h/a", "hashes": ["/h"], **change})])
    with pytest.raises(InvalidInputError):
        check_verify_jobs([VerifyJob("disk0", "nbd://h/a", ["/h"])] * 2)


def test_disks_are_spread_by_weight():
    groups = balance([8, 1, 1, 1, 5], lambda size: size, 2)
    assert sorted(map(sum, groups)) == [7, 9]  # the number of disks weighs a little, too
    assert balance([3, 4], lambda size: size, 9) == [[4], [3]]
    assert balance([0, 0, 0, 0], lambda size: size, 2) == [[0, 0], [0, 0]]


def test_the_first_reason_to_stop_counts():
    stop = Stop()
    first = CopyFailedError("first")
    stop.request(first, "disk1")
    stop.request(JobCancelledError("later"))
    assert stop.error is first
    assert stop.error_for("disk0").details == {"disk": "disk0", "because": "disk1"}
    assert end_state(stop.error_for("disk0")) == "cancelled"
    cancelled = Stop()
    cancelled.request(JobCancelledError("by hand"))
    assert cancelled.error_for("disk0").msg == "by hand"
