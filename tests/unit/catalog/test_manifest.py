# Copyright: (c) 2026, Sendense contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The manifest is read back as it was written, and nothing else is accepted."""

from __future__ import annotations

import hashlib
import json
from dataclasses import fields, replace
from pathlib import Path
from typing import Any, Dict, List

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ansible_collections.sendense.platform.plugins.module_utils.catalog.manifest import (
    MAXIMUM_BYTES,
    Manifest,
    ManifestDisk,
    unreadable_manifest,
)
from ansible_collections.sendense.platform.plugins.module_utils.errors import PointDamagedError, SchemaUnknownError
from tests.unit.catalog.manifests import a_disk, a_manifest

ROOT = Path(__file__).resolve().parents[3]


def sealed(data: Dict[str, Any]) -> bytes:
    """Data spelled as a manifest with a right digest: only its fields can be wrong."""
    text = json.dumps(data, sort_keys=True, separators=(",", ":"))
    return (json.dumps({**data, "manifest_sha256": hashlib.sha256(text.encode()).hexdigest()}, indent=1) + "\n").encode()


def changed(**values: Any) -> Dict[str, Any]:
    """A good full manifest with some fields replaced."""
    return {**a_manifest().to_dict(), **values}


def with_disk(**values: Any) -> Dict[str, Any]:
    """A good full manifest with some fields of its disk replaced."""
    return changed(disks=[{**a_manifest().to_dict()["disks"][0], **values}])


def test_what_is_written_is_read_back() -> None:
    for manifest in (a_manifest(), a_manifest(2, 1)):
        assert Manifest.from_bytes(manifest.to_text().encode(), "a test") == manifest
        assert manifest.machine_model().name == "web01"
        assert manifest.disk("serial-a") == manifest.disks[0]
        assert manifest.disk("serial-b") is None


@given(name=st.text(max_size=50) | st.just("{{ lookup('pipe','id') }}") | st.just("\ud800\x00\x1b[31m"))
@settings(max_examples=50)
def test_hostile_names_are_data_and_the_file_is_ascii(name: str) -> None:
    manifest = a_manifest()
    manifest = replace(manifest, machine={**manifest.machine, "name": name})
    content = manifest.to_text().encode("ascii")
    assert Manifest.from_bytes(content, "a test") == manifest
    assert b"\x1b" not in content


@given(data=st.data())
@settings(max_examples=300)
def test_any_changed_byte_is_damage(data: st.DataObject) -> None:
    content = a_manifest(2, 1).to_text().encode()
    at = data.draw(st.integers(0, len(content) - 1))
    how = data.draw(st.sampled_from(["flip", "cut", "insert", "remove"]))
    bad = {
        "flip": content[:at] + bytes([content[at] ^ data.draw(st.integers(1, 255))]) + content[at + 1 :],
        "cut": content[:at],
        "insert": content[:at] + bytes([data.draw(st.integers(0, 255))]) + content[at:],
        "remove": content[:at] + content[at + 1 :],
    }[how]
    if bad != content:
        with pytest.raises((PointDamagedError, SchemaUnknownError)):
            Manifest.from_bytes(bad, "a test")


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b"null", b"1", b"\xff", b"[" * 200000, b" " * (MAXIMUM_BYTES + 1)])
def test_what_is_not_a_manifest_at_all(content: bytes) -> None:
    with pytest.raises(PointDamagedError):
        Manifest.from_bytes(content, "a test")


def test_a_newer_schema_is_not_damage() -> None:
    with pytest.raises(SchemaUnknownError) as error:
        Manifest.from_bytes(sealed({**changed(schema_version=2), "colour": "red"}), "point X")
    assert "point X" in error.value.msg and "Upgrade" in error.value.msg


WRONG: Dict[str, List[Any]] = {
    "schema_version": [0, "1", True, None, 1.0],
    "point_id": ["", "../x", "20261120T120001Z-0000000g", "20261120T120001Z-00000001\n", 5],
    "machine_key": ["", "../x", "memory", "memory-b", "Memory-a", "memory-" + "a" * 70],
    "repository_id": ["", "7D0FF0A4-0d8c-4b57-9f0e-1f1f2d2a3b4c"],
    "job_id": ["", "0" * 31, "g" * 32],
    "generation": [0, -1, "1", True, 1 << 64],
    "created_at": ["", "2026-11-20", "2026-13-20T12:00:00Z", "2026-11-20T12:00:00+00:00", 7],
    "committed_at": [""],
    "level": ["", "incremental", "half"],
    "parent_id": ["20261120T120000Z-00000009", "x"],
    "chain_depth": [1, -1],
    "consistency": [{}, {"reached": "crash", "wanted": "crash", "reason": 1}, []],
    "machine": [{}, [], {"platform": "memory", "id": "a", "name": "n"}, {"platform": "memory", "id": "b", "name": "n", "disks": []}],
    "native": [{}, *({"format": "x", "file": file, "size": 1, "sha256": "ef" * 32} for file in ("../x", "disk0.qcow2", "job.json"))],
    "nvram": [{"file": "/etc/passwd", "size": 1, "sha256": "ef" * 32}, {"file": "nvram.fd", "size": 1, "sha256": "e"}, 0],
    "tpm": [{"present": True, "covered": True}, {"present": 1, "covered": False}, {}],
    "not_covered": ["tpm", [1], None],
    "skipped_disks": [[{"disk_id": 1}], {}, None],
    "disks": [[], {}, None, [1]],
    "verified": [{"at": "2026-11-20T13:00:00Z", "method": "believed", "reason": ""}, {}],
    "versions": [{"python": 3}, []],
}  # fmt: skip
WRONG_DISK: Dict[str, List[Any]] = {
    "key": ["", "disk", "disk00", "../disk0", "disk99999"],
    "id": [1, None],
    "size_bytes": [0, -512, "1"],
    "level": ["", "incremental"],
    "reason": [None],
    "change_id": [None],
    "parent_id": ["20261120T120000Z-00000009", "x"],
    "parent_root": ["ab" * 16, "x"],
    "bytes_read": [-1],
    "bytes_written": ["0"],
    "bytes_zeroed": [None],
    "hash_algorithm": ["", "xxh3 128", "x" * 40],
    "block_bytes": [0, 65535, 1 << 30, "65536"],
    "root": ["", "AB" * 16, "a"],
    "file": ["", "../disk0.qcow2", "/x", ".hidden", "a b", "manifest.json", "job.json", "-rf", "x" * 65],
    "file_size": [0, -1],
    "file_digest": ["", "zz" * 16],
    "hashes_file": ["", "disk0.qcow2", "a/b"],
    "hashes_size": [-1],
    "hashes_sha256": ["", "ab" * 16],
}


@pytest.mark.parametrize("name", [field.name for field in fields(Manifest)])
def test_every_field_is_checked(name: str) -> None:
    for value in WRONG[name]:
        with pytest.raises(PointDamagedError):
            Manifest.from_bytes(sealed(changed(**{name: value})), "a test")
    lacking = changed()
    del lacking[name]
    with pytest.raises(PointDamagedError):
        Manifest.from_bytes(sealed(lacking), "a test")


@pytest.mark.parametrize("name", [field.name for field in fields(ManifestDisk)])
def test_every_field_of_a_disk_is_checked(name: str) -> None:
    for value in WRONG_DISK[name]:
        with pytest.raises(PointDamagedError):
            Manifest.from_bytes(sealed(with_disk(**{name: value})), "a test")


def test_the_planted_values_are_what_is_refused() -> None:
    assert Manifest.from_bytes(sealed(changed()), "a test") == a_manifest()
    assert Manifest.from_bytes(sealed(with_disk(change_id="", id="\ud800")), "a test")


def test_contradictions_are_damage() -> None:
    child = a_manifest(2, 1).to_dict()
    bad = [
        {**changed(), "colour": "red"},
        {**changed(), "disks": [*changed()["disks"], *changed()["disks"]]},
        {**changed(), "disks": [vars(a_disk()), vars(a_disk("disk1"))]},
        {**changed(), "disks": [vars(a_disk()), vars(a_disk("disk0", "serial-b"))]},
        {**child, "parent_id": child["point_id"], "disks": [{**child["disks"][0], "parent_id": child["point_id"]}]},
        {**child, "disks": [{**child["disks"][0], "parent_root": ""}]},
        {**child, "chain_depth": 0},
        {**child, "level": "full"},
    ]
    for data in bad:
        with pytest.raises(PointDamagedError):
            Manifest.from_bytes(sealed(data), "a test")
    assert Manifest.from_bytes(sealed(child), "a test").parent_id


def test_an_unreadable_manifest_keeps_its_place_and_its_time() -> None:
    found = unreadable_manifest("memory-a", "20261120T115400Z-0123abcd")
    assert (found.created_at, found.generation, found.schema_version, found.disks) == ("2026-11-20T11:54:00Z", 0, 0, [])


def test_the_reference_page_names_every_field() -> None:
    page = (ROOT / "docs/reference/manifest.md").read_text(encoding="utf-8")
    names = [field.name for field in (*fields(Manifest), *fields(ManifestDisk))]
    assert [name for name in names if f"`{name}`" not in page] == []
