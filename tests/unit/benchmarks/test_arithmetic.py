# Copyright: (c) 2026, Sendense contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The arithmetic of the benchmarks, and that nothing is reported that was not compared."""

from __future__ import annotations

from typing import Any, Dict

import pytest

from tests.benchmarks import data_path, page
from tests.benchmarks.content import BLOCK, DATA, HOLE, MIB, SHARES, ZEROS, data_bytes, layout, scattered
from tests.benchmarks.rows import BenchmarkError, Row, Rows


def _rows(**times: Any) -> Rows:
    """Rows at ``ram`` with the seconds of each round, proven."""
    rows = Rows()
    for name, seconds in times.items():
        for number, second in enumerate(seconds):
            rows.add(Row("ram", name, number, second, {"a": second, "b": 1.0}))
        rows.prove("ram", name, True)
    return rows


def test_a_speedup_is_the_median_over_pairs_not_the_ratio_of_medians() -> None:
    rows = _rows(full=[1.0, 2.0, 10.0], nbdcopy=[3.0, 4.0, 10.0])
    assert rows.speedup("ram", "full", "nbdcopy") == 2.0  # of 3, 2 and 1; the medians are 2 and 4
    rows = _rows(full=[1.0, 2.0, 4.0], nbdcopy=[4.0, 3.0, 2.0])
    assert rows.speedup("ram", "full", "nbdcopy") == 1.5  # the medians are 2 and 3


def test_only_rounds_that_both_have_count() -> None:
    rows = _rows(full=[1.0], nbdcopy=[3.0, 100.0])
    assert rows.speedup("ram", "full", "nbdcopy") == 3.0


def test_the_worse_place_counts() -> None:
    rows = _rows(full=[1.0], nbdcopy=[3.0])
    for name, seconds in (("full", 2.0), ("nbdcopy", 1.0)):
        rows.add(Row("disk", name, 0, seconds, {}))
        rows.prove("disk", name, True)
    assert rows.places() == ["ram", "disk"]
    assert rows.worst_speedup("full", "nbdcopy") == 0.5


def test_cpu_seconds_are_those_of_all_processes() -> None:
    assert _rows(full=[1.0, 2.0, 9.0]).median("ram", "full", lambda row: row.cpu_s) == 3.0


def test_a_row_that_was_never_compared_is_refused() -> None:
    rows = Rows(unproven=["receive_only"])
    rows.add(Row("ram", "full", 0, 1.0, {}))
    rows.add(Row("ram", "receive_only", 0, 1.0, {}))
    assert rows.of("ram", "receive_only")
    with pytest.raises(BenchmarkError, match="never compared"):
        rows.speedup("ram", "full", "receive_only")
    rows.prove("disk", "full", True)  # at another place
    with pytest.raises(BenchmarkError, match="never compared"):
        rows.of("ram", "full")


def test_a_difference_ends_the_run() -> None:
    with pytest.raises(BenchmarkError, match="full .ram. did not store"):
        Rows().prove("ram", "full", False)


def test_what_was_not_measured_is_no_number() -> None:
    with pytest.raises(BenchmarkError, match="was not measured"):
        _rows(full=[1.0]).worst_speedup("full", "nbdcopy")


def test_the_keys_of_a_report_take_the_worse_of_both_places() -> None:
    names = (data_path.FULL, data_path.COMMITTED, data_path.NBDCOPY, data_path.RECEIVE, data_path.PEER_FULL)
    seconds = dict(zip((*names, data_path.INCREMENTAL, data_path.PEER_INCREMENTAL), (2.0, 4.0, 3.0, 1.0, 10.0, 1.0, 2.5), strict=True))
    rows = Rows(unproven=[data_path.RECEIVE])
    for place, factor in (("ram", 1.0), ("disk", 2.0)):
        for name, second in seconds.items():
            slower = factor if name in (data_path.FULL, data_path.COMMITTED) else 1.0
            rows.add(Row(place, name, 0, second * slower, {"all": second * factor}))
            rows.prove(place, name, True)
    assert data_path.keys(rows, gib=2.0) == {
        "full_vs_nbdcopy": 0.75,
        "full_vs_virtnbdbackup": 2.5,
        "incremental_vs_virtnbdbackup": 2.5,
        "full_vs_limit": 0.25,
        "limit_vs_virtnbdbackup": 10.0,
        "committed_vs_nbdcopy": 0.375,
        "full_cpu_s_per_gib": 2.0,
        "nbdcopy_cpu_s_per_gib": 1.5,
    }


def test_the_disk_has_its_shares_and_no_gaps() -> None:
    pieces = layout(1024 * MIB)
    position = 0
    for piece in pieces:
        assert piece.offset == position
        assert BLOCK <= piece.length <= 4 * MIB and piece.length % BLOCK == 0
        position += piece.length
    assert position == 1024 * MIB
    for kind in (DATA, ZEROS, HOLE):
        share = sum(piece.length for piece in pieces if piece.kind == kind) / position
        assert abs(share - SHARES[kind]) < 0.01, (kind, share)
    assert data_bytes(pieces) == sum(piece.length for piece in pieces if piece.kind == DATA)


def test_changes_are_scattered_and_do_not_overlap() -> None:
    pieces = scattered(layout(1024 * MIB))
    total = sum(piece.length for piece in pieces)
    assert 0.05 <= total / (1024 * MIB) < 0.052
    ends = [0] + [piece.offset + piece.length for piece in pieces]
    assert all(piece.offset >= end for piece, end in zip(pieces, ends, strict=False))
    assert pieces[-1].offset > 900 * MIB and pieces[0].offset < 100 * MIB


def test_a_page_gets_the_numbers_between_its_marks() -> None:
    report: Dict[str, Any] = dict.fromkeys(page.KEYS, 1.5)
    report["data_path_versions"] = {"qemu": "7.2"}
    report["data_path_gib"] = 2.0
    report["data_path_rows"] = [Row("ram", "full", 0, 4.0, {"qemu": 1.0}).__dict__]
    found = page.replaced(f"a\n{page.BEGIN}old\n{page.END}b\n", page.text(report))
    assert found.startswith(f"a\n{page.BEGIN}Measured with: qemu 7.2.\n") and found.endswith(f"{page.END}b\n") and "old" not in found
    assert "| ram | full | 4.00 (4.00-4.00) | 0.50 | 0.50 (qemu 0.50) |" in found
    assert "| `full_vs_nbdcopy` | 1.5 | at least 1.2 |" in found
    with pytest.raises(BenchmarkError, match="marks"):
        page.replaced("no marks", "x")
    with pytest.raises(BenchmarkError, match="mover_rss_mib"):
        page.text({name: 1 for name in page.KEYS if name != "mover_rss_mib"})
