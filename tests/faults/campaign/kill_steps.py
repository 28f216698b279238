# Copyright: (c) 2026, Sendense contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The kills of the family kill-step: which process, at which step of which play."""

from __future__ import annotations

from typing import List, Sequence

from tests.faults.kills import Fault

from .waves import Suffering, Wave


def _each(steps: str, victim: str = "module") -> List[Suffering]:
    return [(Fault(victim, step),) for step in steps.split()]


#: The process that reached the step: the module of a task, or the keeper.
OF_BACKUP = _each(
    "hub:keeper-started open:leased generation:raised open:saved snapshot:planned node:keeper-started snapshot:undo-registered"
    " libvirt:frozen snapshot:opened serve:checked export:undo-registered export:ports-leased create:partial-made create:images-made"
    " export:disk0-started export:checked copy:started copy:done commit:writers-stopped reread:files-synced commit:reread-started"
    " commit:reread-done seal:files-adopted commit:files-synced commit:manifest-written commit:renamed commit:published"
    " commit:finished close:children-stopped close:source-closed close:finished"
)
OF_KEEPERS = _each(
    "keeper:alive keeper:lease-held keeper:undo-saved keeper:ports-leased keeper:export-started keeper:mover-started"
    " keeper:verifier-started keeper:children-stopped keeper:undone keeper:released"
)
#: Another process than the one that reached the step.
OTHERS: List[Suffering] = [
    (Fault("hub keeper", "open:saved"),),
    (Fault("node keeper", "snapshot:opened"),),
    (Fault("hub keeper", "export:ports-leased"),),
    (Fault("export", "export:checked"),),
    (Fault("mover", "copy:started", copied=True),),
    (Fault("export of the second disk", "copy:started", copied=True),),
    (Fault("qemu", "copy:started", copied=True),),
    (Fault("node keeper", "copy:started", copied=True),),
    (Fault("hub keeper", "copy:started", copied=True),),
    (Fault("checker", "commit:reread-started"),),
    (Fault("reader", "commit:reread-started"),),
    (Fault("hub keeper", "reread:files-synced"),),
    (Fault("qemu", "snapshot:opened"),),
    (Fault("qemu", "commit:renamed"),),
    (Fault("hub keeper", "commit:renamed"),),
    (Fault("node keeper", "close:children-stopped"),),
]
#: A job that fails is taken back, and what takes it back is killed.
OF_ABORTS: List[Suffering] = [
    (Fault("mover", "copy:started", copied=True), Fault("module", "abort:children-stopped")),
    (Fault("export", "copy:started", copied=True), Fault("module", "abort:partial-removed")),
    (Fault("checker", "commit:reread-started"), Fault("module", "undo:point")),
]
#: A killed ansible-playbook: keepers undo the jobs by themselves, and one of them is killed while it does.
OF_ANSIBLE: List[Sequence[Suffering]] = [
    [(Fault("ansible", "open:leased"),)],
    [(Fault("ansible", "snapshot:opened"), Fault("module", "undo:snapshot"))],
    [(Fault("ansible", "copy:started", copied=True),)],
    [(Fault("ansible", "commit:renamed"),)],
]
OF_LIBVIRTD: List[Sequence[Suffering]] = [
    [(Fault("libvirtd", "snapshot:planned"),)],
    [(Fault("libvirtd", "copy:started", copied=True),)],
    [(Fault("libvirtd", "close:children-stopped"),)],
]
OF_VERIFY: List[Suffering] = [
    (Fault("module", "hub:keeper-started"),),
    (Fault("module", "verify:points-held"),),
    (Fault("module", "keeper:verifier-started"),),
    (Fault("hub keeper", "hub:keeper-started"),),
    (Fault("hub verify-0", "keeper:verifier-started"),),
    (Fault("hub reread-disk1", "keeper:verifier-started"),),
]
OF_RESTORE: List[Suffering] = [
    (Fault("module", "restore:point-held"),),
    (Fault("module", "node:keeper-started"),),
    (Fault("module", "restore:prepared"),),
    (Fault("module", "copy:started"),),
    (Fault("module", "copy:done"),),
    (Fault("mover", "copy:started", copied=True),),
    (Fault("hub read-disk0", "copy:started", copied=True),),
    (Fault("node target-disk0", "copy:started", copied=True), Fault("module", "undo:machine")),
    (Fault("hub keeper", "copy:started", copied=True),),
    (Fault("node keeper", "copy:started", copied=True),),
]
OF_FILES: List[Suffering] = [
    (Fault("hub copy", "copy:started", copied=True), Fault("module", "undo:files")),
    (Fault("hub target-disk1", "copy:started", copied=True),),
    (Fault("hub keeper", "copy:started", copied=True),),
    (Fault("module", "copy:done"),),
]
#: Steps that need a play of their own, see kill_step.py.
CLEANUP_STEPS = ["cleanup:claimed", "cleanup:undone"]
DELETE_STEPS = ["delete:released", "delete:renamed", "delete:removed"]
DAMAGE_STEPS = ["damage:marked"]

#: What may share a play with others.
SHARING: List[Suffering] = [*OF_BACKUP, *OF_KEEPERS, *OTHERS, *OF_ABORTS]


def waves(machines: int) -> List[Wave]:
    """All plays but those with steps of their own, for a fleet of so many machines."""
    alone = [Wave("backup", sufferings) for sufferings in [*OF_ANSIBLE, *OF_LIBVIRTD]]
    shared = [Wave("backup", SHARING[first : first + machines]) for first in range(0, len(SHARING), machines)]
    return [*shared, *alone, Wave("verify", OF_VERIFY), Wave("restore", OF_RESTORE), Wave("files", OF_FILES)]
