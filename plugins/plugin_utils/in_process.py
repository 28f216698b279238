# Copyright: (c) 2026, Sendense contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Runs a module of this collection in a fork of the worker, where that is what would run anyway: at the controller itself.

Packing a module, starting a Python and importing everything costs about half a CPU second, more than the rest of a backup of an
unchanged machine. Where the place is reached by the connection ``local``, as the same user and with the very interpreter
that runs Ansible, the fork has all of that already. It stays a process of its own: what kills it fails one task of one
machine. The module's own ``main`` runs in it, so arguments, check mode, results and errors cannot differ from the usual way.
"""

from __future__ import annotations

import atexit
import io
import json
import os
import selectors
import signal
import sys
import traceback
from typing import Any, Callable, Dict, List, NoReturn

from ansible import constants
from ansible.module_utils import _internal, basic
from ansible.module_utils.common.json import Direction, get_module_encoder

#: How arguments and results of Python modules are written as JSON.
PROFILE = "legacy"
#: What a worker of Ansible handles in its own way.
_SIGNALS = (signal.SIGINT, signal.SIGTERM)


def is_possible(action: Any, task_vars: Dict[str, Any]) -> bool:
    """Whether the module of this action would run with the same user, environment and interpreter as this process."""
    if action._connection.transport != "local" or action._connection.become is not None or action._play_context.become:
        return False
    if action._task.async_val or constants.DEFAULT_KEEP_REMOTE_FILES or action._compute_environment_string().strip():
        return False
    variables = task_vars
    if action._task.delegate_to:
        variables = task_vars.get("ansible_delegated_vars", {}).get(action._task.delegate_to, {})
    interpreter = action._templar.template(variables.get("ansible_python_interpreter", ""))
    return is_own_interpreter(str(interpreter))


def is_own_interpreter(path: str) -> bool:
    """Whether this path is the interpreter of this process, perhaps by another of its names in the same environment."""
    # The directory decides which environment an interpreter belongs to; "python" and "python3" are the same there.
    if os.path.dirname(path) != os.path.dirname(sys.executable):
        return False
    try:
        return os.path.samefile(path, sys.executable)
    except OSError:
        return False


def run(main: Callable[[], None], arguments: Dict[str, Any], meanwhile: Callable[[], None], pause_s: float) -> Dict[str, Any]:
    """Call a module's ``main`` in a fork; its ``stdout``, ``stderr`` and ``rc`` as a command's.

    ``meanwhile`` is called in this process at once and every ``pause_s`` seconds until the module has ended.
    """
    encoder = get_module_encoder(PROFILE, Direction.CONTROLLER_TO_MODULE)
    payload = json.dumps({"ANSIBLE_MODULE_ARGS": arguments}, cls=encoder).encode()
    streams = [os.pipe(), os.pipe()]
    pid = os.fork()
    if pid == 0:
        _module(main, payload, [writing for _reading, writing in streams])
    for _reading, writing in streams:
        os.close(writing)
    try:
        out, err = _collect([reading for reading, _writing in streams], meanwhile, pause_s)
    finally:
        for reading, _writing in streams:
            os.close(reading)
        status = os.waitpid(pid, 0)[1]
    return {"stdout": out, "stderr": err, "rc": os.waitstatus_to_exitcode(status)}


def _collect(descriptors: List[int], meanwhile: Callable[[], None], pause_s: float) -> List[str]:
    """Everything that comes out of these pipes until their writers have closed them."""
    texts: Dict[int, bytearray] = {descriptor: bytearray() for descriptor in descriptors}
    with selectors.DefaultSelector() as selector:
        meanwhile()
        for descriptor in descriptors:
            selector.register(descriptor, selectors.EVENT_READ)
        while selector.get_map():
            ready = selector.select(pause_s)
            for key, _events in ready:
                data = os.read(key.fd, 1 << 16)
                texts[key.fd] += data
                if not data:
                    selector.unregister(key.fd)
            if not ready:
                meanwhile()
    return [bytes(texts[descriptor]).decode("utf-8", "surrogateescape") for descriptor in descriptors]


def _module(main: Callable[[], None], payload: bytes, outputs: List[int]) -> NoReturn:
    """The fork: from here on nothing of the controller may be used, and nothing returns to it."""
    code = 1
    try:
        _become_module(payload, outputs)
        main()
    except SystemExit as ended:
        code = _exit_code(ended.code)
    except BaseException:  # noqa: BLE001 - main
        traceback.print_exc()
    finally:
        _leave(code)


def _become_module(payload: bytes, outputs: List[int]) -> None:
    for number in _SIGNALS:
        signal.signal(number, signal.SIG_DFL)
    for descriptor, output in enumerate(outputs, start=1):
        os.dup2(output, descriptor)
    sys.stdin = open(os.devnull, encoding="utf-8")
    sys.stdout, sys.stderr = (io.TextIOWrapper(os.fdopen(number, "wb", closefd=False), "utf-8") for number in (1, 2))
    atexit._clear()
    _internal.is_controller = False  # warnings belong into the result, not to the controller's display
    basic._ANSIBLE_ARGS, basic._ANSIBLE_PROFILE = payload, PROFILE


def _exit_code(code: Any) -> int:
    return code if isinstance(code, int) else int(code is not None)


def _leave(code: int) -> NoReturn:
    try:
        atexit._run_exitfuncs()
        sys.stdout.flush()
        sys.stderr.flush()
    finally:
        os._exit(code)
