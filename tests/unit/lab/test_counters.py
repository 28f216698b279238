# Copyright: (c) 2026, Sendense contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

import pytest

from tests.lab.counters import CONTROL_OFFSET, COUNTER_OFFSET, control_record, counter_offset, one_instant, read_counters
from tests.lab.disks import MIB, ODD_BYTES, DiskSpec, ImageFile, create, run, write
from tests.lab.paths import LabError


@pytest.mark.parametrize("counters", [[5, 5, 5], [6, 5, 5], [6, 6, 5], [1], [7, 7]])
def test_one_instant(counters):
    assert one_instant(counters)


@pytest.mark.parametrize("counters", [[], [5, None, 5], [5, 6], [5, 5, 6], [7, 5, 5], [5, 4, 5], [None]])
def test_not_one_instant(counters):
    assert not one_instant(counters)


def test_the_control_record_is_one_sector_of_text():
    record = control_record(writer=False, churn=True, interval_ms=7)
    assert len(record) == 512
    assert record.rstrip(b"\0") == b"LAB-CONTROL writer=off churn=on interval_ms=7\n"
    assert CONTROL_OFFSET >= COUNTER_OFFSET + 4096


def test_counters_are_read_from_qcow2_and_raw(tmp_path):
    specs = [DiskSpec("vda", 64 * MIB), DiskSpec("vdb", MIB + ODD_BYTES), DiskSpec("vdc", MIB, "raw")]
    images = []
    for position, spec in enumerate(specs):
        path = tmp_path / spec.target
        create(spec, path)
        images.append(ImageFile(str(path), spec.format))
        record = f"SENDENSE-COUNTER {42 - position}".encode().ljust(511) + b"\n"
        write(images[-1], counter_offset(position, spec.size_bytes), record)
    assert read_counters(images) == [42, 41, 40]
    write(images[1], counter_offset(1, specs[1].size_bytes), b"\xaa" * 512)
    assert read_counters(images) == [42, None, 40]


def test_a_missing_image_is_an_error(tmp_path):
    with pytest.raises(LabError, match="qemu-img"):
        read_counters([ImageFile(str(tmp_path / "none"), "raw")])


def test_a_program_that_is_not_installed_is_named():
    with pytest.raises(LabError, match=r"no-such-program is not installed; run ./scripts/bootstrap.sh"):
        run(["no-such-program"])
