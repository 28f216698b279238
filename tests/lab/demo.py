# Copyright: (c) 2026, Sendense contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The main job on a live guest, for a person to watch: ``./scripts/demo.sh``.

A guest with three disks that boots from its own first disk and never stops writing is backed up in full, then
incrementally; everything is verified; the incremental is restored to a new machine, compared byte by byte with what the
source's disks held at that instant, and booted. The evidence is written to ``build/demo/report.json``.
"""

from __future__ import annotations

import hashlib
import json
import os
import secrets
import shutil
import subprocess
import sys
import time
from pathlib import Path
from typing import Any, Dict, List, Optional

from ansible_collections.sendense.platform.plugins.plugin_utils.table import human_bytes, table
from tests.e2e.site import ROOT, Site

from .counters import one_instant, read_counters
from .disks import ImageFile, copy
from .guest import Guest
from .host import LibvirtHost, remove_hosts
from .paths import LabError

BUILD = ROOT / "build" / "demo"
SOURCE, RESTORED = "web01", "web01-restored"


class Demo:
    """One run; ``report`` collects what each step proved."""

    def __init__(self, host: LibvirtHost) -> None:
        self.host = host
        self.site = Site(BUILD / "site", [host.uri], repository=str(BUILD / "repository"))
        self.reports = BUILD / "reports"
        self.report: Dict[str, Any] = {"steps": [], "verified": False, "identical": False, "one_instant": False, "booted": False}
        self.evidence: Dict[str, Any] = {}

    def step(self, name: str, started: float, **facts: Any) -> None:
        """Record one finished step."""
        self.report["steps"].append(dict({"step": name, "seconds": round(time.monotonic() - started, 1)}, **facts))

    def play(self, playbook: str, *options: str, **extra: Any) -> Dict[str, Any]:
        """Run a playbook as a person would, its output on the terminal; returns the machine's report."""
        role = {"backup": "backup_vm", "verify": "verify_vm", "restore": "restore_vm"}.get(playbook)
        if role:
            extra[f"{role}_report_dir"] = str(self.reports)
        shown = " ".join([f"ansible-playbook playbooks/{playbook}.yml -l {SOURCE}", *options])
        print(f"\n$ {shown}", flush=True)
        environ = dict(self.site.environ(), ANSIBLE_STDOUT_CALLBACK="ansible.builtin.default", ANSIBLE_FORCE_COLOR="0")
        argv = self.site.argv(playbook, SOURCE, extra, options)
        done = subprocess.run(argv, cwd=ROOT, env=environ, stdin=subprocess.DEVNULL, check=False)
        if done.returncode != 0:
            raise LabError(f"{shown} ended with exit code {done.returncode}; its output is above")
        path = self.reports / f"{playbook}-{SOURCE}.json"
        return dict(json.loads(path.read_text())) if role and path.exists() else {}

    def backup(self, level: str) -> Dict[str, Any]:
        """Back up, and insist on the level that is due."""
        started = time.monotonic()
        report = self.play("backup")
        point = report["point"]
        self.step(f"{level} backup", started, point=point["id"], level=point["level"], disks=report["disks"], totals=report["totals"])
        if point["level"] != level:
            raise LabError(f"the backup {point['id']} should be {level}, but is {point['level']}")
        return report

    def run(self) -> None:
        """The whole job."""
        guest, nonce = self.boot_source()
        started = time.monotonic()
        self.play("discover")
        self.step("discover", started)
        self.play("backup", "--check", "--diff")
        full = self.backup("full")
        guest.wait_counter(guest.wait_counter() + 20)
        guest.suspend()
        guest.flush()
        reference = {f"disk{index}": guest.copy_disk(target, BUILD / f"reference-{target}.raw") for index, target in enumerate(guest.disks)}
        incremental = self.backup("incremental")
        guest.resume()
        self.verify()
        restored = self.restore()
        self.compare(reference, restored, full)
        self.boot_restored(restored, nonce)
        self.finish([full, incremental], guest)

    def boot_source(self) -> "tuple[Guest, str]":
        """Boot the source, let it write, and put a random nonce into one of its files."""
        started = time.monotonic()
        guest = Guest.bootable(self.host, SOURCE, networks=["labnet"])
        guest.start().wait_ready()
        guest.wait_counter(20)
        nonce = secrets.token_hex(16)
        guest.agent.wait().write_file("/data/nonce", f"{nonce}\n".encode())
        self.step("boot the source, write a nonce", started, nonce=nonce, disks=[disk.size_bytes for disk in guest.disks.values()])
        self.site.initialise()
        return guest, nonce

    def verify(self) -> None:
        """Read every byte of every point back."""
        started = time.monotonic()
        report = self.play("verify", verify_vm_all_points=True)
        blocks = sum(disk["blocks_checked"] for point in report["points"] for disk in point["disks"])
        self.report["verified"] = bool(report["ok"])
        self.evidence["verified"] = {"points": [point["point_id"] for point in report["points"]], "blocks_compared": blocks}
        self.step("verify", started, blocks_compared=blocks)

    def restore(self) -> Guest:
        """Restore to a new machine, not started yet."""
        started = time.monotonic()
        storage = BUILD / "restored"
        storage.mkdir()
        extra = {"restore_vm_name": RESTORED, "restore_vm_storage": str(storage), "restore_vm_power_on": False}
        report = self.play("restore", **extra)
        self.step("restore", started, point=report["point_id"], totals=report["totals"])
        return Guest.adopt(self.host, RESTORED)

    def compare(self, reference: Dict[str, Path], restored: Guest, full: Dict[str, Any]) -> None:
        """The restored disks against what the source's disks held at the instant, before anything boots from them."""
        started = time.monotonic()
        sums = {}
        for (key, path), (target, disk) in zip(reference.items(), restored.disks.items(), strict=True):
            raw = copy(disk.image, BUILD / f"restored-{target}.raw")
            sums[key] = {"reference_sha256": sha256(path), "restored_sha256": sha256(raw)}
            raw.unlink()
        self.report["identical"] = all(disk["reference_sha256"] == disk["restored_sha256"] for disk in sums.values())
        counters = restored.counters()
        point = Path(self.site.repository) / "machines" / f"libvirt-{restored_source(full)}" / "points" / full["point"]["id"]
        written = read_counters([ImageFile(str(point / f"disk{index}.qcow2")) for index in range(len(sums))])
        self.report["one_instant"] = one_instant(counters) and one_instant(written)
        self.evidence.update(identical=sums, one_instant={"restored": counters, "backed_up_while_writing": written})
        self.step("compare", started, identical=self.report["identical"], counters=counters)

    def boot_restored(self, restored: Guest, nonce: str) -> None:
        """The restored machine boots from its own disk and prints the nonce."""
        started = time.monotonic()
        restored.start().wait_ready()
        printed = restored.console.values("LAB NONCE ")
        self.report["booted"] = nonce in printed
        self.evidence["booted"] = {"nonce_written": nonce, "nonce_printed": printed}
        self.step("boot the restored machine", started, nonce_printed=printed)

    def finish(self, backups: List[Dict[str, Any]], guest: Guest) -> None:
        """The table, the report, and an end without anything left running."""
        self.report["evidence"] = self.evidence
        (BUILD / "report.json").write_text(json.dumps(self.report, indent=2) + "\n")
        says = {name: "yes" if self.report[name] else "NO" for name in ("verified", "identical", "booted")}
        rows = [dict(row, backup=backup["point"]["level"], **says) for backup in backups for row in backup["disks"]]
        for row in rows:
            row.update(disk=row["key"], why=row["reason"], read=human_bytes(row["bytes_read"]), rate=f"{human_bytes(row['rate'])}/s")
            row.update(written=human_bytes(row["bytes_written"]))
        columns = ("backup", "disk", "level", "why", "read", "written", "rate", "verified", "identical", "booted")
        print("\n" + "\n".join(table(rows, columns)))
        seconds = sum(step["seconds"] for step in self.report["steps"])
        print(f"\none instant: {self.evidence['one_instant']}\n{seconds:.0f} s; evidence: {BUILD / 'report.json'}", flush=True)


def restored_source(report: Dict[str, Any]) -> str:
    """The source machine's id, from its report."""
    return str(report["point"]["machine_key"]).partition("-")[2]


def sha256(path: Path) -> str:
    """SHA-256 of a file."""
    digest = hashlib.sha256()
    with path.open("rb") as stream:
        while piece := stream.read(1 << 20):
            digest.update(piece)
    return digest.hexdigest()


def main(argv: Optional[List[str]] = None) -> int:
    """Run the demo. Exit code 0: all was proved; 1: it was not, or something failed."""
    del argv
    if os.geteuid() != 0:
        print("demo: libvirt and qemu of the lab need root; run it with sudo", file=sys.stderr)
        return 1
    remove_hosts(BUILD / "hosts")
    shutil.rmtree(BUILD, ignore_errors=True)
    BUILD.mkdir(parents=True)
    try:
        with LibvirtHost("demo", BUILD / "hosts") as host:
            demo = Demo(host)
            demo.run()
    except LabError as error:
        print(f"demo: {error}", file=sys.stderr)
        return 1
    finally:
        remove_hosts(BUILD / "hosts")
    return 0 if all(demo.report[name] for name in ("verified", "identical", "one_instant", "booted")) else 1


if __name__ == "__main__":
    sys.exit(main())
