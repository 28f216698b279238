# Copyright: (c) 2026, Sendense contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What the command lines of mover, verifier and merger share: bad input, signals, the answer, exit codes.

Exit codes: 0 done, 1 failed, 2 bad input (nothing was touched), 3 cancelled. The last line on standard output is the
final document as JSON, with an ``error`` in the usual shape.
"""

from __future__ import annotations

import argparse
import json
import signal
import sys
from typing import Any, Callable, Dict, NoReturn, Sequence

from ..errors import InvalidInputError, JobCancelledError, SendenseError
from .loop import Stop, defect
from .status import CANCELLED, DONE, FAILED, SCHEMA

#: Takes the paths of plan, status file and cancel file, and what stops it; returns the final document.
PlanWork = Callable[[str, str, str, Stop], Dict[str, Any]]

EXIT_CODES = {DONE: 0, FAILED: 1, CANCELLED: 3}
EXIT_BAD_INPUT = 2


class StrictParser(argparse.ArgumentParser):
    """Raises InvalidInputError instead of ending the process; takes no abbreviated options."""

    def __init__(self, prog: str, description: str) -> None:
        super().__init__(prog=prog, description=description, allow_abbrev=False)

    def error(self, message: str) -> NoReturn:
        """Refuse the command line."""
        raise InvalidInputError(f"{self.prog}: {message}.", details={"usage": self.format_usage().strip()})


def cancel_on_signals(stop: Stop) -> None:
    """SIGTERM and SIGINT cancel in an orderly way."""

    def cancel(number: int, _frame: Any) -> None:
        stop.request(JobCancelledError(f"The job was cancelled by {signal.Signals(number).name}."))

    signal.signal(signal.SIGTERM, cancel)
    signal.signal(signal.SIGINT, cancel)


def run(action: Callable[[Sequence[str]], Dict[str, Any]], argv: Sequence[str]) -> int:
    """Run a command, print its final document, and return the exit code."""
    try:
        document = action(argv)
    except InvalidInputError as exc:
        document, code = _refusal(exc), EXIT_BAD_INPUT
    except SendenseError as exc:
        document, code = _refusal(exc), EXIT_CODES[FAILED]
    except Exception:  # noqa: BLE001 the end of the process: say what is known
        document, code = _refusal(defect("this job")), EXIT_CODES[FAILED]
    else:
        code = EXIT_CODES[document["state"]]
    sys.stdout.write(json.dumps(document) + "\n")
    if code == EXIT_BAD_INPUT:
        sys.stderr.write(f"{document['error']['msg']}\n")  # what a keeper passes on: there is no status file
    return code


def run_plan(argv: Sequence[str], prog: str, description: str, plan_help: str, work: PlanWork) -> int:
    """Run a command whose only input is a plan: ``<prog> --plan FILE --status FILE --cancel FILE``; returns the exit code."""

    def action(arguments: Sequence[str]) -> Dict[str, Any]:
        parser = StrictParser(prog, description)
        parser.add_argument("--plan", required=True, help=f"JSON file: {plan_help} and options")
        parser.add_argument("--status", default="", help="file to report progress in")
        parser.add_argument("--cancel", default="", help="file whose appearance cancels")
        found = parser.parse_args(list(arguments))
        stop = Stop()
        return work(found.plan, found.status, found.cancel, stop)

    return run(action, argv)


def byte_count(text: str) -> int:
    """A number of bytes, with an optional suffix K, M or G (powers of 1024)."""
    factors = {"K": 1 << 10, "M": 1 << 20, "G": 1 << 30}
    factor = factors.get(text[-1:].upper(), 1)
    digits = text[:-1] if factor > 1 else text
    if not (digits.isascii() and digits.isdigit()):
        raise argparse.ArgumentTypeError(f"{text!r} is not a number of bytes")
    return int(digits) * factor


def _refusal(error: SendenseError) -> Dict[str, Any]:
    return {"schema": SCHEMA, "state": FAILED, "error": error.as_result(), "disks": {}}
