# Copyright: (c) 2026, Sendense contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a failed report leaves of itself on the screen."""

from __future__ import annotations

from ansible_collections.sendense.platform.plugins.action.job_report import brief, failure_report

EVENTS = [{"event": "TRACKING_LIED"}]


def test_a_failed_task_shows_no_lists_twice_and_its_message_once() -> None:
    failed = failure_report({"msg": "No space", "error_code": "REPOSITORY_FULL", "details": {"disks": [1]}, "retryable": True})
    assert failed["failure"] == {"msg": "No space", "error_code": "REPOSITORY_FULL", "details": {"disks": [1]}, "retryable": True}
    assert failed["lines"] == []
    whole = dict(failed, findings=[{"kind": "dead_job"}], counts={"error": 1}, ok=False, file="/r/doctor-a.json", events=EVENTS)
    del whole["lines"]
    assert brief(whole) == {"ok": False, "file": "/r/doctor-a.json", "events": EVENTS}
