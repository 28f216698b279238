# Copyright: (c) 2026, Sendense contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The mover as a command.

For programs: ``mover --plan plan.json --status FILE --cancel FILE``. For people:
``mover --nbd-sources disk0:nbd+unix:///vda?socket=/run/x.sock --nbd-targets disk0:nbd://127.0.0.1:10100/vm-disk0``.
Exit codes: 0 done, 1 failed, 2 bad input (nothing was touched), 3 cancelled (SIGTERM, SIGINT or the cancel file).
"""

from __future__ import annotations

import argparse
import os
from typing import Any, Dict, List, Sequence, Tuple

from ..errors import InvalidInputError
from . import cli
from .blockhashes import FULL, INCREMENTAL
from .hashing import DEFAULT_ALGORITHM
from .loop import Stop
from .mover import move
from .mover_plan import DiskJob, MoverOptions, check_jobs, read_plan
from .targets import DEFAULT_HOST, DEFAULT_PORT, TCP, NbdTarget, parse_targets, parse_uri


def main(argv: Sequence[str]) -> int:
    """Copy the disks that the command line names; returns the exit code."""
    return cli.run(_move, argv)


def _move(argv: Sequence[str]) -> Dict[str, Any]:
    arguments = _parser().parse_args(list(argv))
    jobs, options = _from_plan(arguments) if arguments.plan else _from_arguments(arguments)
    stop = Stop()
    cli.cancel_on_signals(stop)
    return move(jobs, options, arguments.status, arguments.cancel, stop).document


def _parser() -> argparse.ArgumentParser:
    defaults = MoverOptions()
    parser = cli.StrictParser("mover", "Copy the disks of a machine between NBD exports, all at once.")
    parser.add_argument("--plan", default="", help="JSON file with all that follows; then only --status and --cancel")
    parser.add_argument("--status", default="", help="file to report progress in")
    parser.add_argument("--cancel", default="", help="file whose appearance cancels")
    parser.add_argument("--nbd-sources", default="", help="disk0:nbd://host:port/export,disk1:...")
    parser.add_argument("--nbd-targets", default="", help="the same; default: one per source, named after the disk")
    parser.add_argument("--nbd-host", default=DEFAULT_HOST, help="host of targets that name none")
    parser.add_argument("--nbd-port", default=str(DEFAULT_PORT), help="port of targets that name none")
    parser.add_argument("--level", choices=(FULL, INCREMENTAL), default=FULL)
    parser.add_argument("--changed-context", default="", help="NBD meta context of the changes (incremental)")
    parser.add_argument("--hash-dir", default="", help="directory for <disk>.hashes")
    parser.add_argument("--hash-algorithm", default=DEFAULT_ALGORITHM)
    parser.add_argument("--request-bytes", type=cli.byte_count, default=defaults.request_bytes)
    parser.add_argument("--depth", type=int, default=defaults.depth, help="requests in flight per disk; 0: automatic")
    parser.add_argument("--max-rate", type=cli.byte_count, default=0, help="bytes per second over all disks; 0: no cap")
    parser.add_argument("--stall-seconds", type=float, default=defaults.stall_seconds)
    return parser


def _from_plan(arguments: argparse.Namespace) -> Tuple[List[DiskJob], MoverOptions]:
    if arguments.nbd_sources or arguments.nbd_targets:
        raise InvalidInputError("Name the disks either in --plan or in --nbd-sources and --nbd-targets, not in both.")
    return read_plan(arguments.plan)


def _from_arguments(arguments: argparse.Namespace) -> Tuple[List[DiskJob], MoverOptions]:
    if not arguments.nbd_sources:
        raise InvalidInputError("Nothing to copy: give --plan, or --nbd-sources and --nbd-targets.")
    default = parse_uri(f"nbd://{_bracketed(arguments.nbd_host)}:{arguments.nbd_port}/default")
    if default.export != "default":
        raise InvalidInputError(f"--nbd-host {ascii(arguments.nbd_host)} is not a host.")
    sources = parse_targets(arguments.nbd_sources, None, default.host, default.port)
    if arguments.nbd_targets:
        targets = parse_targets(arguments.nbd_targets, len(sources), default.host, default.port)
    else:
        targets = [NbdTarget(one.key, TCP, default.host, default.port, "", one.key) for one in sources]
    by_key = {target.key: target for target in targets}
    missing = [source.key for source in sources if source.key not in by_key]
    if missing:
        raise InvalidInputError(f"{missing[0]} has a source but no target.", details={"disk": missing[0]})
    if arguments.hash_dir and not os.path.isdir(arguments.hash_dir):
        raise InvalidInputError(f"The hash directory {arguments.hash_dir!r} does not exist.")
    jobs = [_job(arguments, source, by_key[source.key]) for source in sources]
    options = MoverOptions(
        request_bytes=arguments.request_bytes,
        depth=arguments.depth,
        stall_seconds=arguments.stall_seconds,
        bandwidth_bytes_per_s=arguments.max_rate,
        hash_algorithm=arguments.hash_algorithm,
    )
    check_jobs(jobs)
    options.check()
    return jobs, options


def _job(arguments: argparse.Namespace, source: NbdTarget, target: NbdTarget) -> DiskJob:
    return DiskJob(
        key=source.key,
        source_uri=source.uri(),
        target_uri=target.uri(),
        level=arguments.level,
        changed_context=arguments.changed_context,
        hashes_path=os.path.join(arguments.hash_dir, f"{source.key}.hashes") if arguments.hash_dir else "",
    )


def _bracketed(host: str) -> str:
    return f"[{host}]" if ":" in host and not host.startswith("[") else host
