# Copyright: (c) 2026, Sendense contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Without a way to the hub, a backup asks nothing of the machine and a restore makes nothing."""

from __future__ import annotations

import os

import pytest

from ansible_collections.sendense.platform.plugins.module_utils.arg_specs import tunnel_spec
from ansible_collections.sendense.platform.plugins.module_utils.errors import InvalidInputError, TunnelFailedError
from ansible_collections.sendense.platform.plugins.module_utils.jobs import restore, snapshot
from ansible_collections.sendense.platform.plugins.module_utils.model import Machine
from tests.integration.tunnel.conftest import ssh_processes

JOB = "00112233445566778899aabbccddeeff"


class Watched:
    """Stands at the end of the code under test: a platform that notes what is asked of it, and can do nothing."""

    def __init__(self) -> None:
        self.asked = []

    def __enter__(self):
        return self

    def __exit__(self, *exc):
        return None

    def __getattr__(self, name):
        def ask(*arguments):
            self.asked.append(name)
            return ""

        return ask


@pytest.fixture
def platform(monkeypatch):
    watched = Watched()
    for module, kind in ((snapshot, "source"), (restore, "target")):
        monkeypatch.setattr(module.registry, kind, lambda *_what: watched)
    return watched


@pytest.fixture
def begin(params):
    """Both beginnings at a node, as their modules call them."""
    backup = {"owner": "0a1b2c3d", "consistency": "crash", "allow_downgrade": True, "skip_excluded_disks": False}
    machine = Machine(platform="libvirt", id="6c9ce2d5", name="web01").to_dict()
    manifest = {"machine": machine, "machine_key": "libvirt-6c9ce2d5", "point_id": "20261120T120000Z-1a2b3c4d", "disks": []}
    new = {"manifest": manifest, "name": "new", "storage": "/srv", "disks": [], "networks": {}, "keep_mac": False, "format": "qcow2"}
    common = {"platform": "libvirt", "connection": {}, "job_id": JOB, "machine_id": "6c9ce2d5", "nvram_path": ""}

    def run(what, tunnel, check_mode):
        given = {name: option.get("default") for name, option in tunnel_spec()["tunnel"]["options"].items()}
        arguments = {**params, **common, **backup, **new, "tunnel": dict(given, **tunnel)}
        return (snapshot.open_snapshot if what == "backup" else restore.prepare)(arguments, check_mode)

    return run


@pytest.mark.parametrize("check_mode", [True, False])
@pytest.mark.parametrize("what", ["backup", "restore"])
def test_a_hub_elsewhere_without_a_tunnel_is_refused(what, check_mode, begin, platform, state):
    with pytest.raises(InvalidInputError, match="sendense_tunnel"):
        begin(what, {}, check_mode)
    assert (platform.asked, os.listdir(state.jobs)) == (["check"] if what == "restore" else [], [])


@pytest.mark.parametrize("what", ["backup", "restore"])
def test_a_hub_that_lets_nothing_pass_leaves_all_as_it_was(what, begin, platform, hub, state):
    hub.permit("restrict")
    with pytest.raises(TunnelFailedError, match="administratively prohibited"):
        begin(what, hub.options, False)
    assert (platform.asked, os.listdir(state.jobs)) == (["check"] if what == "restore" else [], [])
    assert ssh_processes(state.path) == []


def test_check_mode_of_a_restore_says_which_tunnel_it_has_tried(begin, platform, hub, state):
    said = begin("restore", hub.options, True)
    assert (said["tunnel"]["host"], platform.asked, os.listdir(state.jobs)) == ("127.0.0.1", ["check"], [])
