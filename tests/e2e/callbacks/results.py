# Copyright: (c) 2026, Sendense contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Writes every task result of a run as JSON, for tests; prints what the default callback prints."""

from __future__ import annotations

DOCUMENTATION = r"""
name: results
type: stdout
short_description: Results of a run as JSON, for tests
description:
  - Writes the file that the environment variable SENDENSE_TEST_RESULTS names.
extends_documentation_fragment:
  - default_callback
  - result_format_callback
"""

import json
import os
from typing import Any, Dict, List

from ansible.plugins.callback.default import CallbackModule as DefaultCallback


class CallbackModule(DefaultCallback):
    CALLBACK_VERSION = 2.0
    CALLBACK_TYPE = "stdout"
    CALLBACK_NAME = "results"

    def __init__(self) -> None:
        super().__init__()
        self._results: List[Dict[str, Any]] = []

    def _note(self, result: Any, failed: bool) -> None:
        data = json.loads(json.dumps(result.result, default=str))
        data["failed"] = failed  # callbacks are not given the field itself
        self._results.append({"host": result.host.get_name(), "task": result.task.get_name(), "result": data})

    def v2_runner_on_ok(self, result: Any) -> None:
        self._note(result, failed=False)
        super().v2_runner_on_ok(result)

    def v2_runner_on_failed(self, result: Any, ignore_errors: bool = False) -> None:
        self._note(result, failed=True)
        super().v2_runner_on_failed(result, ignore_errors)

    def v2_playbook_on_stats(self, stats: Any) -> None:
        super().v2_playbook_on_stats(stats)
        hosts = {host: stats.summarize(host) for host in stats.processed}
        with open(os.environ["SENDENSE_TEST_RESULTS"], "w", encoding="utf-8") as stream:
            stream.write(json.dumps({"stats": hosts, "tasks": self._results}))  # far faster than dump
