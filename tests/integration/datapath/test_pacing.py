# Copyright: (c) 2026, Sendense contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a mover decides about depth and size of its requests with real servers, and says in its result."""

from __future__ import annotations

import pytest

from ansible_collections.sendense.platform.plugins.module_utils.datapath import pacing, transfer
from ansible_collections.sendense.platform.plugins.module_utils.datapath.images import create_raw
from ansible_collections.sendense.platform.plugins.module_utils.datapath.mover import move
from ansible_collections.sendense.platform.plugins.module_utils.datapath.mover_plan import DiskJob, MoverOptions
from tests.integration.datapath.servers import MIB, compare, raw_file

SIZE = 64 * MIB


#: Seconds within which a server counts as near here: a busy machine must not make it distant or slow. A distant one takes twice as long.
NEAR = 0.05
READS_LATE = ["--filter=delay", "rdelay=100ms"]


@pytest.fixture
def copy(tmp_path, servers, monkeypatch):
    """Copies a disk between two servers with these filters; returns what was decided for it."""
    monkeypatch.setattr(pacing, "NEAR_SECONDS", NEAR)
    monkeypatch.setattr(transfer, "PROBE_SECONDS", 100 * NEAR)

    def run(source_words=(), target_words=(), size=SIZE, **options):
        raw_file(tmp_path / "source", size, seed=1, share=1.0)
        create_raw(str(tmp_path / "target"), size)
        uris = []
        for name, words in (("source", source_words), ("target", target_words)):
            filters = [word for word in words if word.startswith("-")]
            uris.append(servers.kit(name, *filters, "file", str(tmp_path / name), *[word for word in words if word not in filters]))
        result = move([DiskJob("disk0", *uris)], MoverOptions(**options))
        assert result.state == "done", result.error
        assert compare(tmp_path / "source", tmp_path / "target")
        disk = result.disks["disk0"]
        return disk["request_bytes"], disk["depth"], disk["latency_ms"]

    return run


def test_near_servers_are_read_as_measured_best(copy):
    assert copy() == (MIB, 4, 0)


def test_a_distant_source_is_read_deeper(copy):
    request, depth, latency = copy(READS_LATE)
    assert request == MIB and depth > 4 and latency >= 100


def test_a_cache_at_the_server_does_not_hide_the_distance(copy):
    """What it was asked once it answers at once; all that is still to be copied comes from afar."""
    request, depth, latency = copy(["--filter=cache", *READS_LATE, "cache-on-read=true"])
    assert request == MIB and depth > 4 and latency >= 100


def test_a_distant_target_counts_as_well(copy):
    """Its latency is measured by reads, as nothing may be written yet."""
    request, depth, latency = copy((), [*READS_LATE, "wdelay=100ms"])
    assert request == MIB and depth > 4 and latency >= 100


def test_servers_that_were_not_primed_are_asked_for_less_at_once(copy):
    assert copy(prime_bytes=0) == (256 << 10, 16, 0)


def test_a_small_copy_is_not_measured(copy):
    assert copy(READS_LATE, size=8 * MIB) == (MIB, 4, 0)


def test_what_was_asked_for_is_done(copy):
    assert copy(READS_LATE, depth=3, request_bytes=512 << 10) == (512 << 10, 3, 0)


def test_under_a_low_cap_nothing_is_measured_or_primed(copy):
    """The probes alone would be seconds of traffic."""
    request, _depth, latency = copy(READS_LATE, size=16 * MIB, bandwidth_bytes_per_s=4 * MIB - 1)
    assert (request, latency) == (MIB, 0)
