# Copyright: (c) 2026, Sendense contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""How long nbd_export waits for ports, in which turns, and what its error says in the end."""

from __future__ import annotations

from typing import Any, Dict, List

import pytest

from ansible_collections.sendense.platform.plugins.action import nbd_export
from ansible_collections.sendense.platform.plugins.module_utils.hubstate.ports import PortPool
from ansible_collections.sendense.platform.plugins.module_utils.hubstate.statedir import StateDir


class Waiting(nbd_export.ActionModule):
    """The action with a module that finds no free port, and a clock that only its waiting moves."""

    def __init__(self, pool: PortPool) -> None:
        self.pool, self.now, self.turns = pool, 100.0, []
        self._play_context = None

    def module(self, arguments: Dict[str, Any], task_vars: Dict[str, Any]) -> Dict[str, Any]:
        assert isinstance(arguments["port_wait"], int)
        self.turns.append(arguments["port_wait"])
        self.now += arguments["port_wait"] + 0.3
        return self.pool.exhausted(2, float(arguments["port_wait"])).as_result()


@pytest.mark.parametrize(
    ("stated", "turns"),
    [(0, [0]), (1, [1]), (2, [2]), (8, [8]), (9, [8, 1]), (20, [8, 8, 4]), (None, [8] * 36 + [2])],
)
def test_the_turns_last_as_long_as_was_stated_and_the_error_says_so(monkeypatch, tmp_path, stated: "int | None", turns: List[int]):
    action = Waiting(PortPool(StateDir(str(tmp_path))))
    monkeypatch.setattr(nbd_export.time, "monotonic", lambda: action.now)
    result = action.perform({} if stated is None else {"port_wait": stated}, {})
    wait_s = 300 if stated is None else stated
    assert action.now - 100.0 >= wait_s
    assert action.turns == turns
    assert result["error_code"] == "PORTS_EXHAUSTED" and result["retryable"] is True
    assert result["details"]["wait_s"] == wait_s and result["details"]["wanted"] == 2
    assert f"within {wait_s} s" in result["msg"]
