# Copyright: (c) 2026, Sendense contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The one frame that every module runs in: arguments in, a result or one typed error out."""

from __future__ import annotations

import traceback
from typing import Any, Callable, Dict

from ansible.module_utils.basic import AnsibleModule

from .errors import SendenseError
from .hubstate.cancelling import attended_cancellation

Handler = Callable[[Dict[str, Any], bool], Dict[str, Any]]


def run_module(handler: Handler, argument_spec: Dict[str, Any], **options: Any) -> None:
    """Build the AnsibleModule, call ``handler(params, check_mode)`` and exit with its result.

    The handler returns the fields of the result (``changed`` defaults to False) and raises SendenseError. This is the
    only place of a module that turns an exception into a failed task.
    """
    module = AnsibleModule(argument_spec=argument_spec, **options)
    try:
        result = handler(module.params, module.check_mode)
    except Exception as error:  # noqa: BLE001 - main: the task must end in the one error shape, whatever happened
        module.fail_json(**failure(error))
    else:
        result.setdefault("changed", False)
        module.exit_json(**result)


def read_only(handler: Callable[[Dict[str, Any]], Dict[str, Any]]) -> Handler:
    """The handler of a module that changes nothing, in check mode or not."""
    return lambda params, _check_mode: handler(params)


def failure(error: Exception) -> Dict[str, Any]:
    """The fields of a failed task, while ``error`` is handled.

    Whatever goes wrong in a job that was cancelled meanwhile goes wrong because of that, and says so.
    """
    told = attended_cancellation() or error
    if isinstance(told, SendenseError):
        return told.as_result()
    return {
        "msg": f"Unexpected {type(told).__name__} in this module: {told}. This is a defect; report it with the traceback.",
        "error_code": SendenseError.error_code,
        "details": {},
        "retryable": False,
        "exception": traceback.format_exc(),
    }
