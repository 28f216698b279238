# Copyright: (c) 2026, Sendense contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The connection to another place of a job."""

from __future__ import annotations

from collections.abc import Mapping

import pytest
from ansible.errors import AnsibleError
from ansible.playbook.play_context import PlayContext

from ansible_collections.sendense.platform.plugins.plugin_utils.places import Place


class Variables(Mapping):
    """A host's variables, resolved one by one; one of them makes sense only for another host."""

    def __init__(self, **values):
        self._values = values

    def __getitem__(self, name):
        if name == "only_for_machines":
            raise AnsibleError("object of type 'dict' has no attribute 'node01'")
        return self._values[name]

    def __iter__(self):
        return iter([*self._values, "only_for_machines"])

    def __len__(self):
        return len(self._values) + 1


def test_a_variable_that_means_nothing_for_the_place_does_not_matter(tmp_path):
    node = Variables(ansible_connection="local", ansible_host="127.0.0.1")
    place = Place("node01", {"hostvars": {"node01": node}}, PlayContext())
    assert place.run(["printf", "%s", "a b"]) == "a b"
    (tmp_path / "there").write_text("content")
    place.fetch(str(tmp_path / "there"), str(tmp_path / "here"))
    assert (tmp_path / "here").read_text() == "content"
    place.close()


def test_the_connection_gets_the_options_of_the_place():
    node = Variables(ansible_connection="ssh", ansible_host="192.0.2.7", ansible_user="backup", ansible_port=443)
    place = Place("node01", {"hostvars": {"node01": node}}, PlayContext())
    options = [place._connection.get_option(name) for name in ("host", "remote_user", "port")]
    assert options == ["192.0.2.7", "backup", 443]


def test_a_place_outside_the_inventory_is_refused():
    with pytest.raises(AnsibleError, match="is not in the inventory"):
        Place("elsewhere", {"hostvars": {}}, PlayContext())
