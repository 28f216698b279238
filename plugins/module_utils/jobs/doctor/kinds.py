# Copyright: (c) 2026, Sendense contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Every kind of finding of the doctor: its name, how bad it is, what it means and what mending does.

Names are stable: schedulers and people filter by them. docs/runbooks/doctor-findings.md has one section for each.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import Any, Dict, FrozenSet, List

from ...errors import InvalidInputError

ERROR, WARNING, HINT = "error", "warning", "hint"
#: Worst first.
SEVERITIES = (ERROR, WARNING, HINT)

_YES = ("all", "true", "yes", "on", "1")
_NO = ("", "false", "no", "off", "0", "none")


@dataclass(frozen=True)
class Kind:
    """``meaning``: for restores and for the next backup. ``mending`` empty: the doctor cannot mend it."""

    name: str
    severity: str
    meaning: str
    mending: str = ""


@dataclass
class Diagnosis:
    """One finding. ``where`` is hub or node; ``machine_key`` empty if it concerns the place."""

    kind: str
    object: str
    found: str
    """What was seen, in one sentence."""
    where: str = ""
    machine_key: str = ""
    machine_id: str = ""
    details: Dict[str, Any] = field(default_factory=dict)
    mendable: bool = False
    mended: bool = False
    why_not: str = ""
    """Why it was not mended although that was asked for."""

    def __post_init__(self) -> None:
        self.mendable = bool(KINDS[self.kind].mending) and not self.why_not

    def to_dict(self) -> Dict[str, Any]:
        """Plain data with what the kind says: ``severity``, ``meaning``, ``mending``."""
        kind = KINDS[self.kind]
        return dict(asdict(self), severity=kind.severity, meaning=kind.meaning, mending=kind.mending)


_FULL = "The next backup of the machine is a full one, by itself"
_NEWEST = "If the newest is concerned, the next backup is a full one, by itself."
_LOST = "It and every backup that stands on it cannot be restored; others are not touched by it."
_MARK = "It and all that stand on it are marked as damaged: they are not offered any more and the next backup is a full one."
_PAYS = "No backup needs it, and every write of the guest pays for it."
_UNDO = "The undo commands of the job are run, its children are killed, its directory and partial backup are removed."

_ALL = (
    # --- the repository as a whole
    Kind("repository_missing", ERROR, "Nothing can be backed up, restored or verified there; a restore by hand needs no marker."),
    Kind("repository_mismatch", ERROR, "Another repository is mounted or named: backups would go to, or be restored from, the wrong one."),
    Kind("repository_unreadable", ERROR, "The storage failed a read: what was not read is unknown, and backups and restores may fail."),
    Kind("space_low", WARNING, "Backups will be refused before they begin; restores still work."),
    Kind("no_direct_io", HINT, "A backup's re-read may be answered by this machine's memory instead of the storage."),
    Kind("no_hard_links", HINT, "Expired increments cannot be merged here: chains grow until the next full, and retention frees less."),
    Kind(
        "merge_open",
        WARNING,
        "All kept backups can be restored; those being consumed are not offered and their space is not free yet.",
        "What the interrupted merge had already decided is finished; the next prune does the rest.",
    ),
    Kind("merge_unreadable", ERROR, "Nobody can tell which backups the interrupted merge consumes, so none of the machine is offered."),
    # --- points
    Kind("point_damaged", ERROR, f"{_LOST} {_NEWEST}"),
    Kind("manifest_unreadable", ERROR, f"{_LOST} The images may be whole. {_NEWEST}"),
    Kind("chain_broken", ERROR, f"{_LOST} A directory may have been moved, removed or put in the place of another."),
    Kind("image_wrong", ERROR, f"{_LOST} An image was swapped, loops, or names a file that it must not read: treat it as hostile.", _MARK),
    Kind("file_missing", ERROR, _LOST, _MARK),
    Kind("file_changed", ERROR, f"{_LOST} Something wrote to the repository, or the storage lies.", _MARK),
    Kind("hashes_wrong", ERROR, f"{_LOST} The images may be whole, but nothing can prove it.", _MARK),
    Kind("no_sound_point", ERROR, "This machine cannot be restored from this repository at all. Back it up now."),
    Kind("point_distrusted", WARNING, f"It is restorable as it was committed, but no backup builds on it. {_FULL}."),
    Kind(
        "partial_orphan",
        WARNING,
        "It takes space and is never offered for a restore. The next backup of the machine removes it.",
        "The partial backup is removed.",
    ),
    Kind("partial_of_other_hub", HINT, "Only the hub that writes it knows whether its job is alive: look there."),
    Kind("point_from_future", WARNING, "The clock was or is wrong. Restores are not concerned; retention will keep it too long."),
    Kind("points_out_of_order", HINT, "The clock was set back between two backups. Restores and incrementals are not concerned."),
    Kind("source_gone", WARNING, "Its backups can be restored; it is not backed up any more. Only retention or a person removes them."),
    # --- a place
    Kind("dead_job", WARNING, "What it left takes space and may hold the machine; the next job here undoes it first.", _UNDO),
    Kind("stray_process", WARNING, "A child of a dead job still runs and may hold an image or a port.", _UNDO),
    Kind("hung_job", WARNING, "The machine cannot be backed up while its keeper holds the lease."),
    Kind("half_made_job", HINT, "A crash left it while a job began or ended. It means nothing.", "The directory is removed."),
    Kind("stale_lease", HINT, "Nobody holds it: it means nothing and is in nobody's way.", "The file is removed."),
    Kind("stale_export", HINT, "The server that it speaks of is dead: it means nothing.", "The file is removed."),
    Kind("restore_leftover", WARNING, "No machine of this place uses this disk of a restore. It takes space."),
    # --- the platform
    Kind("platform_unreadable", ERROR, "The machine cannot be looked at: backups of it fail, too, until the platform answers."),
    Kind(
        "backup_job_left",
        WARNING,
        "The machine cannot be backed up while it runs, and its scratch files grow.",
        "The backup job is ended and its servers stop; the change tracking state stays.",
    ),
    Kind(
        "tracking_inconsistent",
        WARNING,
        f"{_FULL}: qemu did not store the bitmap cleanly and nobody can know what changed.",
        "The checkpoint and its bitmaps are removed.",
    ),
    Kind(
        "checkpoint_without_bitmap",
        WARNING,
        f"{_FULL} for this disk: what changed is not known.",
        "The checkpoint and what is left of its bitmaps are removed.",
    ),
    Kind("bitmap_without_checkpoint", HINT, _PAYS, "The bitmaps are removed."),
    Kind(
        "tracking_unneeded",
        HINT,
        _PAYS,
        "The checkpoint and its bitmaps are removed.",
    ),
    Kind("tracking_lost", HINT, f"{_FULL}: the tracking state that it would start from is gone."),
    Kind(
        "checkpoint_chain_broken",
        WARNING,
        "The platform may refuse to delete or show checkpoints; bitmaps are not concerned.",
        "The checkpoint is registered again without its lost parent; the bitmaps stay and incrementals go on.",
    ),
    Kind("source_image_unreadable", WARNING, "The machine's image or its backing chain cannot be read: its backup fails or is a full one."),
    Kind("scratch_left", WARNING, "A dead backup job left it; it takes space at the node.", "The file is removed."),
)

#: All kinds by name.
KINDS: Dict[str, Kind] = {kind.name: kind for kind in _ALL}
MENDABLE: FrozenSet[str] = frozenset(kind.name for kind in _ALL if kind.mending)


def kinds_to_mend(asked: Any) -> FrozenSet[str]:
    """What the option ``mend`` asks for: a bool, words for one, or kinds. InvalidInputError for what cannot be mended."""
    words = asked if isinstance(asked, (list, tuple)) else str("" if asked is None else asked).split(",")
    names = [str(word).strip() for word in words]
    if any(name.lower() in _YES for name in names):
        return MENDABLE
    wanted = [name for name in names if name.lower() not in _NO]
    unknown = [name for name in wanted if name not in MENDABLE]
    if unknown:
        raise InvalidInputError(
            f"The doctor cannot mend {', '.join(unknown)}. It can mend: {', '.join(sorted(MENDABLE))}.", details={"unknown": unknown}
        )
    return frozenset(wanted)


def ordered(found: List[Diagnosis]) -> List[Diagnosis]:
    """Worst first, then by machine, kind and object; the same thing only once."""
    unique: Dict[Any, Diagnosis] = {}
    for one in found:
        unique.setdefault((one.kind, one.where, one.machine_key, one.object), one)
    return sorted(unique.values(), key=lambda one: (SEVERITIES.index(KINDS[one.kind].severity), one.machine_key, one.kind, one.object))
