# Copyright: (c) 2026, Sendense contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A tunnel is made, proven and refused before anything is touched, and leads to the exports of the hub."""

from __future__ import annotations

import os
import stat

import pytest

from ansible_collections.sendense.platform.plugins.module_utils.datapath.exports import check_export
from ansible_collections.sendense.platform.plugins.module_utils.datapath.targets import parse_uri
from ansible_collections.sendense.platform.plugins.module_utils.datapath.tunnel import CIPHERS
from ansible_collections.sendense.platform.plugins.module_utils.hubstate.machine import network
from ansible_collections.sendense.platform.plugins.module_utils.jobs.tunnelling import carry, dig, needed, rehearsed
from tests.integration.tunnel.conftest import SIZE, Hub, random_file, ssh_processes


@pytest.mark.parametrize("cipher", CIPHERS)
def test_exports_of_the_hub_are_reached_through_unix_sockets_of_the_job(hub: Hub, params, job, tmp_path, cipher):
    image = random_file(tmp_path / "disk.raw")
    uris = {f"disk{number}": hub.serve(f"vm disk{number}", 10150 + number, image, "--read-only") for number in (0, 1)}
    place = job()
    assert dig(place, needed(dict(params, tunnel=dict(hub.options, cipher=cipher)))) == {
        "host": "127.0.0.1",
        "port": hub.options["port"],
        "user": "root",
        "cipher": cipher,
    }
    near = carry(place, uris, dict.fromkeys(uris, SIZE))
    for key, uri in near.items():
        target = parse_uri(uri)
        assert (target.export, os.path.dirname(target.socket)) == (f"vm {key}", place.job.path)
        assert stat.S_IMODE(os.stat(target.socket).st_mode) == 0o600
        check_export(uri, SIZE)
    assert [child["kind"] for child in place.job.children()] == ["tunnel"]
    [ssh] = ssh_processes(params["state_dir"])
    assert place.job.children()[0]["pid"] == ssh
    place.finish()
    assert ssh_processes(params["state_dir"]) == []


def test_the_loopback_is_used_where_it_is_the_hubs_own(params, job):
    assert needed(dict(params, hub_network=network(), tunnel={})) is None
    assert dig(job(), None) == rehearsed(None) == {}
