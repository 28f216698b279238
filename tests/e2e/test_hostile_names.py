# Copyright: (c) 2026, Sendense contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Machines, tags and policies whose names attack templates, shells, options and paths, on two hosts side by side."""

from __future__ import annotations

import json
import re
import subprocess
from pathlib import Path
from typing import Any, Dict, List

import libvirt
import pytest

from tests.lab import disks
from tests.lab.disks import ImageFile
from tests.lab.guest import Guest

from .estate import Estate, estate
from .points import stored_point
from .site import ROOT, Run

JINJA = """{{ lookup('pipe','touch pwned') }}; rm -rf "$HOME\""""
OPTION = "--help=$(touch pwned)`touch pwned`"
TAG = "../../{{ lookup('pipe','touch pwned') }}"
POLICY = "gold; {% for x in lookup('pipe','touch pwned') %}{% endfor %}"
#: What the restored machines are to be called, by the name of the saved one.
RENAMED = {OPTION: "..'; DROP TABLE machines; -- {{ lookup('pipe','touch pwned') }} & <x>"}
_SAFE = re.compile(r"[A-Za-z0-9._-]+")


@pytest.fixture(scope="module")
def hostile(lab_base):
    """The hostile machines, and two that share an innocent name, on two hosts; all backed up, verified and restored once."""
    with estate(lab_base, "hostile", hosts=2) as found:
        guests = [found.guest(JINJA), found.guest(OPTION), found.guest("twin"), found.guest("twin", host=1), found.guest(JINJA, host=1)]
        for guest in guests[:2]:
            mark(guest)
        yield Story(found, guests)


class Story:
    """What was done with the machines, in order."""

    def __init__(self, found: Estate, guests: List[Guest]) -> None:
        self.estate, self.guests = found, guests
        self.names = [inventory_name(guest) for guest in guests]
        site, self.reports = found.site, found.site.directory / "reports"
        self.storage = site.directory / "disks"
        self.storage.mkdir()
        self.outside = surroundings()
        self.listed = listed_inventory(found)
        self.discovered = site.play("discover", ",".join(self.names))
        self.first = site.backup(",".join(self.names), backup_vm_report_dir=str(self.reports))
        guests[0].write("vda", 0x31, 4 << 20, 64 << 10)
        guests[0].flush("vda")
        self.second = site.backup(self.names[0], backup_vm_report_dir=str(self.reports))
        self.verified = site.play("verify", ",".join(self.names), {"verify_vm_report_dir": str(self.reports)})
        self.restored = self.restore()

    def restore(self) -> Run:
        """The first machine is named after itself by a template, the second by a literal that must not become one."""
        path = self.estate.site.directory / "names.yml"
        literal = json.dumps(RENAMED[OPTION])
        path.write_text(
            f"e2e_names:\n  {self.names[1]}: !unsafe {literal}\n"
            """restore_vm_name: "{{ e2e_names[inventory_hostname] | default(sendense_machine_name ~ ' II', true) }}"\n"""
        )
        extra = {"restore_vm_storage": str(self.storage), "restore_vm_power_on": False, "restore_vm_report_dir": str(self.reports)}
        return self.estate.site.play("restore", ",".join(self.names[:2]), extra, options=["-e", f"@{path}"])


def mark(guest: Guest) -> None:
    """Hostile tags and policy, as an operator's tool would store them in the metadata."""
    text = "<machine>" + "".join(f"<{kind}>{escaped(value)}</{kind}>" for kind, value in (("tag", TAG), ("policy", POLICY))) + "</machine>"
    kind = libvirt.VIR_DOMAIN_METADATA_ELEMENT
    flags = libvirt.VIR_DOMAIN_AFFECT_CONFIG | libvirt.VIR_DOMAIN_AFFECT_LIVE
    guest.domain.setMetadata(kind, text, "sendense", "urn:sendense:machine:1", flags)


def escaped(text: str) -> str:
    """For an XML text."""
    return text.replace("&", "&amp;").replace("<", "&lt;")


def inventory_name(guest: Guest) -> str:
    """By the rule of the design."""
    return f"libvirt-{guest.uuid.replace('-', '')[:12]}"


def listed_inventory(found: Estate) -> Dict[str, Any]:
    """What ansible-inventory says."""
    argv = [str(Path(found.site.argv("x")[0]).with_name("ansible-inventory")), "-i", str(found.site.directory / "inventory"), "--list"]
    environ = dict(found.site.environ(), ANSIBLE_STDOUT_CALLBACK="ansible.builtin.default")
    done = subprocess.run(argv, cwd=ROOT, env=environ, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return dict(json.loads(done.stdout))


def surroundings() -> Dict[str, List[str]]:
    """Names in the directories where something that escaped or was executed would most likely show up."""
    places = (Path("/"), Path("/root"), Path("/tmp"), ROOT, ROOT / "playbooks", ROOT / "roles", ROOT / "tests" / "e2e")
    return {str(place): [path.name for path in place.iterdir()] for place in places}


def test_machines_are_named_by_their_id_and_keep_their_real_names_as_data(hostile):
    variables = hostile.listed["_meta"]["hostvars"]
    for guest, name in zip(hostile.guests, hostile.names, strict=True):
        # Text that Ansible must never evaluate is listed with that mark.
        assert variables[name]["sendense_machine_name"] == {"__ansible_unsafe": guest.name}
        assert variables[name]["sendense_machine_id"] == {"__ansible_unsafe": guest.uuid}
    assert sorted(hostile.listed["sendense_machines"]["hosts"]) == sorted(hostile.names)
    assert "twin" not in variables


def test_groups_of_hostile_tags_and_policies_are_plain_words(hostile):
    groups = [group for group in hostile.listed if group != "_meta"]
    assert [group for group in groups if not re.fullmatch(r"[A-Za-z0-9_]+", group)] == []
    for prefix in ("tag_", "policy_"):
        (group,) = [group for group in groups if group.startswith(prefix)]
        assert sorted(hostile.listed[group]["hosts"]) == sorted(hostile.names[:2])


def test_all_are_discovered_backed_up_and_verified_in_one_play_each(hostile):
    for guest, name in zip(hostile.guests, hostile.names, strict=True):
        assert f"{guest.uuid}" in json.dumps(hostile.discovered.result(name, "Describe the machine"))
        report = hostile.first.report(name)
        assert [disk["level"] for disk in report["disks"]] == ["full", "full"]
        assert hostile.verified.report(name)["ok"] is True
        manifest = stored_point(hostile.estate.site.repository, guest, report["point"]["id"]).manifest
        assert manifest["machine"]["name"] == guest.name
    assert [disk["level"] for disk in hostile.second.report(hostile.names[0])["disks"]] == ["incremental", "full"]


def test_each_is_restored_to_a_machine_with_a_hostile_new_name(hostile):
    names = [f"{JINJA} II", RENAMED[OPTION]]
    domains = {domain.name(): domain for domain in hostile.estate.hosts[0].connection.listAllDomains()}
    for original, renamed, host in zip(hostile.guests, names, hostile.names, strict=False):
        assert renamed in domains, hostile.restored.output
        assert hostile.restored.report(host)["machine_id"] == domains[renamed].UUIDString()
        copy = Guest.adopt(hostile.estate.hosts[0], renamed)
        for target, disk in original.disks.items():
            image = copy.disks[target].image
            assert Path(image.path).parent == hostile.storage
            assert disks.identical(ImageFile(str(disk.path), disk.format), image)


def test_nothing_was_executed(hostile):
    assert (hostile.estate.home / "canary").read_text() == "sings"
    places = [hostile.estate.site.directory, *(host.dir for host in hostile.estate.hosts)]
    assert [path for place in places for path in place.rglob("pwned*")] == []
    for place, names in surroundings().items():
        assert not [name for name in set(names) - set(hostile.outside[place]) if "pwned" in name], place


def test_no_path_holds_anything_but_safe_characters_or_lies_elsewhere(hostile):
    site = hostile.estate.site
    roots = [Path(site.repository), Path(site.hub_state), Path(site.node_state), hostile.reports, hostile.storage]
    unsafe = [path for root in roots for path in root.rglob("*") if not _SAFE.fullmatch(path.name)]
    assert unsafe == []
    machines = sorted(path.name for path in Path(site.repository, "machines").iterdir())
    assert machines == sorted(f"libvirt-{guest.uuid}" for guest in hostile.guests)
    expected = {"home", "hub", "node", "repo", "reports", "disks", "inventory", "tmp", "names.yml"}
    assert {path.name for path in site.directory.iterdir() if not path.name.startswith("results-")} == expected


def test_reports_are_named_after_the_inventory_name(hostile):
    names = sorted(path.name for path in hostile.reports.iterdir())
    expected = [f"{job}-{name}.json" for name in hostile.names for job in ("backup", "verify")]
    assert names == sorted(expected + [f"restore-{name}.json" for name in hostile.names[:2]])
    for path in hostile.reports.iterdir():
        assert json.loads(path.read_text())["machine"] in path.name


def test_checkpoints_of_hostile_machines_have_safe_names(hostile):
    for guest in hostile.guests:
        names = [checkpoint.getName() for checkpoint in guest.domain.listAllCheckpoints()]
        assert len(names) == 1 and _SAFE.fullmatch(names[0])
        assert "-backup-" in names[0]
