# Copyright: (c) 2026, Sendense contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A shell at a remote libvirt host that thaws a guest there if nobody here can any more.

The link may die between freeze and thaw. So before the freeze a small script is started at the host over a login of its own: it waits
for a word, and if its input ends without one, or none comes in time, it thaws the guest itself. A host without virsh has no such guard;
then the undo of the job thaws, as soon as the link is back.
"""

from __future__ import annotations

import os
import select
import subprocess
from contextlib import contextmanager
from typing import Iterator, Optional

from ...datapath.ssh_route import ENVIRONMENT, SshRoute, quoted
from ...hubstate.processes import die_with

#: Seconds in which the guest must have been thawed from here: more than a freeze, a snapshot and a thaw take where all is well.
GUARD_SECONDS = 60
#: Seconds until the script says that it waits, and until it has ended after its word.
READY_SECONDS, END_SECONDS = 15.0, 5.0
_READY, _THAWED = b"ready\n", b"thawed\n"
# Without a terminal nothing hangs up a script whose login is gone, but its output may be gone.
_SCRIPT = (
    "for program in virsh timeout head; do command -v $program >/dev/null || exit 45; done; trap '' HUP PIPE; echo ready; "
    '[ "$(timeout "$3" head -n 1)" = thawed ] || exec virsh --quiet --connect "$1" domfsthaw "$2" >/dev/null 2>&1'
)


class ThawGuard:
    """One such script. ``uri`` is that of libvirt as its own host says it."""

    def __init__(self, route: SshRoute, uri: str, machine_id: str) -> None:
        script = ["sh", "-c", _SCRIPT, "sh", uri, machine_id, str(GUARD_SECONDS)]
        self._argv = route.argv(command=quoted(script))
        self._process: Optional["subprocess.Popen[bytes]"] = None

    def start(self) -> bool:
        """Whether it waits now. It dies with this process, which lets the script thaw."""
        try:
            self._process = subprocess.Popen(
                self._argv,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
                env=dict(os.environ, **ENVIRONMENT),
                preexec_fn=die_with(os.getpid()),
            )
        except OSError:
            return False
        output = self._process.stdout
        if output is None or not select.select([output], [], [], READY_SECONDS)[0]:
            return False
        return output.readline() == _READY

    def end(self, thawed: bool) -> None:
        """Let it go; unless ``thawed`` it thaws the guest now. Repetition is a no-op."""
        process, self._process = self._process, None
        if process is None:
            return
        try:
            process.communicate(_THAWED if thawed else b"", END_SECONDS)
        except subprocess.TimeoutExpired:
            process.kill()  # the end of its input is a word, too
            process.communicate()


@contextmanager
def guarded(guard: Optional[ThawGuard]) -> Iterator[None]:
    """Keep the guard for the block; an error in it, of whatever kind, is what it is for."""
    if guard is None:
        yield
        return
    thawed = False
    try:
        guard.start()
        yield
        thawed = True
    finally:
        guard.end(thawed)
