# Copyright: (c) 2026, Sendense contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Names are safe whatever the machine is called, and nothing foreign is taken for ours."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ansible_collections.sendense.platform.plugins.module_utils.errors import InvalidInputError
from ansible_collections.sendense.platform.plugins.module_utils.model import Disk, Machine
from ansible_collections.sendense.platform.plugins.module_utils.platforms.libvirt import naming
from ansible_collections.sendense.platform.plugins.module_utils.platforms.libvirt.naming import ChangeId, CheckpointName

JOB, OWNER = "0123456789abcdef" * 2, "89abcdef"


@given(st.text(max_size=400), st.integers(min_value=0, max_value=4102444800))
def test_every_machine_name_makes_a_safe_checkpoint_name(name: str, created: int) -> None:
    text = str(CheckpointName.make(name, created, OWNER, JOB))
    assert re.fullmatch(r"[A-Za-z0-9_][A-Za-z0-9._-]{0,199}", text)
    parsed = CheckpointName.parse(text)
    assert parsed is not None and (parsed.created, parsed.owner, parsed.job) == (created, OWNER, JOB[:8])
    assert str(parsed) == text


def test_the_form_is_the_documented_one() -> None:
    assert str(CheckpointName.make("web01", 1767225600, OWNER, JOB)) == "web01-backup-2026-01-01-00-00-00-89abcdef-01234567"
    hostile = str(CheckpointName.make("../{{ x }}", 0, OWNER, JOB))
    assert hostile == "_.____x___-backup-1970-01-01-00-00-00-89abcdef-01234567"


@pytest.mark.parametrize(
    "text",
    [
        "",
        "hub-RUN",
        "virtnbdbackup.0",
        "web01-backup-2026-01-01-00-00-00-89ABCDEF-01234567",
        "web01-backup-2026-13-01-00-00-00-89abcdef-01234567",
        "web01-backup-2026-01-01-00-00-00-89abcdef-01234567 ",
        "web01-backup-2026-01-01-00-00-00-89abcdef-01234567\n",
        "-backup-2026-01-01-00-00-00-89abcdef-01234567",
        "a/b-backup-2026-01-01-00-00-00-89abcdef-01234567",
        "a" * 200 + "-backup-2026-01-01-00-00-00-89abcdef-01234567",
    ],
)
def test_names_of_others_are_not_ours(text: str) -> None:
    assert CheckpointName.parse(text) is None


def test_a_change_id_returns_as_it_was_and_holds_the_checkpoint_verbatim() -> None:
    disk = Disk("serial", 512, device="vda", path='/a "b"/{{ c }}.qcow2')
    name = str(CheckpointName.make("web", 1, OWNER, JOB))
    change_id = ChangeId.of(Machine("libvirt", "uuid", "web", snapshots=["b", "a"]), disk, name, "a")
    assert ChangeId.decode(change_id.encode()) == change_id
    assert name in change_id.encode() and "{{" not in change_id.encode()
    assert naming.checkpoints_in([change_id.encode(), "", "garbage"]) == {name}
    reordered = ChangeId.of(Machine("libvirt", "uuid", "web", snapshots=["a", "b"]), disk, name, "a")
    assert reordered == change_id


@given(st.text(max_size=200) | st.recursive(st.none() | st.integers() | st.text(), st.lists).map(repr))
def test_decoding_never_fails(text: str) -> None:
    assert ChangeId.decode(text) is None


@pytest.mark.parametrize("field", ["checkpoint", "machine", "device", "path", "size", "snapshots", "current"])
def test_a_change_id_with_a_wrong_or_missing_field_is_none(field: str) -> None:
    import json

    good = json.loads(ChangeId("c", "m", "d", "p", 1, "s", "x").encode())
    for value in (None, [], {}, 1.5):
        assert ChangeId.decode(json.dumps({**good, field: value})) is None
    good.pop(field)
    assert ChangeId.decode(json.dumps(good)) is None


def test_sockets_and_exports_are_recognised() -> None:
    path = naming.socket_path("/run/x", JOB, OWNER)
    assert naming.parse_socket(path) == (JOB[:8], OWNER)
    assert naming.parse_export(naming.export_name(JOB, "disk12")) == JOB
    for foreign in ("", "x.sock", "/run/sb-0123456-89abcdef.sock", "/run/sb-01234567-89abcdef.sock.old"):
        assert naming.parse_socket(foreign) is None
    for foreign in ("vda", f"sendense-{JOB}-disk", f"sendense-{JOB}-disk0/..", f"xsendense-{JOB}-disk0"):
        assert naming.parse_export(foreign) == ""


def test_a_socket_fits_the_longest_work_directory_and_no_longer_one() -> None:
    assert len(naming.socket_path("/" + "d" * 80, JOB, OWNER)) <= 107
    with pytest.raises(InvalidInputError, match="longer than 107"):
        naming.socket_path("/" + "d" * 90, JOB, OWNER)


@pytest.mark.parametrize(("job", "owner"), [("", OWNER), (JOB[:-1], OWNER), (JOB.upper(), OWNER), (JOB, "x"), (JOB, OWNER + "\n")])
def test_ids_that_would_become_names_are_strict(job: str, owner: str) -> None:
    with pytest.raises(InvalidInputError):
        naming.require_ids(job, owner)
